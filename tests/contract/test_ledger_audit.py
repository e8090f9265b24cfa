"""What every AuditStore promises, held against the one in memory and the one in Postgres."""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from services.database.pool import open_pool
from services.ledger.adapters import postgres_audit
from services.ledger.adapters.memory_audit import MemoryAudit
from services.ledger.adapters.postgres_audit import PostgresAudit
from services.ledger.adapters.postgres_audit_months import PostgresAuditMonths
from services.ledger.domain.audit import (
    RETENTION_ACTION,
    Appended,
    AuditCursor,
    AuditEvent,
    AuditRecord,
    AuditSelection,
)
from services.ledger.domain.audit_books import AuditBooks
from services.ledger.domain.audit_chain import extend, genesis
from services.ledger.domain.audit_ports import AuditPartitions, AuditStore
from services.ledger.domain.audit_retention import AuditRetention
from services.runtime.errors import FailedPrecondition, InvalidArgument
from tests.unit.ledger.samples import NOW, STORES, FixedClock

HOSTILE = "'; DROP TABLE ledger.audit_events; -- %s %(tenant)s {columns} \\ \U0001f4b8 \u2028"
DOCUMENT = "documents/" + "0" * 32


@dataclass
class Audit:
    """A store with its months."""

    store: AuditStore
    months: AuditPartitions


@pytest.fixture(params=STORES)
async def audit(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Audit]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            memory = MemoryAudit()
            yield Audit(memory, memory)
            return
        pool = await open_pool(database("ledger"), name="test", max_size=16)
        stack.push_async_callback(pool.close)
        yield Audit(PostgresAudit(pool), PostgresAuditMonths(pool))


def an_event(after_s: float = 0, **changes: object) -> AuditEvent:
    event = AuditEvent(
        event_id=uuid.uuid4(),
        tenant="acme",
        occur_time=NOW + timedelta(seconds=after_s),
        action="pagemesh.x.v1.X/Get",
        request_id="request-1",
        actor="apiKeys/" + "0" * 16,
        client="0" * 32,
        resource=DOCUMENT,
        duration_micros=17,
    )
    return replace(event, **changes)  # type: ignore[arg-type]


async def chain(store: AuditStore, tenant: str = "acme") -> list[AuditRecord]:
    head = await store.head(tenant)
    return list(await store.read(tenant, 0, head.sequence, 10_000))


def assert_chained(records: list[AuditRecord], tenant: str = "acme") -> None:
    head = genesis(tenant)
    for record in records:
        (again,) = extend(head, [record.event], record.record_time)
        assert again == record
        head = record.head


async def test_events_are_chained_in_their_order(audit: Audit) -> None:
    events = [an_event(n, details={"b": HOSTILE, "a": ""}, reason=HOSTILE, actor=HOSTILE) for n in range(3)]
    assert await audit.store.append("acme", events[:2], NOW) == Appended(2, 0)
    assert await audit.store.append("acme", events[2:], NOW + timedelta(seconds=1)) == Appended(1, 0)
    records = await chain(audit.store)
    assert [record.event for record in records] == events
    assert [record.sequence for record in records] == [1, 2, 3]
    assert_chained(records)
    assert await audit.store.head("acme") == records[-1].head


async def test_each_event_is_chained_once(audit: Audit) -> None:
    first = [an_event(n) for n in range(3)]
    await audit.store.append("acme", first, NOW)
    fresh = an_event()
    again = [first[2], fresh, fresh, first[0]]
    assert await audit.store.append("acme", again, NOW + timedelta(hours=5)) == Appended(1, 3)
    records = await chain(audit.store)
    assert [record.event for record in records] == [*first, fresh]
    assert_chained(records)


async def test_an_empty_chain_has_a_head_too(audit: Audit) -> None:
    assert await audit.store.head("acme") == await audit.store.beginning("acme") == genesis("acme")
    assert await audit.store.read("acme", 0, 10, 10) == []


async def test_tenants_have_chains_of_their_own(audit: Audit) -> None:
    event = an_event()
    await audit.store.append("acme", [event], NOW)
    await audit.store.append("other", [replace(event, tenant="other")], NOW)
    assert [r.event.tenant for r in await chain(audit.store)] == ["acme"]
    assert [r.event.tenant for r in await chain(audit.store, "other")] == ["other"]
    assert await audit.store.list(AuditSelection("nobody"), None, 10) == []


async def test_many_writers_make_one_chain(audit: Audit) -> None:
    async def write(writer: int) -> None:
        for batch in range(5):
            await audit.store.append("acme", [an_event(writer, actor=f"w{writer}.{batch}.{n}") for n in range(3)], NOW)

    await asyncio.gather(*(write(writer) for writer in range(12)))
    records = await chain(audit.store)
    assert [record.sequence for record in records] == list(range(1, 181))
    assert_chained(records)
    for writer in range(12):
        told = [r.event.actor for r in records if r.event.actor.startswith(f"w{writer}.")]
        assert told == [f"w{writer}.{batch}.{n}" for batch in range(5) for n in range(3)]


