"""Books: in memory, and the real ledger over mTLS with its real Postgres."""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from pagemesh.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.database.pool import open_pool
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.api import contract
from services.runtime.clients import MeshClient
from services.runtime.config import RuntimeSettings
from services.runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from services.runtime.health import Health
from services.runtime.server import MeshServer
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.ledger_client import LedgerBooks
from services.summarizer.adapters.memory import MemoryBooks
from services.summarizer.domain.ports import Books
from services.summarizer.domain.values import Caller, Money, TokenCount, UsageEvent
from tests.unit.ledger.samples import a_servicer

MODEL = "mistral/mistral-small-latest"
PRICES = {MODEL: (150_000, 600_000)}
BUDGET_MICROS = 1_000
MOST = TokenCount(1_000, 100)
MOST_COST = Money("USD", 210)
ALICE = Caller("acme", "apiKeys/alice", "", frozenset(), "request-alice")
STRANGER = Caller("globex", "apiKeys/stranger", "", frozenset(), "request-stranger")


def event(hold_id: str) -> UsageEvent:
    return UsageEvent(
        event_id=hold_id,
        model=MODEL,
        tokens=TokenCount(900, 10),
        operation="summarize.map",
        document="documents/" + "a" * 32,
        request_id=ALICE.request_id,
        occurred_at_s=1_750_000_000.123456789,
        tags={"some": "tag"},
    )


def settings(tls_dir: object, **changes: Any) -> RuntimeSettings:
    values = {
        "grpc_listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
        "tls_dir": tls_dir,
        "peers": "summarizer",
        "database_url": "postgresql://nobody@localhost/none",
        "drain_s": 0,
    }
    return RuntimeSettings(**{**values, **changes})


@pytest.fixture
async def ledger_target(database: Callable[[str], str], mesh_pki: CertificateAuthority) -> AsyncIterator[str]:
    """A ledger that knows two tenants, one of them with a hard budget."""
    pool = await open_pool(database("ledger"), name="ledger", max_size=4)
    tenants = PostgresTenants(pool)
    for caller in (ALICE, STRANGER):
        await tenants.ensure(caller.tenant, caller.tenant, _now())
    await tenants.set_hard_budget(ALICE.tenant, BUDGET_MICROS)
    server = MeshServer(name="ledger", settings=settings(mesh_pki.tls_dir("ledger")), health=Health())
    server.add(add_LedgerServiceServicer_to_server, a_servicer(pool), contract.LEDGER)
    started, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(server.run(started=started, stop=stop))
    async with asyncio.timeout(10):
        await started.wait()
    yield f"127.0.0.1:{server.grpc_port}"
    stop.set()
    await task
    await pool.close()


@pytest.fixture
async def connect(mesh_pki: CertificateAuthority) -> AsyncIterator[Callable[[str], LedgerBooks]]:
    async with AsyncExitStack() as stack:

        def to(target: str) -> LedgerBooks:
            client = MeshClient(peer="ledger", target=target, settings=settings(mesh_pki.tls_dir("summarizer")))
            stack.push_async_callback(client.close)
            return LedgerBooks(client)

        yield to


@pytest.fixture(params=["memory", "ledger"])
def books(request: pytest.FixtureRequest) -> Books:
    if request.param == "memory":
        return MemoryBooks(PRICES, budget_micros=BUDGET_MICROS)
    target = request.getfixturevalue("ledger_target")
    connected: LedgerBooks = request.getfixturevalue("connect")(target)
    return connected


@pytest.fixture(autouse=True)
def for_alice() -> Iterator[None]:
    with act_as(ALICE):
        yield


def new_id() -> str:
    return str(uuid.uuid4())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def test_the_highest_price_is_held_and_the_same_again_is_the_same(books: Books) -> None:
    hold_id = new_id()
    held = await books.reserve(hold_id, MODEL, MOST, 60)
    assert (held.hold_id, held.amount) == (hold_id, MOST_COST)
    assert await books.reserve(hold_id, MODEL, MOST, 60) == held
    with pytest.raises(AlreadyExists):
        await books.reserve(hold_id, MODEL, TokenCount(1, 1), 60)


async def test_a_settled_call_costs_what_it_used_and_is_recorded_once(books: Books) -> None:
    hold_id = new_id()
    await books.reserve(hold_id, MODEL, MOST, 60)
    cost = Money("USD", 141)
    assert await books.settle(hold_id, event(hold_id)) == cost
    assert await books.settle(hold_id, event(hold_id)) == cost
    with pytest.raises(FailedPrecondition) as caught:
        await books.settle(hold_id, replace(event(hold_id), tokens=TokenCount(1, 1)))
    assert caught.value.reason == "HOLD_ALREADY_SETTLED"
    with pytest.raises(FailedPrecondition):
        await books.release(hold_id)


async def test_a_release_makes_room_and_may_be_repeated(books: Books) -> None:
    ids = [new_id() for _ in range(4)]
    for hold_id in ids:
        await books.reserve(hold_id, MODEL, MOST, 60)
    with pytest.raises(ResourceExhausted) as refused:
        await books.reserve(new_id(), MODEL, MOST, 60)
    assert refused.value.reason == "BUDGET_EXCEEDED"
    assert refused.value.quota is not None
    assert refused.value.quota.subject == "budgets/operator"
    for _ in range(2):
        await books.release(ids[0])
    await books.reserve(new_id(), MODEL, MOST, 60)
    with pytest.raises(FailedPrecondition) as caught:
        await books.settle(ids[0], event(ids[0]))
    assert caught.value.reason == "HOLD_RELEASED"


async def test_a_hold_that_is_not_there_is_not_found(books: Books) -> None:
    hold_id = new_id()
    with pytest.raises(NotFound):
        await books.settle(hold_id, event(hold_id))
    with pytest.raises(NotFound):
        await books.release(hold_id)


async def test_the_hold_of_another_tenant_is_not_there(books: Books) -> None:
    hold_id = new_id()
    await books.reserve(hold_id, MODEL, MOST, 60)
    with act_as(STRANGER):
        with pytest.raises(NotFound):
            await books.settle(hold_id, event(hold_id))
        with pytest.raises(NotFound):
            await books.release(hold_id)


async def test_a_model_without_a_price_is_refused(books: Books) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await books.reserve(new_id(), "mistral/made-up", MOST, 60)
    assert caught.value.reason == "MODEL_UNPRICED"
    with pytest.raises(FailedPrecondition):
        await books.record((replace(event(new_id()), model="mistral/made-up"),))


async def test_free_events_are_recorded_however_often_they_are_told(books: Books) -> None:
    events = tuple(replace(event(new_id()), tokens=TokenCount(0, 0)) for _ in range(500))
    for _ in range(2):
        await books.record(events)
    # Nothing was spent by it: the whole budget is left.
    for _ in range(4):
        await books.reserve(new_id(), MODEL, MOST, 60)


async def test_a_ledger_that_is_away_is_unavailable(connect: Callable[[str], LedgerBooks]) -> None:
    books, hold_id = connect("127.0.0.1:1"), new_id()
    for call in (books.reserve(hold_id, MODEL, MOST, 60), books.settle(hold_id, event(hold_id))):
        with pytest.raises(Unavailable):
            await call
