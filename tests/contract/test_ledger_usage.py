"""What every UsageStore and PriceBooks promises, held against the ones in memory and the ones in Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from services.ledger.adapters import postgres_usage_reports as reports
from services.ledger.adapters import postgres_usage_rows as usage_rows
from services.ledger.adapters.postgres_rollups import FOLD
from services.ledger.adapters.usage_statements import Question
from services.ledger.domain import paging
from services.ledger.domain.pricing import Price
from services.ledger.domain.usage_values import Dimension, Grouping
from services.ledger.domain.values import Cursor, Selection, UsageRecord
from services.runtime.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from tests.unit.ledger.samples import MODEL, NOW, STORES, Stores, a_hold, a_record, an_event, open_stores

DOCUMENT = "documents/" + "0" * 32
HOSTILE = ("'; DROP TABLE ledger.usage_records; --", '"; SELECT 1', "\\'; x", "%s %(tenant)s {chosen}", "\U0001f4b8 ü")


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Stores]:
    async with open_stores(request.param, database) as opened:
        yield opened


async def listed(stores: Stores, selection: Selection, size: int = 100) -> list[UsageRecord]:
    """The whole selection, read in parts."""
    found: list[UsageRecord] = []
    after: Cursor | None = None
    while part := (await stores.reports.report(selection, after, size)).records:
        found += part
        after = paging.cursor_of(part[-1])
    return found


async def test_events_are_kept_as_they_were_told(stores: Stores) -> None:
    event = an_event(document=DOCUMENT, request_id="request-1", tags={"team": "blue", "empty": ""})
    result = await stores.usage.record([a_record(event), a_record(an_event(after_s=1))])
    assert (result.recorded, result.already_known) == (2, 0)
    assert (await listed(stores, Selection("acme")))[1] == a_record(event)


async def test_each_id_is_recorded_once(stores: Stores) -> None:
    first = [a_record(an_event()) for _ in range(3)]
    await stores.usage.record(first)
    again = [*first, a_record(an_event())]
    result = await stores.usage.record(again)
    assert (result.recorded, result.already_known) == (1, 3)
    report = await stores.reports.report(Selection("acme"), None, 10)
    assert (report.total_records, report.total_cost_micros) == (4, 3600)


async def test_a_replay_that_cost_something_is_nothing_to_warn_of(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    batch = [a_record(an_event()) for _ in range(3)]
    for already_known in (0, 3, 3):
        assert (await stores.usage.record(batch)).already_known == already_known
    assert not caplog.records


async def test_a_replay_keeps_the_first_record(stores: Stores) -> None:
    record = a_record(an_event())
    await stores.usage.record([record])
    await stores.usage.record([replace(record, cost_micros=1, record_time=NOW + timedelta(days=1))])
    assert await listed(stores, Selection("acme")) == [record]


async def test_an_id_with_another_event_is_refused_and_nothing_is_kept(stores: Stores) -> None:
    known = a_record(an_event())
    await stores.usage.record([known])
    changed = replace(known, event=replace(known.event, tags={"a": "b"}))
    with pytest.raises(AlreadyExists, match="EVENT_ID_REUSED"):
        await stores.usage.record([a_record(an_event()), changed, a_record(an_event())])
    assert await listed(stores, Selection("acme")) == [known]


async def test_an_unknown_tenant_records_nothing(stores: Stores) -> None:
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await stores.usage.record([a_record(an_event(), tenant="nobody")])


async def test_event_ids_belong_to_their_tenant(stores: Stores) -> None:
    event = an_event()
    await stores.usage.record([a_record(event)])
    await stores.usage.record([a_record(event, tenant="other", cost_micros=5)])
    assert [r.cost_micros for r in await listed(stores, Selection("other"))] == [5]
    assert [r.cost_micros for r in await listed(stores, Selection("acme"))] == [900]


async def test_what_is_recorded_counts_against_the_budget(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 1000)
    await stores.usage.record([a_record(an_event(), cost_micros=600), a_record(an_event(), cost_micros=0)])
    await stores.usage.record([a_record(an_event(), cost_micros=0)])
    with pytest.raises(ResourceExhausted):
        await stores.holds.reserve(a_hold(401))
    await stores.usage.record([a_record(an_event(), cost_micros=700)])
    report = await stores.reports.report(Selection("acme"), None, 1)
    assert report.total_cost_micros == 1300


async def test_concurrent_batches_with_common_events_record_each_once(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 10**9)
    records = [a_record(an_event()) for _ in range(60)]
    batches = [records[start : start + 30] for start in range(0, 31, 3)]
    batches += [list(reversed(batch)) for batch in batches]
    results = await asyncio.gather(*(stores.usage.record(batch) for batch in batches))
    assert sum(r.recorded for r in results) == 60
    report = await stores.reports.report(Selection("acme"), None, 1)
    assert (report.total_records, report.total_cost_micros) == (60, 54_000)


async def test_batches_that_meet_in_the_middle_do_not_deadlock(database: Callable[[str], str]) -> None:
    """A third transaction stops both at a common event; without one order each would then wait for the other."""
    dsn = database("ledger")
    records = sorted((a_record(an_event()) for _ in range(41)), key=lambda r: r.event.event_id)
    async with (
        open_stores("postgres", lambda _: dsn) as stores,
        await psycopg.AsyncConnection.connect(dsn) as blocker,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher,
    ):
        await blocker.execute(
            "SELECT set_config('pagemesh.tenant', 'acme', true)",
        )
        await blocker.execute(
            "INSERT INTO ledger.usage_ids (tenant, event_id, occur_time) VALUES ('acme', %s, now())",
            (records[20].event.event_id,),
        )
        batches = [asyncio.create_task(stores.usage.record(batch)) for batch in (records, records[::-1])]
        async with asyncio.timeout(20):
            blocked = 0
            while blocked < 2:
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                ((blocked,),) = await (await watcher.execute(waiting)).fetchall()
        await blocker.rollback()
        results = await asyncio.gather(*batches)
    assert sorted((r.recorded, r.already_known) for r in results) == [(0, 41), (41, 0)]


async def test_the_list_is_newest_first_and_pages_leave_nothing_out(stores: Stores) -> None:
    same_time = [a_record(an_event(after_s=5)) for _ in range(7)]
    spread = [a_record(an_event(after_s=n)) for n in range(10)]
    await stores.usage.record([*same_time, *spread])
    everything = await listed(stores, Selection("acme"))
    assert len({r.event.event_id for r in everything}) == 17
    places = [(r.event.occur_time, r.event.event_id.bytes) for r in everything]
    assert places == sorted(places, reverse=True)
    for size in (1, 2, 5, 17):
        assert await listed(stores, Selection("acme"), size) == everything


async def test_selections_and_their_sums(stores: Stores) -> None:
    other_document = "documents/" + "f" * 32
    await stores.usage.record(
        [
            a_record(an_event(after_s=0, document=DOCUMENT, request_id="r-1"), cost_micros=1),
            a_record(an_event(after_s=10, document=DOCUMENT, request_id="r-2"), cost_micros=10),
            a_record(an_event(after_s=20, document=other_document, request_id="r-2"), cost_micros=100),
            a_record(an_event(after_s=30), cost_micros=1000),
        ]
    )
    await stores.usage.record([a_record(an_event(), tenant="other", cost_micros=10**6)])
    everything = Selection("acme")
    cases = {
        everything: 1111,
        replace(everything, document=DOCUMENT): 11,
        replace(everything, request_id="r-2"): 110,
        replace(everything, request_id="r-2", document=DOCUMENT): 10,
        replace(everything, start=NOW + timedelta(seconds=10)): 1110,
        replace(everything, end=NOW + timedelta(seconds=10)): 1,
        replace(everything, start=NOW + timedelta(seconds=10), end=NOW + timedelta(seconds=30)): 110,
        replace(everything, request_id="r-3"): 0,
    }
    for selection, wanted in cases.items():
        report = await stores.reports.report(selection, None, 1)
        assert report.total_cost_micros == wanted, selection
        assert report.total_records == len(await listed(stores, selection))


@pytest.mark.parametrize("text", HOSTILE)
async def test_texts_are_data(stores: Stores, text: str) -> None:
    event = an_event(request_id=text, tags={"note": text})
    await stores.usage.record([a_record(event)])
    assert await listed(stores, Selection("acme", request_id=text)) == [a_record(event)]
    assert await listed(stores, Selection(text)) == []
    hold = a_hold(tenant="acme")
    await stores.holds.reserve(hold)
    settled = a_record(an_event(request_id=text, tags={"note": text}), hold_id=hold.hold_id)
    assert await stores.holds.settle(hold, settled) == settled
    assert settled in await listed(stores, Selection("acme"))


async def test_the_first_price_book_is_loaded(stores: Stores) -> None:
    book = await stores.prices.current("acme")
    assert book.version >= 1
    assert book.price(MODEL) == Price(20_000, 0)
    assert book.price("mistral/mistral-large-latest") == Price(2_000_000, 6_000_000)
    assert await stores.prices.version("acme", book.version) == book
    with pytest.raises(LookupError):
        await stores.prices.version("acme", 99)


@pytest.mark.parametrize("table", ["usage_records", "prices", "price_books"])
@pytest.mark.parametrize(
    "change", ["UPDATE ledger.{} SET {} = {}", "DELETE FROM ledger.{}", "TRUNCATE ledger.{} CASCADE"]
)
def test_what_is_appended_is_never_changed(database: Callable[[str], str], table: str, change: str) -> None:
    column = "tenant" if table == "usage_records" else "version"
    with psycopg.connect(database("ledger")) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(change.format(table, column, column).encode())


def test_every_list_and_sum_has_its_index(database: Callable[[str], str]) -> None:
    """With enough rows of other tenants around, no statement of the ledger reads a whole table."""
    with psycopg.connect(database("ledger"), autocommit=True) as connection:
        many_records(connection)
        connection.execute("ALTER TABLE ledger.holds NO FORCE ROW LEVEL SECURITY")
        connection.execute(
            "INSERT INTO ledger.holds SELECT 't' || n % 200, gen_random_uuid(),"
            " CASE n % 10 WHEN 0 THEN 'HELD' ELSE 'SETTLED' END, 'm/m', 1, 1,"
            " 1, 1, 'a', now() - interval '1 h', now() + n * interval '1 s' FROM generate_series(1, 20000) n"
        )
        connection.execute("ALTER TABLE ledger.holds FORCE ROW LEVEL SECURITY")
        connection.execute("VACUUM ANALYZE ledger.usage_records, ledger.holds, ledger.usage_rollups")
        connection.execute("VACUUM ANALYZE ledger.usage_ids, ledger.usage_deltas")
        connection.execute("SELECT set_config('pagemesh.tenant', 't7', false)")
        whole, after = Selection("t7"), Cursor(NOW, uuid.uuid4())
        of_request, of_document = replace(whole, request_id="r7"), replace(whole, document="documents/7")
        ranged = replace(whole, start=NOW, end=NOW + timedelta(days=40, seconds=5))
        lists = [
            (whole, None, "occur_time_event_id"),
            (whole, after, "occur_time_event_id"),
            (ranged, after, "occur_time_event_id"),
            (of_request, after, "request_id"),
            (of_document, None, "document"),
            (replace(ranged, job="jobs/7"), None, "usage_rollups_by_value"),
            (replace(ranged, tag=("team", "blue")), after, "usage_rollups_by_value"),
            (replace(ranged, model="m/m"), None, "usage_rollups_pkey"),
        ]
        for selection, cursor, index in lists:
            question = Question(selection)
            assert index in plan(connection, question.records(cursor, 51), question.values)
            assert "usage_records" in plan(connection, question.export(cursor, 51), question.values)
        for selection in (of_request, of_document):
            question = Question(selection)
            assert "Index Only Scan" in plan(connection, question.totals(), question.values)
        for dimension in Dimension:
            grouping = Grouping((dimension,), "team" if dimension is Dimension.TAG else "")
            question = Question(ranged, grouping)
            for statement in (question.totals(), question.groups()):
                assert "usage_rollups" in plan(connection, statement, question.values)
        assert "holds_open" in plan(connection, sql.SQL(reports.HELD), ("t7",))
        assert "usage_rollups_pkey" in plan(connection, sql.SQL(reports.FIRST_HOUR), {"tenant": "t7"})
        found = {"tenant": "t7", "ids": [uuid.uuid4()]}
        assert "usage_ids_pkey" in plan(connection, sql.SQL(usage_rows.RECORDS_OF_EVENTS.decode()), found)
        of_holds = {"tenant": "t7", "holds": [uuid.uuid4()]}
        assert "usage_ids_by_hold" in plan(connection, sql.SQL(usage_rows.RECORDS_OF_HOLDS.decode()), of_holds)


def many_records(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """A hundred for each of 200 tenants, in two months, with half of their sums in the rollups."""
    columns = (
        "tenant, event_id, hold_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time,"
        " tags, cost_micros, price_book_version, actor, record_time, project, job, user_name"
    )
    for (name,) in connection.execute("SELECT name FROM ledger.usage_partitions").fetchall():
        connection.execute(sql.SQL("DROP TABLE ledger.{}").format(sql.Identifier(name)))  # an empty one has no plan
    connection.execute("DELETE FROM ledger.usage_partitions")
    for month in (NOW, NOW + timedelta(days=31)):
        connection.execute("SELECT ledger.make_usage_partition(%s)", (month,))
    for tenant in range(200):
        connection.execute("SELECT set_config('pagemesh.tenant', 't' || %s::text, false)", (tenant,))
        connection.execute(
            f"INSERT INTO ledger.usage_records ({columns}) SELECT 't' || %s::text, gen_random_uuid(), NULL, 'm/m',"
            " 1, 1, 'op', 'documents/' || n %% 50, 'r' || n %% 50, %s + n * interval '9 h',"
            " '{\"team\": \"blue\"}', 1, 1, 'a', now(), '', 'jobs/' || n %% 9, '' FROM generate_series(1, 100) n",
            (tenant, NOW),
        )
        connection.execute(
            "INSERT INTO ledger.usage_ids SELECT tenant, event_id, occur_time,"
            " CASE WHEN get_byte(uuid_send(event_id), 0) < 128 THEN event_id END FROM ledger.usage_records"
        )
    connection.execute("SELECT set_config('pagemesh.across', 'usage_rollups', false)")
    connection.execute(FOLD, (20_000,))
    connection.execute("SELECT set_config('pagemesh.across', '', false)")


def plan(connection: psycopg.Connection[Any], statement: sql.Composable, values: object) -> str:
    explained = sql.SQL("EXPLAIN ") + statement
    lines = "\n".join(row[0] for row in connection.execute(explained, values))  # type: ignore[call-overload]
    assert "Seq Scan" not in lines, lines
    return lines