async def test_the_list_is_newest_first_and_has_all_conditions(audit: Audit) -> None:
    events = [an_event(n) for n in range(6)]
    events[1] = replace(events[1], actor="users/x", code=7, reason="SCOPE_MISSING")
    events[2] = replace(events[2], action="pagemesh.x.v1.X/Delete", resource="")
    events[4] = replace(events[4], code=5)
    await audit.store.append("acme", list(reversed(events)), NOW)

    async def places(size: int = 2, **conditions: object) -> list[int]:
        selection = AuditSelection("acme", **conditions)  # type: ignore[arg-type]
        found: list[AuditRecord] = []
        after: AuditCursor | None = None
        while page := await audit.store.list(selection, after, size):
            found += page
            after = AuditCursor(page[-1].event.occur_time, page[-1].sequence)
        return [events.index(record.event) for record in found]

    assert await places() == [5, 4, 3, 2, 1, 0]
    assert await places(start=events[1].occur_time, end=events[4].occur_time) == [3, 2, 1]
    assert await places(actor="users/x") == [1]
    assert await places(action="pagemesh.x.v1.X/Delete") == [2]
    assert await places(resource=DOCUMENT) == [5, 4, 3, 1, 0]
    assert await places(failed=True) == [4, 1]
    assert await places(failed=False) == [5, 3, 2, 0]
    assert await places(failed=True, code=7) == [1]
    assert await places(code=5, actor="apiKeys/" + "0" * 16) == [4]


async def test_events_at_the_same_moment_are_each_listed_once(audit: Audit) -> None:
    await audit.store.append("acme", [an_event(duration_micros=n) for n in range(5)], NOW)
    books = AuditBooks(store=audit.store, clock=FixedClock())
    token, found = "", []
    while True:
        page, token = await books.list(AuditSelection("acme"), 2, token)
        found += [record.event.duration_micros for record in page]
        if not token:
            break
    assert found == [4, 3, 2, 1, 0]


async def test_a_token_is_of_one_selection(audit: Audit) -> None:
    await audit.store.append("acme", [an_event(n) for n in range(3)], NOW)
    books = AuditBooks(store=audit.store, clock=FixedClock())
    _, token = await books.list(AuditSelection("acme"), 1, "")
    for other, given in ((AuditSelection("acme", actor="x"), token), (AuditSelection("acme"), "x" + token)):
        with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
            await books.list(other, 1, given)


async def test_events_of_a_time_to_come_have_to_wait(audit: Audit) -> None:
    books = AuditBooks(store=audit.store, clock=FixedClock())
    with pytest.raises(FailedPrecondition, match="EVENT_TIME_AHEAD"):
        await books.record([an_event(), an_event(86_401)])
    with pytest.raises(InvalidArgument):
        await books.record([an_event(actor="a\0b")])
    assert await chain(audit.store) == []
    assert await books.record([an_event(86_399), replace(an_event(), tenant="other")]) == Appended(2, 0)


async def test_the_clock_of_the_ledger_may_be_set_back(audit: Audit) -> None:
    await audit.store.append("acme", [an_event()], NOW)
    await audit.store.append("acme", [an_event()], NOW - timedelta(days=70))
    records = await chain(audit.store)
    assert [record.record_time for record in records] == [NOW, NOW]
    assert_chained(records)


async def test_a_chain_tells_what_it_loses(audit: Audit) -> None:
    clock = FixedClock()
    retention = AuditRetention(store=audit.store, partitions=audit.months, clock=clock, keep=timedelta(days=62))
    await retention.round()  # in Postgres: months of the day on which the test runs are none of these
    for month in (1, 2, 3):
        at = datetime(2026, month, 15, tzinfo=NOW.tzinfo)
        await audit.store.append("acme", [an_event(occur_time=at), an_event(occur_time=at)], at)
    await audit.store.append("other", [replace(an_event(), tenant="other")], NOW)
    before = await chain(audit.store)
    clock.now = datetime(2026, 4, 4, tzinfo=NOW.tzinfo)
    assert await retention.round() == 1
    assert await retention.round() == 0
    kept = await chain(audit.store)
    assert kept[:-1] == before[2:]
    assert await audit.store.beginning("acme") == before[1].head
    (told,) = [record.event for record in kept if record.event.action == RETENTION_ACTION]
    assert (told.details["last_sequence"], told.details["last_hash"]) == ("2", before[1].hash.hex())
    assert told.actor == "system/retention"
    assert await audit.store.beginning("other") == genesis("other")
    assert len(await chain(audit.store, "other")) == 1


