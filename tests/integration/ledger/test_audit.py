"""The audit trail of a real ledger: its own requests, events of other services, the proof, and what breaks it."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from psycopg import sql

from pagemesh.ledger.v1 import audit_pb2, identity_service_pb2, ledger_service_pb2
from pagemesh.ledger.v1 import audit_service_pb2 as pb
from pagemesh_cli.audit_chain import BadRow, Place, Proof, verify
from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.conftest import Databases
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess, Peer, eventually, refused
from tests.integration.ledger.test_crashes import Journal, OwnPostgres, own_postgres, until_acknowledged  # noqa: F401

Code = grpc.StatusCode
AUDIT = "pagemesh.ledger.v1.AuditService/"
IDENTITY = "pagemesh.ledger.v1.IdentityService/"
CLIENT = "ab" * 16


def an_event(owner: str, **changes: Any) -> audit_pb2.AuditEvent:
    values: dict[str, Any] = {
        "event_id": str(uuid.uuid4()),
        "tenant": f"tenants/{owner}",
        "actor": "apiKeys/" + "0" * 16,
        "action": "pagemesh.extractor.v1.ExtractorService/UploadDocument",
        "resource": "documents/" + "0" * 32,
    }
    event = audit_pb2.AuditEvent(**{**values, **changes})
    if not event.HasField("occur_time"):
        event.occur_time.FromDatetime(datetime.now(UTC))
    return event


async def export(peer: Peer, first_sequence: int = 0) -> list[bytes]:
    """The lines of an export."""
    request = pb.ExportEventsRequest(first_sequence=first_sequence)
    body = b""
    call: Any = peer.audit.ExportEvents(request, timeout=30, metadata=peer.metadata)
    async for piece in call:
        body += piece.content.data
        assert len(piece.content.data) <= 256 * 1024
    return body.splitlines(keepends=True)


async def listed(peer: Peer, **conditions: Any) -> list[audit_pb2.AuditRecord]:
    """Newest first; without those of the audit's own reads, of which a test makes many."""
    answer = await peer.call(peer.audit.ListEvents, pb.ListEventsRequest(page_size=1000, **conditions))
    return [record for record in answer.records if not record.event.action.startswith(AUDIT)]


async def told(peer: Peer, count: int, **conditions: Any) -> list[audit_pb2.AuditRecord]:
    """The same, once there are so many: reads are written a moment after they are answered."""

    async def there() -> bool:
        return len(await listed(peer, **conditions)) >= count

    await eventually(there)
    return await listed(peer, **conditions)


@pytest.fixture
async def edge(service: LedgerProcess, connect: Connect, admit: Admit) -> Peer:
    tenant = await admit()
    return connect(service, "edge", tenant.name, actor=tenant.api_key, client=CLIENT)


async def test_each_public_request_is_one_event(edge: Peer) -> None:
    await edge.call(edge.identity.WhoAmI, identity_service_pb2.WhoAmIRequest())
    request = identity_service_pb2.CreateApiKeyRequest(display_name="x", scopes=["usage.read"])
    made = await edge.call(edge.identity.CreateApiKey, request)
    create, who = await told(edge, 2)
    assert who.event.action == IDENTITY + "WhoAmI"
    assert create.event.action == IDENTITY + "CreateApiKey"
    assert create.event.resource == made.api_key.name
    for record in (who, create):
        assert record.event.tenant == f"tenants/{edge.tenant}"
        assert record.event.actor == edge.actor
        assert record.event.client == CLIENT
        assert (record.event.code, record.event.reason) == (0, "")
        assert len(record.event.request_id) >= 8
        assert 0 < record.event.duration_micros < 60_000_000


async def test_a_change_is_answered_when_its_event_is_chained(edge: Peer) -> None:
    for _ in range(5):
        request = identity_service_pb2.CreateApiKeyRequest(display_name="x", scopes=["usage.read"])
        made = await edge.call(edge.identity.CreateApiKey, request)
        assert [r.event.resource for r in await listed(edge, resource=made.api_key.name)] == [made.api_key.name]


