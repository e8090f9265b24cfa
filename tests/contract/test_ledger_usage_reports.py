"""What every UsageReports promises: the one in Postgres, its rollups behind or not, against the one in memory."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.ledger.adapters.memory import MemoryLedger, MemoryTenants, MemoryUsage
from services.ledger.adapters.memory_usage import MemoryUsageReports
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_rollups import PostgresRollups
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.adapters.postgres_usage_reports import PostgresUsageReports
from services.ledger.domain import paging
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.usage_values import Dimension, ExportedRecord, Grouping, facets_of
from services.ledger.domain.values import Cursor, Recorded, Selection, Tokens, UsageEvent, UsageRecord
from services.runtime.errors import AlreadyExists
from tests.unit.ledger.samples import NOW, a_record, an_event

KEY, ROBOT = "apiKeys/" + "0" * 16, "apiKeys/" + "1" * 16
ALICE = "users/" + "a" * 16
DOCUMENT = "documents/" + "0" * 32
# The ends of months and years, a leap day, and moments beside them.
BORDERS = [
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 3, 1, tzinfo=UTC),
    datetime(2025, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, 0, 30, tzinfo=UTC),
    NOW,
    NOW + timedelta(minutes=59, seconds=59, microseconds=999_999),
    NOW + timedelta(hours=1),
]


@dataclass
class Twins:
    """The same books in Postgres and in memory."""

    dsn: str
    pool: Pool
    usage: PostgresUsage
    reports: PostgresUsageReports
    rollups: PostgresRollups
    memory: MemoryUsage
    told: MemoryUsageReports

    async def record(self, records: list[UsageRecord]) -> None:
        assert await self.usage.record(records) == await self.memory.record(records)

    async def agree(self, selection: Selection, grouping: Grouping) -> None:
        """The report, its groups and sums, and every part of its list are the same."""
        after: Cursor | None = None
        while True:
            ours = await self.reports.report(selection, after, 7, grouping)
            assert ours == await self.told.report(selection, after, 7, grouping), (selection, grouping)
            if grouping.by and not ours.more_groups:
                assert sum(group.cost_micros for group in ours.groups) == ours.total_cost_micros
                assert sum(group.records for group in ours.groups) == ours.total_records
            if len(ours.records) < 7:
                break
            after = paging.cursor_of(ours.records[-1])


@pytest.fixture
async def twins(database: Callable[[str], str]) -> AsyncIterator[Twins]:
    dsn, ledger = database("ledger"), MemoryLedger()
    key_id, user_id = KEY.removeprefix("apiKeys/"), ALICE.removeprefix("users/")
    ledger.keys[key_id] = (ApiKey(key_id, "acme", "key", frozenset(), NOW, user=user_id), b"", None)
    pool = await open_pool(dsn, name="test", max_size=8)
    for tenant in ("acme", "other"):
        await PostgresTenants(pool).ensure(tenant, tenant, NOW)
        await MemoryTenants(ledger).ensure(tenant, tenant, NOW)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        connection.execute(
            "INSERT INTO ledger.users VALUES ('acme', %s, 'alice@example.com', 'Alice', 'member', true, now(), now())",
            (ALICE.removeprefix("users/"),),
        )
        for key, user in ((KEY, ALICE.removeprefix("users/")), (ROBOT, None)):
            connection.execute(
                "INSERT INTO ledger.api_keys (id, tenant, display_name, key_hash, scopes, create_time, user_id)"
                " VALUES (%s, 'acme', 'key', sha256(%s::bytea), '{usage.read}', now(), %s)",
                (key.removeprefix("apiKeys/"), key.encode(), user),
            )
    usage, reports = PostgresUsage(pool), PostgresUsageReports(pool)
    yield Twins(dsn, pool, usage, reports, PostgresRollups(pool), MemoryUsage(ledger), MemoryUsageReports(ledger))
    await pool.close()


def some_record(chance: random.Random) -> UsageRecord:
    """Anything, at the borders of months as a rule."""
    time = chance.choice(BORDERS) + timedelta(seconds=chance.choice([0, 0, 1, -1, 3600, -86_400]))
    event = UsageEvent(
        event_id=uuid.UUID(int=chance.getrandbits(128)),
        model=chance.choice(["a/a", "b/b", "ü/✂"]),
        tokens=Tokens(chance.randrange(1000), chance.randrange(1000)),
        operation=chance.choice(["summarize.map", "ask"]),
        document=chance.choice(["", DOCUMENT]),
        request_id=chance.choice(["", "r-1", "r-2"]),
        occur_time=time,
        tags=chance.choice([{}, {"team": "blue"}, {"team": "", "note": "'; --"}, {"note": "%s {usage}"}]),
        job=chance.choice(["", "jobs/1", "jobs/2"]),
    )
    return replace(
        a_record(event, cost_micros=chance.randrange(10_000)),
        actor=chance.choice([KEY, ROBOT, "users/" + "b" * 16]),
        project=chance.choice(["", "projects/p"]),
    )


def some_question(chance: random.Random) -> tuple[Selection, Grouping]:
    """A selection and a grouping that may be asked together."""
    while True:
        start, end = sorted([chance.choice(BORDERS), chance.choice(BORDERS) + timedelta(hours=chance.randrange(50))])
        selection = Selection(
            "acme",
            start=chance.choice([None, start]),
            end=chance.choice([None, end]),
            request_id=chance.choice(["", "", "", "r-1"]),
            document=chance.choice(["", "", "", DOCUMENT]),
            model=chance.choice(["", "", "a/a"]),
            project=chance.choice(["", "", "projects/p"]),
            actor=chance.choice(["", "", KEY]),
            user=chance.choice(["", "", ALICE]),
            operation=chance.choice(["", "", "ask"]),
            job=chance.choice(["", "", "jobs/1"]),
            tag=chance.choice([("", ""), ("", ""), ("team", "blue"), ("team", "")]),
        )
        by = tuple(chance.sample(list(Dimension), chance.randrange(4)))
        tag = chance.choice(["team", "note"]) if Dimension.TAG in by else ""
        grouping = Grouping(by, tag, chance.choice([0, 0, 3]))
        if selection.request_id or selection.document or len(facets_of(selection, grouping)) == 1:
            return selection, grouping


@pytest.mark.parametrize("seed", range(4))
async def test_any_sum_is_that_of_the_records(twins: Twins, seed: int) -> None:
    """Whatever came late or out of order, and however far the rollups are behind."""
    chance = random.Random(seed)
    for _ in range(12):
        by_actor: dict[tuple[str, str], list[UsageRecord]] = {}
        for record in (some_record(chance) for _ in range(15)):
            by_actor.setdefault((record.actor, record.project), []).append(record)
        for batch in by_actor.values():
            await twins.record(batch)
        if chance.random() < 0.6:
            await twins.rollups.fold(chance.choice([1, 20, 10_000]))
        for _ in range(8):
            await twins.agree(*some_question(chance))


async def test_each_grouping_adds_up_to_the_whole(twins: Twins) -> None:
    chance = random.Random(5)
    for _ in range(40):
        await twins.record([some_record(chance)])
    for fold in (0, 25, 10_000):
        await twins.rollups.fold(fold)
        for dimension in Dimension:
            tag = "team" if dimension is Dimension.TAG else ""
            await twins.agree(Selection("acme"), Grouping((dimension,), tag))
            await twins.agree(
                Selection("acme"), Grouping((Dimension.DAY, dimension)[dimension is Dimension.DAY :], tag)
            )


async def test_the_dearest_come_first(twins: Twins) -> None:
    for cost, model in ((5, "a/a"), (7, "b/b"), (1, "c/c"), (7, "d/d")):
        await twins.record([a_record(replace(an_event(), model=model), cost_micros=cost)])
    report = await twins.reports.report(Selection("acme"), None, 1, Grouping((Dimension.MODEL,), top=3))
    assert [(g.values, g.cost_micros) for g in report.groups] == [(("b/b",), 7), (("d/d",), 7), (("a/a",), 5)]
    assert report.more_groups
    assert report.total_cost_micros == 20


async def test_the_history_begins_with_the_first_call(twins: Twins) -> None:
    assert await twins.reports.first_hour("acme") is None
    await twins.record([a_record(an_event(after_s=7200))])
    await twins.rollups.fold(100)
    assert await twins.reports.first_hour("acme") == NOW + timedelta(hours=2)
    await twins.record([a_record(an_event(after_s=-86_399))])
    assert await twins.reports.first_hour("acme") == NOW - timedelta(hours=24)
    assert await twins.told.first_hour("acme") == NOW - timedelta(hours=24)


async def test_an_export_has_each_record_once_oldest_first(twins: Twins) -> None:
    chance = random.Random(9)
    records = [some_record(chance) for _ in range(30)]
    for record in records:
        await twins.record([record])
    for selection in (Selection("acme"), Selection("acme", model="a/a"), Selection("acme", tag=("team", "blue"))):
        found: dict[str, list[ExportedRecord]] = {"ours": [], "told": []}
        for name, reports in (("ours", twins.reports), ("told", twins.told)):
            after: Cursor | None = None
            while True:
                part = await reports.export(selection, after, 4)
                found[name] += part.records
                if part.after is None:
                    break
                after = part.after
        assert found["ours"] == found["told"]
        assert all(exported.user == ALICE for exported in found["ours"] if exported.record.actor == KEY)


async def test_two_replicas_count_common_events_once_and_fold_side_by_side(twins: Twins) -> None:
    replica = await open_pool(twins.dsn, name="replica", max_size=8)
    stores = (twins.usage, PostgresUsage(replica))
    folders = (twins.rollups, PostgresRollups(replica))
    records = [a_record(an_event(after_s=n * 600)) for n in range(90)]
    batches = [records[start : start + 30] for start in range(0, 61, 10)] * 2
    work: list[Awaitable[Recorded | int]] = [
        stores[n % 2].record(batch if n < 7 else batch[::-1]) for n, batch in enumerate(batches)
    ]
    folding: list[Awaitable[Recorded | int]] = [folders[n % 2].fold(3) for n in range(40)]
    results = await asyncio.gather(*work, *folding)
    assert sum(r.recorded for r in results if not isinstance(r, int)) == 90
    while await twins.rollups.fold(1000):
        pass
    report = await twins.reports.report(Selection("acme"), None, 100, Grouping((Dimension.DAY,)))
    assert (report.total_records, report.total_cost_micros, len(report.records)) == (90, 81_000, 90)
    await replica.close()


async def test_an_id_is_one_in_all_months(twins: Twins) -> None:
    """The same id with a time in another month is another event; racing for it, one of them wins."""
    record = a_record(an_event())
    later = replace(record, event=replace(record.event, occur_time=NOW + timedelta(days=40)))
    await twins.record([record])
    with pytest.raises(AlreadyExists, match="EVENT_ID_REUSED"):
        await twins.usage.record([a_record(an_event()), later])
    event_ids = [uuid.uuid4() for _ in range(10)]
    racing = [
        twins.usage.record([a_record(an_event(event_id, after_s=month * 40 * 86_400))])
        for event_id in event_ids
        for month in (0, 1)
    ]
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 10
    report = await twins.reports.report(Selection("acme"), None, 100)
    assert (report.total_records, len(report.records)) == (11, 11)


async def test_a_fold_that_is_killed_changes_no_sum(twins: Twins) -> None:
    await twins.record([a_record(an_event(after_s=n * 4000)) for n in range(50)])
    question = Selection("acme"), None, 1, Grouping((Dimension.DAY,))
    before = await twins.reports.report(*question)
    with psycopg.connect(twins.dsn, autocommit=True) as watcher, psycopg.connect(twins.dsn) as blocker:
        # Somebody holds rows of the queue: the fold is in the middle of its work when its connection goes.
        blocker.execute("SELECT set_config('pagemesh.across', 'usage_rollups', true)")
        blocker.execute("SELECT FROM ledger.usage_deltas FOR UPDATE")
        fold = asyncio.create_task(twins.rollups.fold(1000))
        async with asyncio.timeout(60):
            while True:
                rows = watcher.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                ).fetchall()
                if rows:
                    break
                await asyncio.sleep(0)
            with pytest.raises(Exception, match="DATABASE_UNAVAILABLE"):
                await fold
    assert await twins.reports.report(*question) == before
    assert await twins.rollups.fold(1000) > 0
    assert await twins.reports.report(*question) == before


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(twins: Twins) -> None:
    await twins.record([a_record(an_event()), a_record(an_event(after_s=86_400))])
    await twins.record([a_record(an_event(), tenant="other")])
    await twins.rollups.fold(1)
    with psycopg.connect(twins.dsn) as connection:
        names = [n for (n,) in connection.execute("SELECT name FROM ledger.usage_partitions").fetchall()]
        for table in ("usage_records", "usage_ids", "usage_deltas", "usage_rollups", *names):
            for setting, wanted in (("other", {"other"}), ("nobody", set()), ("", set())):
                connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (setting,))
                seen = {t for (t,) in connection.execute(f"SELECT DISTINCT tenant FROM ledger.{table}".encode())}
                assert seen <= wanted, (table, setting)
        connection.execute("SELECT set_config('pagemesh.tenant', 'other', false)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO ledger.usage_ids (tenant, event_id, occur_time) VALUES ('acme', gen_random_uuid(), now())"
            )