async def test_a_retention_that_broke_off_tells_it_once(audit: Audit) -> None:
    clock = FixedClock(datetime(2026, 6, 1, tzinfo=NOW.tzinfo))
    await audit.store.append("acme", [an_event()], NOW)
    keep = timedelta(days=31)
    retention = AuditRetention(store=audit.store, partitions=audit.months, clock=clock, keep=keep)
    drop, audit.months.drop = audit.months.drop, _broken  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await retention.round()
    beginning = await audit.store.beginning("acme")
    assert beginning == genesis("acme"), "the beginning is still there"
    audit.months.drop = drop  # type: ignore[method-assign]
    await retention.round()
    (only,) = await chain(audit.store)
    assert only.event.action == RETENTION_ACTION
    assert (await audit.store.beginning("acme")).sequence == 1


async def _broken(month: datetime) -> None:
    raise ConnectionError


# --- Only of Postgres ---

PLANS = {
    "all": AuditSelection("acme"),
    "time": AuditSelection("acme", start=NOW - timedelta(hours=1), end=NOW),
    "actor": AuditSelection("acme", actor="apiKeys/3"),
    "action": AuditSelection("acme", action="action/3"),
    "resource": AuditSelection("acme", resource="documents/3"),
    "failed": AuditSelection("acme", failed=True),
    "code": AuditSelection("acme", code=7),
}
INDEXES = {"all": "time", "time": "time", "code": "failed"}


async def test_every_list_has_its_index(database: Callable[[str], str]) -> None:
    pool = await open_pool(database("ledger"), name="test")
    store = PostgresAudit(pool)
    for tenant in ("acme", "other"):
        events = [
            an_event(
                -n,
                tenant=tenant,
                actor=f"apiKeys/{n % 97}",
                action=f"action/{n % 89}",
                resource=f"documents/{n % 101}",
                code=7 if n % 50 == 0 else 0,
            )
            for n in range(4000)
        ]
        for first in range(0, 4000, 500):
            await store.append(tenant, events[first : first + 500], NOW)
    async with pool.connection() as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        await connection.execute("ANALYZE ledger.audit_events")
        # Of so few rows some would be sorted: the question is whether an index has them in their order.
        await connection.execute("SET enable_sort = off; SET enable_seqscan = off")
        for name, selection in PLANS.items():
            after = AuditCursor(NOW - timedelta(seconds=100), 50)
            for cursor in (None, after):
                statement = sql.SQL("EXPLAIN ") + postgres_audit.list_statement(selection, cursor)
                values = postgres_audit.list_values(selection, cursor, 51)
                rows = await (await connection.execute(statement, values)).fetchall()
                plan = "\n".join(row[0] for row in rows)
                assert f"audit_events_2026_03_tenant_{_columns(INDEXES.get(name, name))}" in plan, plan
                assert "Seq Scan on audit_events_2026_03" not in plan, plan
                assert not re.search(r"(->  |^)(Incremental )?Sort ", plan), plan
    await pool.close()


def _columns(index: str) -> str:
    """How Postgres names the index of a partition."""
    return "occur_time_sequence_idx" + ("1" if index == "failed" else "") if index in ("time", "failed") else index


async def test_row_security_holds_where_a_query_forgets_its_tenant(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    pool = await open_pool(dsn, name="test")
    store = PostgresAudit(pool)
    await store.append("acme", [an_event()], NOW)
    await store.append("other", [replace(an_event(), tenant="other")], NOW)
    await PostgresAuditMonths(pool).keep_beginning("other", (await store.head("other")))
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for table in ("audit_events", "audit_heads", "audit_checkpoints", "audit_events_2026_03"):
            seen = await connection.execute(sql.SQL("SELECT count(*) FROM ledger.{}").format(sql.Identifier(table)))
            assert await seen.fetchone() == (0,), table
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        seen = await connection.execute("SELECT tenant FROM ledger.audit_events")
        assert await seen.fetchall() == [("acme",)]
        seen = await connection.execute("SELECT tenant FROM ledger.audit_heads")
        assert await seen.fetchall() == [("acme",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(
                "INSERT INTO ledger.audit_heads SELECT 'other', 1, hash, now() FROM ledger.audit_heads"
            )
    await pool.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.audit_events SET actor = 'x'",
        "DELETE FROM ledger.audit_events",
        "TRUNCATE ledger.audit_events",
        "TRUNCATE ledger.audit_events_2026_03",
        "DELETE FROM ledger.audit_checkpoints",
        "TRUNCATE ledger.audit_checkpoints",
    ],
)
async def test_records_are_never_changed(database: Callable[[str], str], statement: str) -> None:
    dsn = database("ledger")
    pool = await open_pool(dsn, name="test")
    store = PostgresAudit(pool)
    await store.append("acme", [an_event()], NOW)
    await PostgresAuditMonths(pool).keep_beginning("acme", (await store.head("acme")))
    await pool.close()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        with pytest.raises(psycopg.errors.RestrictViolation):
            await connection.execute(statement.encode())