async def test_refusals_are_events_too(service: LedgerProcess, connect: Connect, edge: Peer) -> None:
    weak = connect(service, "edge", edge.tenant, scopes="documents.read")
    async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
        await weak.call(weak.identity.CreateApiKey, identity_service_pb2.CreateApiKeyRequest())
    async with refused(Code.NOT_FOUND, "KEY_NOT_FOUND"):
        request = identity_service_pb2.RevokeApiKeyRequest(name="apiKeys/" + "z" * 16)
        await edge.call(edge.identity.RevokeApiKey, request)
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD"):
        request = identity_service_pb2.RevokeApiKeyRequest(name="apiKeys/SECRET-THAT-SOMEBODY-TYPED")
        await edge.call(edge.identity.RevokeApiKey, request)
    failed = await told(edge, 3, outcome=pb.ListEventsRequest.OUTCOME_FAILED)
    assert [(r.event.code, r.event.reason, r.event.resource) for r in failed] == [
        (Code.INVALID_ARGUMENT.value[0], "INVALID_FIELD", ""),
        (Code.NOT_FOUND.value[0], "KEY_NOT_FOUND", "apiKeys/" + "z" * 16),
        (Code.PERMISSION_DENIED.value[0], "SCOPE_MISSING", ""),
    ]
    (only,) = await listed(edge, code=Code.NOT_FOUND.value[0])
    assert only == failed[1]


async def test_calls_of_other_services_are_no_events_of_their_own(
    service: LedgerProcess, connect: Connect, edge: Peer
) -> None:
    summarizer = connect(service, "summarizer", edge.tenant)
    request = ledger_service_pb2.ReleaseRequest(hold_id=str(uuid.uuid4()))
    async with refused(Code.NOT_FOUND, "HOLD_NOT_FOUND"):
        await summarizer.call(summarizer.ledger.Release, request)
    await edge.call(edge.identity.WhoAmI, identity_service_pb2.WhoAmIRequest())
    assert [record.event.action for record in await told(edge, 1)] == [IDENTITY + "WhoAmI"]


async def test_reading_the_trail_is_in_the_trail(edge: Peer) -> None:
    await listed(edge)

    async def there() -> bool:
        answer = await edge.call(edge.audit.ListEvents, pb.ListEventsRequest(action=AUDIT + "ListEvents"))
        return len(answer.records) > 0

    await eventually(there)


async def test_what_services_tell_is_chained_once(service: LedgerProcess, connect: Connect, edge: Peer) -> None:
    extractor = connect(service, "extractor", "")
    events = [an_event(edge.tenant, details={"digest": "d" * 64}) for _ in range(500)]
    for wanted in ((500, 0), (0, 500)):
        answer = await extractor.call(extractor.audit.RecordEvents, pb.RecordEventsRequest(events=events))
        assert (answer.recorded, answer.already_known) == wanted
    records = await listed(edge, action=events[0].action)
    assert [record.event for record in reversed(records)] == events
    assert [record.sequence for record in records] == list(range(500, 0, -1))


async def test_nobody_else_may_tell(service: LedgerProcess, connect: Connect, edge: Peer) -> None:
    request = pb.RecordEventsRequest(events=[an_event(edge.tenant)])
    for identity in ("edge", "operator"):
        peer = connect(service, identity, edge.tenant)
        async with refused(Code.PERMISSION_DENIED, "METHOD_NOT_ALLOWED"):
            await peer.call(peer.audit.RecordEvents, request)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event_id": "x"}, "events[0].event_id"),
        ({"tenant": "tenants/"}, "events[0].tenant"),
        ({"client": "203.0.113.77"}, "events[0].client"),
        ({"action": ""}, "events[0].action"),
        ({"code": 17}, "events[0].code"),
        ({"actor": "a\0b"}, "events[0].actor"),
        ({"resource": "r" * 201}, "events[0].resource"),
    ],
    ids=["event_id", "tenant", "client", "action", "code", "nul", "resource"],
)
async def test_what_is_no_event_is_refused(
    service: LedgerProcess, connect: Connect, changes: dict[str, Any], field: str
) -> None:
    summarizer = connect(service, "summarizer", "")
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as answer:
        await summarizer.call(summarizer.audit.RecordEvents, pb.RecordEventsRequest(events=[an_event("t", **changes)]))
    assert [name.replace("events.", "events[0].") for name in answer.fields] == [field]


async def test_an_event_of_a_time_to_come_waits(service: LedgerProcess, connect: Connect) -> None:
    event = an_event("t")
    event.occur_time.FromDatetime(datetime.now(UTC) + timedelta(days=2))
    extractor = connect(service, "extractor", "")
    async with refused(Code.FAILED_PRECONDITION, "EVENT_TIME_AHEAD"):
        await extractor.call(extractor.audit.RecordEvents, pb.RecordEventsRequest(events=[event]))


