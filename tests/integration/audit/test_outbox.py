"""The outbox in Postgres, and the feeder against ledgers that are away, refuse, or answer twice."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import psycopg
import pytest
from psycopg import sql

from pagemesh.ledger.v1 import audit_pb2
from pagemesh.ledger.v1 import audit_service_pb2 as pb
from pagemesh.ledger.v1.audit_service_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.audit import outbox as rows
from services.audit.event import Event
from services.audit.feeder import AuditFeeder
from services.audit.outbox import AuditOutbox
from services.database.pool import Pool, open_pool
from services.runtime.clients import MeshClient
from services.runtime.errors import FailedPrecondition, InvalidArgument, PagemeshError
from tests.integration.summarizer.peers import serving, settings

SCHEMAS = ("extractor", "summarizer")


class Ledger(AuditServiceServicer):
    """Remembers what it is told, and refuses what a test wants refused."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.refuse: dict[str, PagemeshError] = {}
        self.lose_answers = 0

    async def RecordEvents(
        self, request: pb.RecordEventsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.RecordEventsResponse:
        for event in request.events:
            if event.actor in self.refuse:
                raise self.refuse[event.actor]
        self.told += [event.actor for event in request.events]
        if self.lose_answers:
            self.lose_answers -= 1
            raise FailedPrecondition("LOST", "The answer is lost.")
        return pb.RecordEventsResponse(recorded=len(request.events))


def an_event(actor: str, tenant: str = "acme") -> Event:
    return Event(tenant=tenant, action="x.Y/Z", actor=actor)


@pytest.fixture(params=SCHEMAS)
async def outbox(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[AuditOutbox]:
    pool = await open_pool(database(request.param), name="test", max_size=8)
    yield AuditOutbox(pool, schema=request.param)
    await pool.close()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()  # type: ignore[abstract]


@contextlib.asynccontextmanager
async def feeding(outbox: AuditOutbox, ledger: Ledger, pki: CertificateAuthority) -> AsyncIterator[AuditFeeder]:
    registration = (add_AuditServiceServicer_to_server, ledger, "pagemesh.ledger.v1.AuditService")
    async with serving("ledger", pki.tls_dir("ledger"), registration) as target:
        client = MeshClient(peer="ledger", target=target, settings=settings(pki.tls_dir("extractor")))
        try:
            yield AuditFeeder(outbox, client)
        finally:
            await client.close()


async def left(outbox: AuditOutbox) -> list[str]:
    async with outbox.feeding() as mine:
        assert mine is not None
        return [row.event.actor for row in await mine.take(1000)]


async def test_events_are_kept_in_their_order_until_they_are_fed(
    outbox: AuditOutbox, ledger: Ledger, mesh_pki: CertificateAuthority
) -> None:
    await outbox.keep([an_event(str(n), tenant=("acme", "other")[n % 2]) for n in range(600)])
    await outbox.keep([an_event("600")])
    assert len(await left(outbox)) == 601
    async with feeding(outbox, ledger, mesh_pki) as feeder:
        assert await feeder.feed_once() == 500
        assert await feeder.feed_once() == 101
        assert await feeder.feed_once() == 0
    assert ledger.told == [str(n) for n in range(601)]
    assert await left(outbox) == []


async def test_an_event_arrives_as_it_was_made(outbox: AuditOutbox) -> None:
    event = Event(
        "acme", "x.Y/Z", "apiKeys/k", "request-1", "ab" * 16, "documents/d", 5, "R", 17, {"a": "b \U0001f4b8"}
    )
    await outbox.keep([event])
    async with outbox.feeding() as mine:
        assert mine is not None
        (row,) = await mine.take(10)
    assert row.event == event.to_message()


async def test_an_answer_that_is_lost_means_once_more(
    outbox: AuditOutbox, ledger: Ledger, mesh_pki: CertificateAuthority
) -> None:
    await outbox.keep([an_event("a"), an_event("b")])
    ledger.lose_answers = 1
    async with feeding(outbox, ledger, mesh_pki) as feeder:
        with pytest.raises(FailedPrecondition):
            await feeder.feed_once()
        assert await left(outbox) == ["a", "b"]
        await feeder.feed_once()
    assert ledger.told == ["a", "b", "a", "b"]
    assert await left(outbox) == []


async def test_one_that_is_refused_for_good_is_parked_and_holds_nothing_up(
    outbox: AuditOutbox, ledger: Ledger, mesh_pki: CertificateAuthority
) -> None:
    await outbox.keep([an_event(str(n)) for n in range(9)])
    ledger.refuse["4"] = InvalidArgument("INVALID_FIELD", "events: no")
    async with feeding(outbox, ledger, mesh_pki) as feeder:
        await feeder.feed_once()
    assert ledger.told == ["0", "1", "2", "3", "5", "6", "7", "8"]
    assert await left(outbox) == []
    async with outbox.feeding() as mine:
        assert mine is not None
        backlog = await mine.backlog()
    assert (backlog.waiting, backlog.parked) == (0, 1)


async def test_a_ledger_that_is_away_is_waited_for(
    outbox: AuditOutbox, ledger: Ledger, mesh_pki: CertificateAuthority
) -> None:
    await outbox.keep([an_event("a")])
    client = MeshClient(peer="ledger", target="127.0.0.1:1", settings=settings(mesh_pki.tls_dir("extractor")))
    with pytest.raises(PagemeshError):
        await AuditFeeder(outbox, client).feed_once()
    await client.close()
    assert await left(outbox) == ["a"]


async def test_one_replica_feeds_at_a_time(outbox: AuditOutbox) -> None:
    async with outbox.feeding() as first:
        assert first is not None
        async with outbox.feeding() as second:
            assert second is None
    async with outbox.feeding() as third:
        assert third is not None


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_row_security(database: Callable[[str], str], schema: str) -> None:
    """Who forgets to say that it is the trail sees nothing, and a tenant's own work writes only as that tenant."""
    dsn = database(schema)
    pool: Pool = await open_pool(dsn, name="test")
    await AuditOutbox(pool, schema=schema).keep([an_event("a"), an_event("b", "other")])
    table = sql.Identifier(schema, "audit_outbox")
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        seen = await connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table))
        assert await seen.fetchone() == (0,)
        assert (await connection.execute(sql.SQL("DELETE FROM {}").format(table))).rowcount == 0
        await rows.add(connection, schema, an_event("mine"))
        await connection.commit()
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await rows.add(connection, schema, an_event("not mine", "other"))
    assert await left(AuditOutbox(pool, schema=schema)) == ["a", "b", "mine"]
    await pool.close()


async def test_writers_at_once_lose_nothing(outbox: AuditOutbox) -> None:
    async def write(writer: int) -> None:
        for n in range(10):
            await outbox.keep([an_event(f"{writer}/{n}")])

    await asyncio.gather(*(write(writer) for writer in range(8)))
    found = await left(outbox)
    assert len(found) == 80
    for writer in range(8):
        assert [a for a in found if a.startswith(f"{writer}/")] == [f"{writer}/{n}" for n in range(10)]


def test_what_has_an_id_itself_is_the_same_event_for_ever() -> None:
    assert rows.event_id_of("0" * 31 + "1") == uuid.UUID(int=1)
    assert audit_pb2.AuditEvent.FromString(an_event("a").to_message().SerializeToString()).actor == "a"
