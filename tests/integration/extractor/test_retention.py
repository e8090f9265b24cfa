"""How long documents are kept, and what is left of them, through the real service."""

import asyncio
import datetime as dt
import hashlib
from contextlib import suppress
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import sql

from pagemesh.extractor.v1 import document_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.ledger.v1.audit_pb2 import AuditEvent
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.extractor import __main__ as composition
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client, Service, Start, connected, eventually, pieces

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOOK = made_pdfs.book(3)
EPHEMERAL, TEMPORARY, KEPT = (
    document_pb2.RETENTION_EPHEMERAL,
    document_pb2.RETENTION_TEMPORARY,
    document_pb2.RETENTION_KEPT,
)


def ahead(**time: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(dt.datetime.now(dt.UTC) + dt.timedelta(**time))
    return stamp


async def keep(
    client: Client, data: bytes = BOOK, *, retention: Any = 0, expire_time: Timestamp | None = None
) -> document_pb2.Document:
    """Uploads it to be kept like this."""
    first, *rest = pieces(data)
    first.retention = retention
    if expire_time is not None:
        first.expire_time.CopyFrom(expire_time)
    return (await client.upload_messages(iter([first, *rest]))).document


def hours_left(document: document_pb2.Document) -> float:
    left: dt.timedelta = document.expire_time.ToDatetime(dt.UTC) - dt.datetime.now(dt.UTC)
    return left / dt.timedelta(hours=1)


def digest_of(receipt: document_pb2.DeletionReceipt) -> str:
    """As docs/extraction.md tells a user to compute it."""
    lines = ["pagemesh-deletion-receipt-v1"]
    for field in ("name", "document", "sha256", "size_bytes", "objects_deleted", "pages_deleted"):
        lines.append(f"{field}={getattr(receipt, field)}")
    for field in ("index_entries_deleted", "results_deleted", "cause"):
        lines.append(f"{field}={getattr(receipt, field)}")
    lines.append(f"delete_time_us={receipt.delete_time.ToMicroseconds()}")
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


async def the_receipt(client: Client) -> document_pb2.DeletionReceipt:
    """The tenant's only one, as soon as it is there."""
    async with asyncio.timeout(30):
        while not (found := (await client.receipts()).receipts):
            await asyncio.sleep(0.05)
    (receipt,) = found
    assert receipt.digest == digest_of(receipt)
    return receipt


async def until_gone(client: Client, name: str) -> None:
    async with asyncio.timeout(30):
        with suppress(NotFound):
            while True:
                await client.get(name)
                await asyncio.sleep(0.05)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lifecycle worker looks more often than every 15 s."""
    monkeypatch.setattr(composition, "_LIFECYCLE_EVERY_S", 0.2)


@pytest.mark.parametrize(
    ("retention", "expire_time", "wanted", "hours"),
    [
        (0, None, TEMPORARY, 24),
        (TEMPORARY, None, TEMPORARY, 24),
        (EPHEMERAL, None, EPHEMERAL, 1),
        (KEPT, None, KEPT, 365 * 24),
        (KEPT, ahead(hours=50), KEPT, 50),
    ],
)
async def test_a_document_is_kept_as_its_upload_asks(
    client: Client, *, retention: int, expire_time: Timestamp | None, wanted: int, hours: float
) -> None:
    document = await keep(client, retention=retention, expire_time=expire_time)
    assert document.retention == wanted
    assert hours_left(document) == pytest.approx(hours, rel=0.01)
    assert await client.get(document.name) == document


@pytest.mark.parametrize(
    ("retention", "expire_time", "reason"),
    [
        (KEPT, ahead(hours=-1), "EXPIRE_TIME_OUT_OF_RANGE"),
        (KEPT, ahead(days=370), "EXPIRE_TIME_OUT_OF_RANGE"),
        (KEPT, Timestamp(seconds=1 << 60), "EXPIRE_TIME_OUT_OF_RANGE"),
        (0, ahead(hours=1), "EXPIRE_TIME_WITHOUT_KEPT"),
        (EPHEMERAL, ahead(hours=1), "EXPIRE_TIME_WITHOUT_KEPT"),
    ],
)
async def test_a_term_that_cannot_be_names_its_field(
    shared: Service, client: Client, *, retention: int, expire_time: Timestamp, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await keep(client, retention=retention, expire_time=expire_time)
    assert refused.value.reason in (reason, "INVALID_FIELD")
    assert refused.value.fields[0].field == "expire_time"
    assert shared.stored(client.tenant) == set()


async def test_an_update_changes_how_long_a_document_is_kept(client: Client) -> None:
    name = (await keep(client)).name
    changed = await client.update(name, retention=KEPT, expire_time=ahead(hours=99))
    assert (changed.retention, round(hours_left(changed))) == (KEPT, 99)
    changed = await client.update(name, "expire_time", expire_time=ahead(hours=50), retention=EPHEMERAL)
    assert (changed.retention, round(hours_left(changed))) == (KEPT, 50), "the mask names what counts"
    changed = await client.update(name, "retention", retention=TEMPORARY)
    assert (changed.retention, round(hours_left(changed))) == (TEMPORARY, 24)
    assert await client.get(name) == changed


@pytest.mark.parametrize(
    ("mask", "fields", "reason", "at"),
    [
        ((), {}, "NOTHING_TO_UPDATE", "update_mask"),
        (("expire_time",), {"expire_time": ahead(hours=1)}, "EXPIRE_TIME_WITHOUT_KEPT", "document.expire_time"),
        ((), {"retention": KEPT, "expire_time": ahead(days=370)}, "EXPIRE_TIME_OUT_OF_RANGE", "document.expire_time"),
        (("display_name",), {}, "INVALID_FIELD", "update_mask"),
    ],
)
async def test_a_bad_update_names_the_field(
    client: Client, *, mask: tuple[str, ...], fields: dict[str, Any], reason: str, at: str
) -> None:
    document = await keep(client)
    with pytest.raises(InvalidArgument) as refused:
        await client.update(document.name, *mask, **fields)
    assert (refused.value.reason, refused.value.fields[0].field) == (reason, at)
    assert await client.get(document.name) == document


async def test_another_tenants_document_cannot_be_updated(client: Client) -> None:
    name = (await keep(client)).name
    with pytest.raises(NotFound):
        await client.of("other").update(name, retention=KEPT)


async def test_a_receipt_can_be_computed_again_and_stays(shared: Service, client: Client) -> None:
    document = await keep(client)
    await client.extract(document.name)
    shared.summarizer.made[client.tenant, document.name] = 4
    receipt = await client.delete(document.name)
    assert receipt == await the_receipt(client)
    assert (receipt.cause, receipt.objects_deleted, receipt.results_deleted) == ("REQUESTED", 1, 4)
    assert (await client.of("other").receipts()).receipts == []


async def test_the_actor_is_kept_beside_the_receipt(service: Service) -> None:
    await service.client.delete((await keep(service.client)).name)
    async with await psycopg.AsyncConnection.connect(service.database_url) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (service.client.tenant,))
        cursor = await connection.execute("SELECT actor, digest FROM extractor.deletion_receipts")
        assert await cursor.fetchone() == ("apiKeys/test", (await the_receipt(service.client)).digest)


async def test_a_receipt_is_told_to_the_audit_trail(service: Service) -> None:
    await service.client.delete((await keep(service.client)).name)
    receipt = await the_receipt(service.client)
    async with await psycopg.AsyncConnection.connect(service.database_url) as connection:
        await connection.execute("SELECT set_config('pagemesh.across', 'audit_outbox', false)")
        cursor = await connection.execute("SELECT event FROM extractor.audit_outbox ORDER BY position")
        events = [AuditEvent.FromString(event) for (event,) in await cursor.fetchall()]
    (told,) = [event for event in events if event.action == "pagemesh.extractor.v1.DeletionReceipt"]
    assert (told.resource, told.actor, told.tenant) == (
        receipt.document,
        "apiKeys/test",
        f"tenants/{service.client.tenant}",
    )
    assert (told.details["receipt"], told.details["digest"]) == (receipt.name, receipt.digest)
    assert told.event_id.replace("-", "") == receipt.name.removeprefix("deletionReceipts/")
    assert told.details["size_bytes"] == str(receipt.size_bytes)


@pytest.mark.usefixtures("often")
async def test_a_document_expires(start: Start) -> None:
    service = await start()
    name = (await keep(service.client, retention=KEPT, expire_time=ahead(seconds=1))).name
    await until_gone(service.client, name)
    receipt = await the_receipt(service.client)
    assert (receipt.document, receipt.cause, receipt.objects_deleted) == (name, "EXPIRED", 1)
    assert service.stored() == set()


async def test_an_ephemeral_document_is_erased_when_its_extraction_has_ended(service: Service) -> None:
    name = (await keep(service.client, retention=EPHEMERAL)).name
    assert (await service.client.extract(name)).numbers == [1, 2, 3]
    with pytest.raises(NotFound):
        await service.client.get(name)
    receipt = await the_receipt(service.client)
    assert (receipt.document, receipt.cause) == (name, "PROCESSED")
    assert service.stored() == set()


async def test_an_ephemeral_document_that_cannot_be_read_is_erased_too(service: Service) -> None:
    name = (await keep(service.client, b"%PDF-1.7\n" + b"nonsense " * 200, retention=EPHEMERAL)).name
    with pytest.raises(FailedPrecondition):
        await service.client.extract(name)
    assert (await the_receipt(service.client)).cause == "PROCESSED"


async def test_a_service_holds_an_ephemeral_document_until_it_is_through(
    service: Service, mesh_pki: CertificateAuthority
) -> None:
    client, hold_id = service.client, str(uuid4())
    name = (await keep(client, retention=EPHEMERAL)).name
    async with connected(mesh_pki, service.target, identity="summarizer") as summarizer:
        stub = summarizer.stub
        hold = pb.HoldDocumentRequest(name=name, hold_id=hold_id, ttl=Duration(seconds=600))
        await stub.HoldDocument(hold, metadata=client.metadata, timeout=20)
        assert (await summarizer.extract(name)).numbers == [1, 2, 3]
        assert (await client.get(name)).name == name
        done = pb.ReleaseDocumentRequest(name=name, hold_id=hold_id, processed=True)
        await stub.ReleaseDocument(done, metadata=client.metadata, timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await stub.HoldDocument(hold, metadata=client.metadata, timeout=20)
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert (await the_receipt(client)).cause == "PROCESSED"


async def test_no_key_may_hold_a_document(client: Client) -> None:
    name = (await keep(client)).name
    hold = pb.HoldDocumentRequest(name=name, hold_id=str(uuid4()), ttl=Duration(seconds=600))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stub.HoldDocument(hold, metadata=client.metadata, timeout=20)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.usefixtures("often")
async def test_a_deletion_that_the_summarizer_misses_is_hidden_and_completed_when_it_is_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "_ERASURE_CLAIM", dt.timedelta(seconds=1))
    service = await start()
    client = service.client
    name = (await keep(client)).name
    service.summarizer.made[client.tenant, name] = 2
    service.summarizer.down = True
    with pytest.raises(Unavailable) as told:
        await client.delete(name)
    assert told.value.reason == "DELETION_UNFINISHED"
    assert told.value.retry_after_s
    with pytest.raises(NotFound):
        await client.get(name)
    assert (await client.list()).documents == []
    asked = service.summarizer.asked
    await eventually(lambda: service.summarizer.asked > asked, "the worker tries again")
    assert (await client.receipts()).receipts == []
    with pytest.raises(Unavailable) as told:
        await keep(client)
    assert told.value.reason == "DELETION_UNFINISHED", "the same bytes wait for their deletion"
    service.summarizer.down = False
    receipt = await the_receipt(client)
    assert (receipt.document, receipt.cause, receipt.results_deleted) == (name, "REQUESTED", 2)
    assert service.stored() == set()
    assert (await client.upload(BOOK)).created


async def test_a_store_that_is_down_leaves_a_deletion_to_be_called_again(service: Service) -> None:
    client = service.client
    name = (await keep(client)).name
    folder = service.objects / client.tenant
    folder.rename(service.objects / "away")
    folder.write_text("in the way")
    with pytest.raises(Unavailable) as told:
        await client.delete(name)
    assert told.value.reason == "DELETION_UNFINISHED"
    folder.unlink()
    (service.objects / "away").rename(folder)
    assert (await client.delete(name)).objects_deleted == 1


async def test_pages_and_index_entries_are_counted_and_gone(service: Service) -> None:
    client = service.client
    name = (await keep(client)).name
    await client.extract(name, "text")
    async with asyncio.timeout(30):
        while (await client.get(name)).searchable_pages < 3:
            await asyncio.sleep(0.05)
    receipt = await client.delete(name)
    assert receipt.pages_deleted >= 3
    assert receipt.index_entries_deleted == 3
    async with await psycopg.AsyncConnection.connect(service.database_url) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (client.tenant,))
        for table in ("page_segments", "page_index", "drawn_pages", "document_leases", "documents"):
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("extractor", table))
            assert await (await connection.execute(query)).fetchone() == (0,), table
