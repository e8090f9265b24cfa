"""The ledger and Postgres killed between every two steps of a call; a client's journal is compared afterwards.

A step is a message on the wire that makes Postgres do something, or one that tells that it was done. The call is made
again and again, with one step more before the kill, until it gets through unharmed.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pagemesh.ledger.v1 import audit_service_pb2, budget_pb2, hold_pb2, identity_service_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as pb
from pagemesh_cli.audit_chain import verify
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from tests.integration.ledger.conftest import Admit, Connect, Peer, eventually
from tests.integration.ledger.desks import TOTAL, usd
from tests.integration.ledger.forked_ledger import ForkedLedger
from tests.integration.ledger.postgres_wire import PostgresWire, Side, Trap
from tests.integration.ledger.test_access import passes
from tests.integration.ledger.test_audit import an_event, export
from tests.integration.ledger.test_crashes import TRANSIENT, OwnPostgres, running_postgres
from tests.integration.ledger.test_money import event, reserve

pytestmark = pytest.mark.timeout(900)

MOST_STEPS = 80
HOLD_MICROS, RECORD_MICROS = 1000, 500
_LIMIT = usd(10**12)
_MONTH_S = 31 * 86_400
_months = itertools.count()


@dataclass
class Journal:
    """What the client was told."""

    holds: dict[str, str] = field(default_factory=dict)
    """States by id."""
    records: dict[str, str] = field(default_factory=dict)
    """Holds by event; empty where there was none."""
    budgets: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    """Secrets by name."""
    unanswered_keys: int = 0
    """Calls for a key that broke off: each may have made one."""
    audited: set[str] = field(default_factory=set)
    """Events by id, and what was changed by its name."""


@dataclass(frozen=True)
class Books:
    """What the database holds of one tenant, at one moment."""

    holds: dict[str, str]
    records: list[tuple[str, str]]
    totals: dict[str, tuple[int, int]]
    """Settled and held micros, by budget."""
    keys: set[str]
    chain: list[tuple[str, str]]
    """Event and resource."""

    @classmethod
    def read(cls, dsn: str, tenant: str) -> "Books":
        with psycopg.connect(dsn) as database:
            database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            database.execute("SELECT set_config('pagemesh.tenant', %s, true)", [tenant])

            def rows(query: str) -> list[tuple[Any, ...]]:
                return database.execute(query.encode(), [tenant]).fetchall()

            holds = rows("SELECT hold_id::text, state FROM ledger.holds WHERE tenant = %s")
            records = "SELECT event_id::text, coalesce(hold_id::text, '') FROM ledger.usage_records WHERE tenant = %s"
            totals = "SELECT budget, settled_micros, held_micros FROM ledger.budget_periods WHERE tenant = %s"
            chain = rows(
                "SELECT event_id::text, resource, sequence, previous_hash, hash FROM ledger.audit_events"
                " WHERE tenant = %s ORDER BY sequence"
            )
            head = rows("SELECT sequence, hash FROM ledger.audit_heads WHERE tenant = %s")
            books = cls(
                holds=dict(holds),
                records=rows(records),
                totals={budget: (settled, held) for budget, settled, held in rows(totals)},
                keys={f"apiKeys/{key}" for (key,) in rows("SELECT id FROM ledger.api_keys WHERE tenant = %s")},
                chain=[(event_id, resource) for event_id, resource, *_ in chain],
            )
        links = [(sequence, previous, digest) for _, _, sequence, previous, digest in chain]
        assert [sequence for sequence, *_ in links] == list(range(1, len(links) + 1))
        assert [previous for _, previous, _ in links[1:]] == [digest for *_, digest in links[:-1]]
        assert head == [(sequence, digest) for sequence, _, digest in links[-1:]]
        return books

    def check_themselves(self) -> None:
        """What is true whatever was under way: each thing whole, once, and in every sum that it belongs to."""
        events = [event_id for event_id, _ in self.records]
        assert len(events) == len(set(events))
        closed = sorted(hold_id for hold_id, state in self.holds.items() if state == "SETTLED")
        assert sorted(hold_id for _, hold_id in self.records if hold_id) == closed
        held = HOLD_MICROS * list(self.holds.values()).count("HELD")
        for budget, totals in self.totals.items():
            assert totals == (RECORD_MICROS * len(events), held), budget
        chained = [event_id for event_id, _ in self.chain]
        assert len(chained) == len(set(chained))

    def check(self, journal: Journal, in_doubt: frozenset[str] = frozenset()) -> None:
        """Everything that was answered is there, and nothing else but what a call without an answer is about, which is
        there as a whole or not at all."""
        self.check_themselves()

        def others(found: dict[str, str]) -> dict[str, str]:
            return {key: value for key, value in found.items() if key not in in_doubt}

        assert others(self.holds) == others(journal.holds)
        assert others(dict(self.records)) == others(journal.records)
        assert set(self.totals) - in_doubt == journal.budgets - in_doubt
        assert set(journal.keys) <= self.keys
        assert len(self.keys) <= len(journal.keys) + journal.unanswered_keys
        chained = {event_id for event_id, _ in self.chain} | {resource for _, resource in self.chain}
        assert journal.audited <= chained
        batch = in_doubt - self.holds.keys()
        assert in_doubt & dict(self.records).keys() in (frozenset(), batch)
        assert in_doubt & {event_id for event_id, _ in self.chain} in (frozenset(), batch)


@dataclass
class Ask:
    """One call, which may be made again."""

    about: frozenset[str]
    """Ids of all that it makes or changes."""
    call: Callable[[], Awaitable[None]]
    """Makes it once, and writes the answer into the journal."""


@dataclass
class World:
    """A client with one tenant, a ledger, and the wire between the ledger and Postgres."""

    dsn: str
    """Past the wire."""
    ledger: ForkedLedger
    wire: PostgresWire
    edge: Peer
    summarizer: Peer
    journal: Journal = field(default_factory=Journal)

    async def reserved(self) -> str:
        """The id of a new hold."""
        ask = await reserving(self)
        await self.acknowledged(ask)
        (hold_id,) = ask.about
        return hold_id

    async def acknowledged(self, ask: Ask, trap: Trap | None = None) -> bool:
        """Makes the call until it is answered; False where the trap sprang first."""
        async with asyncio.timeout(120):
            while True:
                try:
                    await ask.call()
                except grpc.aio.AioRpcError as exc:
                    if exc.code() not in TRANSIENT:
                        raise
                    if trap is not None and trap.sprung:
                        return False
                    await asyncio.sleep(0.02)
                else:
                    return True

    async def books(self) -> Books:
        """As soon as Postgres can be asked."""
        found: list[Books] = []

        async def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                found.append(await asyncio.to_thread(Books.read, self.dsn, self.edge.tenant))
            return bool(found)

        await eventually(answers, within_s=120)
        return found[0]


Prepare = Callable[[World], Awaitable[Ask]]


async def reserving(world: World) -> Ask:
    asked = reserve(ttl_s=86_400)

    async def call() -> None:
        answer = await world.summarizer.call(world.summarizer.ledger.Reserve, asked)
        assert (answer.hold.state, answer.hold.amount.micros) == (hold_pb2.HOLD_STATE_HELD, HOLD_MICROS)
        world.journal.holds[asked.hold_id] = "HELD"

    return Ask(frozenset({asked.hold_id}), call)


async def settling(world: World) -> Ask:
    hold_id, told = await world.reserved(), event(tokens=25_000)
    request = pb.SettleRequest(hold_id=hold_id, event=told)

    async def call() -> None:
        answer = await world.summarizer.call(world.summarizer.ledger.Settle, request)
        assert answer.record.event.event_id == told.event_id
        assert (answer.hold.state, answer.record.cost.micros) == (hold_pb2.HOLD_STATE_SETTLED, RECORD_MICROS)
        world.journal.holds[hold_id] = "SETTLED"
        world.journal.records[told.event_id] = hold_id

    return Ask(frozenset({hold_id, told.event_id}), call)


async def releasing(world: World) -> Ask:
    hold_id = await world.reserved()

    async def call() -> None:
        request = pb.ReleaseRequest(hold_id=hold_id)
        answer = await world.summarizer.call(world.summarizer.ledger.Release, request)
        assert answer.hold.state == hold_pb2.HOLD_STATE_RELEASED
        world.journal.holds[hold_id] = "RELEASED"

    return Ask(frozenset({hold_id}), call)


async def recording(world: World) -> Ask:
    """A batch, as a rule of a month that nobody has recorded anything of."""
    seconds = int(time.time()) - _MONTH_S * (1 + next(_months) % 80)
    events = [event(tokens=25_000, seconds=seconds) for _ in range(3)]

    async def call() -> None:
        request = pb.RecordUsageRequest(events=events)
        answer = await world.summarizer.call(world.summarizer.ledger.RecordUsage, request)
        assert (answer.recorded, answer.already_known) in ((3, 0), (0, 3))
        world.journal.records.update({each.event_id: "" for each in events})

    return Ask(frozenset(each.event_id for each in events), call)


async def budgeting(world: World) -> Ask:
    budget_id = f"b{secrets.token_hex(4)}"
    budget = budget_pb2.Budget(subject=f"tenants/{world.edge.tenant}", period=TOTAL, hard_limit=_LIMIT)

    async def call() -> None:
        request = pb.CreateBudgetRequest(budget=budget, budget_id=budget_id)
        answer = await world.edge.call(world.edge.ledger.CreateBudget, request)
        assert answer.budget.name == f"budgets/{budget_id}"
        world.journal.budgets.add(budget_id)
        world.journal.audited.add(answer.budget.name)

    return Ask(frozenset({budget_id}), call)


async def making_a_key(world: World) -> Ask:
    """Which makes another one each time, as nobody can be told a secret again."""

    async def call() -> None:
        request = identity_service_pb2.CreateApiKeyRequest(display_name="robot", scopes=["usage.read"])
        world.journal.unanswered_keys += 1
        answer = await world.edge.call(world.edge.identity.CreateApiKey, request)
        world.journal.unanswered_keys -= 1
        world.journal.keys[answer.api_key.name] = answer.secret
        world.journal.audited.add(answer.api_key.name)

    return Ask(frozenset(), call)


async def telling_the_chain(world: World) -> Ask:
    events = [an_event(world.edge.tenant) for _ in range(3)]

    async def call() -> None:
        request = audit_service_pb2.RecordEventsRequest(events=events)
        answer = await world.summarizer.call(world.summarizer.audit.RecordEvents, request)
        assert (answer.recorded, answer.already_known) in ((3, 0), (0, 3))
        world.journal.audited.update(each.event_id for each in events)

    return Ask(frozenset(each.event_id for each in events), call)


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnPostgres]:
    """Of this module alone: who is killed in it would be missed elsewhere."""
    with tempfile.TemporaryDirectory(prefix="pm-") as directory, running_postgres(Path(directory)) as own:
        yield own


@pytest.fixture(scope="module")
def ledger_dsn(own_server: OwnPostgres) -> str:
    """What `admit` uses."""
    return own_server.dsn


@pytest.fixture(scope="module")
def forked(
    own_server: OwnPostgres, mesh_pki: CertificateAuthority, session_dir: Path
) -> Iterator[tuple[ForkedLedger, PostgresWire]]:
    wire = PostgresWire(pick_free_port(), own_server.server.port)
    dsn = make_conninfo(own_server.dsn, port=wire.port)
    ledger = ForkedLedger(dsn, mesh_pki, session_dir / "ledger-steps.log")
    ledger.open()
    yield ledger, wire
    ledger.close()


@pytest.fixture
async def world(
    forked: tuple[ForkedLedger, PostgresWire], ledger_dsn: str, connect: Connect, admit: Admit
) -> AsyncIterator[World]:
    ledger, wire = forked
    tenant = await admit(hard_budget_micros=_LIMIT.micros)
    edge = connect(ledger, "edge", tenant.name, actor=tenant.api_key)
    world = World(ledger_dsn, ledger, wire, edge, connect(ledger, "summarizer", tenant.name))
    world.journal.budgets.add("operator")
    world.journal.keys[tenant.api_key] = tenant.secret
    async with wire.running():
        ledger.start()
        try:
            await world.reserved()  # something that every sum has in it
            yield world
        finally:
            ledger.kill()


async def walk(world: World, prepare: Prepare, side: Side, victim: str) -> int:
    """A kill before each step; answers how many there are."""

    def kill(backend: int) -> None:
        if victim == "ledger":
            world.ledger.kill()
        else:
            os.kill(backend, signal.SIGKILL)  # upon which Postgres ends all others and recovers from its log

    marks = (world.edge.tenant.encode(), b"make_usage_partition")
    for step in range(1, MOST_STEPS + 1):
        ask = await prepare(world)
        with world.wire.armed(Trap(side, step, marks, kill)) as trap:
            answered = await world.acknowledged(ask, trap)
        if not trap.sprung:
            return step - 1
        if victim == "ledger":
            world.ledger.start()
        (await world.books()).check(world.journal, frozenset() if answered else ask.about)
        if not answered:
            await world.acknowledged(ask)
        (await world.books()).check(world.journal)
    raise AssertionError(f"a call of more than {MOST_STEPS} steps")


async def check_reports(world: World) -> None:
    """What the ledger itself says in the end."""
    journal = world.journal
    report = await world.edge.usage(pb.QueryUsageRequest())
    held = HOLD_MICROS * list(journal.holds.values()).count("HELD")
    assert (report.total_records, report.held.micros) == (len(journal.records), held)
    assert report.total_cost.micros == RECORD_MICROS * len(journal.records)
    for secret in journal.keys.values():
        assert await passes(world.edge, secret)
    verify(await export(world.edge))


CALLS: dict[str, Prepare] = {
    "Reserve": reserving,
    "Settle": settling,
    "Release": releasing,
    "RecordUsage": recording,
    "CreateBudget": budgeting,
    "CreateApiKey": making_a_key,
    "RecordEvents": telling_the_chain,
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_ledger_killed_at_any_step_has_done_a_call_once_or_not_at_all(world: World, name: str) -> None:
    steps = [await walk(world, CALLS[name], side, "ledger") for side in Side]
    assert min(steps) >= 2
    await check_reports(world)


@pytest.mark.parametrize("name", ["Reserve", "Settle", "RecordUsage"])
async def test_a_postgres_killed_at_any_step_has_done_a_call_once_or_not_at_all(world: World, name: str) -> None:
    steps = [await walk(world, CALLS[name], side, "postgres") for side in Side]
    assert min(steps) >= 2
    await check_reports(world)