async def test_another_tenant_sees_nothing(service: LedgerProcess, connect: Connect, admit: Admit, edge: Peer) -> None:
    extractor = connect(service, "extractor", "")
    event = an_event(edge.tenant)
    await extractor.call(extractor.audit.RecordEvents, pb.RecordEventsRequest(events=[event]))
    other = connect(service, "edge", (await admit()).name)
    assert await listed(other) == []
    assert await listed(other, resource=event.resource) == []
    assert event.event_id.encode() not in b"".join(await export(other))
    mine = await edge.call(edge.audit.ListEvents, pb.ListEventsRequest(page_size=1))
    request = pb.ListEventsRequest(page_size=1, page_token=mine.next_page_token or "AAAA")
    async with refused(Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"):
        await other.call(other.audit.ListEvents, request)


# --- The proof. ---


@pytest.fixture
def superuser(postgres_server: Databases, ledger_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Who is above row security and switches triggers off."""
    name = psycopg.conninfo.conninfo_to_dict(ledger_dsn)["dbname"]
    dsn = psycopg.conninfo.make_conninfo(postgres_server.superuser_dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection


@pytest.fixture
async def told_chain(service: LedgerProcess, connect: Connect, edge: Peer) -> Peer:
    """A tenant with ten records."""
    extractor = connect(service, "extractor", "")
    events = [an_event(edge.tenant, actor=f"apiKeys/{n}") for n in range(1, 11)]
    await extractor.call(extractor.audit.RecordEvents, pb.RecordEventsRequest(events=events))
    return edge


async def proven(peer: Peer, *pinned: Place) -> Proof:
    return verify(await export(peer), pinned)


async def test_an_untouched_chain_is_proven(told_chain: Peer) -> None:
    head = (await told_chain.call(told_chain.audit.GetChainHead, pb.GetChainHeadRequest())).head
    proof = await proven(told_chain, Place(head.sequence, head.hash))
    assert (proof.tenant, proof.begin.sequence, proof.unproven) == (f"tenants/{told_chain.tenant}", 0, [])
    assert proof.records == proof.end.sequence >= 10
    part = verify(await export(told_chain, 5))
    assert (part.begin.sequence, part.partial, part.end.sequence >= 10) == (4, True, True)


TAMPERED = {
    "changed": ("UPDATE {events} SET actor = 'apiKeys/framed' WHERE {mine} AND sequence = 4", 4, "was changed"),
    "time changed": (
        "UPDATE {events} SET occur_time = occur_time + interval '1 us' WHERE {mine} AND sequence = 4",
        4,
        "",
    ),
    "details added": ('UPDATE {events} SET details = \'{{"a": ""}}\' WHERE {mine} AND sequence = 1', 1, "was changed"),
    "removed": ("DELETE FROM {events} WHERE {mine} AND sequence = 4", 5, "record 4 is missing"),
    "beginning removed": ("DELETE FROM {events} WHERE {mine} AND sequence <= 3", 4, "records 1 to 3 are missing"),
    "end removed": ("DELETE FROM {events} WHERE {mine} AND sequence >= 9", 9, "missing in front of the head"),
    "swapped": (
        "UPDATE {events} SET sequence = 9 - sequence, record_time = record_time + sequence * interval '1 us'"
        " WHERE {mine} AND sequence IN (4, 5)",
        4,
        "not chained to the record before it",
    ),
    "hash changed": ("UPDATE {events} SET hash = sha256('x') WHERE {mine} AND sequence = 4", 4, "was changed"),
    "inserted": (
        "INSERT INTO {events} SELECT tenant, 4, record_time + interval '1 us', gen_random_uuid(), occur_time,"
        " request_id, actor, client, action, resource, code, reason, duration_micros, details, previous_hash,"
        " sha256('x')"
        " FROM {events} WHERE {mine} AND sequence = 4",
        4,
        "repeated",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
async def test_what_was_done_to_the_table_is_found(
    superuser: psycopg.Connection[Any], service: LedgerProcess, connect: Connect, admit: Admit, name: str
) -> None:
    statement, place, why = TAMPERED[name]
    tenant = await admit()
    extractor = connect(service, "extractor", "")
    events = [an_event(tenant.name, actor=f"apiKeys/{n}") for n in range(1, 11)]
    await extractor.call(extractor.audit.RecordEvents, pb.RecordEventsRequest(events=events))
    mine = sql.SQL("tenant = {}").format(tenant.name)
    tampering = sql.SQL(statement).format(events=sql.SQL("ledger.audit_events"), mine=mine)
    assert superuser.execute(tampering).rowcount > 0
    with pytest.raises(BadRow) as found:
        await proven(connect(service, "edge", tenant.name))
    assert found.value.sequence == place, found.value
    assert why in found.value.why


async def test_a_chain_that_was_written_anew_is_found_by_a_place_kept_elsewhere(
    superuser: psycopg.Connection[Any], service: LedgerProcess, connect: Connect, told_chain: Peer
) -> None:
    head = (await told_chain.call(told_chain.audit.GetChainHead, pb.GetChainHeadRequest())).head
    for table in ("audit_events", "audit_heads"):
        superuser.execute(
            sql.SQL("DELETE FROM ledger.{} WHERE tenant = %s").format(sql.Identifier(table)), [told_chain.tenant]
        )
    extractor = connect(service, "extractor", "")
    events = [an_event(told_chain.tenant) for _ in range(head.sequence + 3)]
    await extractor.call(extractor.audit.RecordEvents, pb.RecordEventsRequest(events=events))
    assert (await proven(told_chain)).records >= 10
    with pytest.raises(BadRow, match="not the one that was written down elsewhere") as found:
        await proven(told_chain, Place(head.sequence, head.hash))
    assert found.value.sequence == head.sequence


# --- Replicas and crashes. ---


@pytest.fixture
def second(ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path) -> Iterator[LedgerProcess]:
    """Another ledger on the same database."""
    process = LedgerProcess(ledger_dsn, mesh_pki, session_dir / "ledger-second.log")
    process.start()
    yield process
    process.stop()


async def test_two_replicas_write_one_chain(
    service: LedgerProcess, second: LedgerProcess, connect: Connect, admit: Admit
) -> None:
    tenant = (await admit()).name

    async def write(writer: int) -> None:
        peer = connect((service, second)[writer % 2], "extractor", "")
        for batch in range(6):
            events = [an_event(tenant, actor=f"{writer}/{batch}/{n}") for n in range(10)]
            await peer.call(peer.audit.RecordEvents, pb.RecordEventsRequest(events=events), timeout_s=60)

    await asyncio.gather(*(write(writer) for writer in range(8)))
    lines = await export(connect(service, "edge", tenant))
    assert verify(lines).records == 480
    actors = [json.loads(line)["actor"] for line in lines[1:-1]]
    for writer in range(8):
        wanted = [f"{writer}/{batch}/{n}" for batch in range(6) for n in range(10)]
        assert [actor for actor in actors if actor.startswith(f"{writer}/")] == wanted


async def send_until_told(peer: Peer, tenant: str, batches: int, journal: Journal) -> None:
    for _ in range(batches):
        events = [an_event(tenant) for _ in range(5)]
        await until_acknowledged(peer, peer.audit.RecordEvents, pb.RecordEventsRequest(events=events), journal)
        journal.settled.update(event.event_id for event in events)


@pytest.mark.parametrize("killed", ["ledger", "postgres"])
async def test_whatever_is_killed_each_event_is_chained_once(
    own_postgres: OwnPostgres,  # noqa: F811  # the fixture of that name
    mesh_pki: CertificateAuthority,
    session_dir: Path,
    connect: Connect,
    killed: str,
) -> None:
    tenant = "acme"
    service = LedgerProcess(own_postgres.dsn, mesh_pki, session_dir / f"ledger-audit-{killed}-killed.log")
    service.start()
    journal = Journal()
    try:
        workers = [
            asyncio.create_task(send_until_told(connect(service, "extractor", ""), tenant, 40, journal))
            for _ in range(6)
        ]
        for acknowledged in (100, 400, 800):

            async def reached(count: int = acknowledged) -> bool:
                for worker in workers:
                    if worker.done():
                        worker.result()
                return len(journal.settled) >= count

            await eventually(reached, within_s=60)
            victim: LedgerProcess | OwnPostgres = service if killed == "ledger" else own_postgres
            await asyncio.to_thread(victim.kill)  # calls go on meanwhile
            victim.start()
        await asyncio.gather(*workers)
        await assert_told_once(connect(service, "edge", tenant), journal)
    finally:
        service.stop()
    assert journal.replayed > 0


async def assert_told_once(peer: Peer, journal: Journal) -> None:
    lines = await export(peer)
    verify(lines)
    rows = [json.loads(line) for line in lines[1:-1]]
    chained = [row["event_id"] for row in rows if not row["action"].startswith("pagemesh.ledger.v1")]
    assert len(chained) == len(set(chained))
    assert set(chained) == journal.settled
