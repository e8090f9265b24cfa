"""Uploading, describing, listing and erasing, through the real service."""

import asyncio
import hashlib
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.runtime.errors import InvalidArgument, NotFound, PagemeshError, Unavailable
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client, Service, Start, eventually, pieces
from tests.integration.summarizer.tcp_proxy import TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOOK = made_pdfs.book(3)


async def test_an_upload_is_described_as_it_is(shared: Service, client: Client) -> None:
    uploaded = await client.upload(BOOK, "My book.pdf", chunk=1000)
    document = uploaded.document
    sha256 = hashlib.sha256(BOOK).hexdigest()
    assert uploaded.created
    assert document.name == f"documents/{sha256[:32]}"
    assert document.sha256 == sha256
    assert document.size_bytes == len(BOOK)
    assert document.media_type == "application/pdf"
    assert document.display_name == "My_book.pdf"
    assert not document.HasField("page_count")
    assert await client.get(document.name) == document
    assert shared.stored(client.tenant) == {f"{client.tenant}/{sha256}"}
    assert shared.spooled() == []


async def test_what_is_stored_is_for_the_service_alone(shared: Service) -> None:
    assert stat.S_IMODE(shared.objects.stat().st_mode) == 0o700
    assert stat.S_IMODE(shared.spool.stat().st_mode) == 0o700


async def test_the_same_bytes_answer_the_same_document(client: Client) -> None:
    first = await client.upload(BOOK, "first.pdf")
    second = await client.upload(BOOK, "second.pdf")
    assert not second.created
    assert second.document.expire_time.ToDatetime() > first.document.expire_time.ToDatetime()
    second.document.expire_time.CopyFrom(first.document.expire_time)
    assert second.document == first.document


async def test_the_same_bytes_at_once_are_one_document(shared: Service, client: Client) -> None:
    answers = await asyncio.gather(*(client.upload(BOOK) for _ in range(8)))
    assert sum(answer.created for answer in answers) == 1
    assert len({answer.document.name for answer in answers}) == 1
    assert len(shared.stored(client.tenant)) == 1


async def test_uploads_and_deletions_of_the_same_bytes_at_once_end_in_one_truth(
    shared: Service, client: Client
) -> None:
    name = (await client.upload(BOOK)).document.name

    async def delete() -> None:
        with suppress(NotFound):
            await client.delete(name)

    for _ in range(5):
        await asyncio.gather(*(client.upload(BOOK) for _ in range(3)), *(delete() for _ in range(3)))
        try:
            await client.get(name)
        except NotFound:
            assert shared.stored(client.tenant) == set()
        else:
            assert (await client.extract(name)).numbers == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (made_pdfs.png(30, 20), "image/png"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 20, "image/jpeg"),
        (b"\n" + BOOK, "application/pdf"),
    ],
)
async def test_the_bytes_decide_what_it_is(client: Client, data: bytes, media_type: str) -> None:
    assert (await client.upload(data)).document.media_type == media_type


@pytest.mark.parametrize(
    ("data", "name", "reason", "at"),
    [
        (b"", "a.pdf", "EMPTY_FILE", "content"),
        (b"just text", "a.pdf", "UNSUPPORTED_MEDIA_TYPE", "content"),
        (b"<html><body>%PDF-1.7</body></html>", "a.pdf", "UNSUPPORTED_MEDIA_TYPE", "content"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.pdf", "UNSUPPORTED_MEDIA_TYPE", "content"),
        (b"PK\x03\x04" + BOOK, "a.pdf", "UNSUPPORTED_MEDIA_TYPE", "content"),
        (BOOK, "../../etc/passwd", "SUSPICIOUS_FILE_NAME", "display_name"),
        (BOOK, "a.pdf.exe", "SUSPICIOUS_FILE_NAME", "display_name"),
        (BOOK, "x" * 256, "INVALID_FIELD", "display_name"),
    ],
)
async def test_a_bad_upload_says_which_field_and_leaves_nothing(
    shared: Service, client: Client, *, data: bytes, name: str, reason: str, at: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await client.upload(data, name)
    assert refused.value.reason == reason
    assert [violation.field for violation in refused.value.fields] == [at]
    assert shared.stored(client.tenant) == set()
    assert shared.spooled() == []
    assert (await client.upload(BOOK)).created


async def test_an_upload_past_the_limit_is_refused(start: Start) -> None:
    service = await start(max_upload_bytes=len(BOOK))
    assert (await service.client.upload(BOOK)).created
    with pytest.raises(InvalidArgument) as refused:
        await service.client.upload(BOOK + b"\n")
    assert refused.value.reason == "FILE_TOO_LARGE"
    assert len(service.stored()) == 1
    assert service.spooled() == []


async def test_a_piece_that_is_too_large_is_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await client.upload(BOOK.ljust(2_000_000), chunk=2_000_000)
    assert refused.value.fields[0].field == "content"


async def test_a_stream_without_messages_is_empty(client: Client) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await client.upload_messages(iter(()))
    assert refused.value.reason == "EMPTY_FILE"


async def test_an_upload_that_is_cut_off_leaves_nothing(shared: Service, client: Client) -> None:
    async def half() -> AsyncIterator[pb.UploadDocumentRequest]:
        for piece in list(pieces(made_pdfs.book(2).ljust(4_000_000), chunk=500_000))[:4]:
            yield piece
        await asyncio.Event().wait()

    call = client.stub.UploadDocument(half(), timeout=100, metadata=client.metadata)
    await eventually(shared.spooled, "half of it is spooled")
    call.cancel()
    await eventually(lambda: not shared.spooled(), "the spool is empty")
    assert shared.stored(client.tenant) == set()
    assert (await client.list()).documents == []
    assert (await client.upload(BOOK)).created


async def test_what_a_crash_left_in_the_spool_is_gone_after_a_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "upload-left").write_bytes(b"half")
    assert (await start()).spooled() == []


async def test_documents_are_listed_page_by_page(client: Client) -> None:
    names = [(await client.upload(made_pdfs.book(n))).document.name for n in range(1, 6)]
    first = await client.list(page_size=2)
    second = await client.list(page_size=2, page_token=first.next_page_token)
    third = await client.list(page_size=2, page_token=second.next_page_token)
    listed = [document.name for part in (first, second, third) for document in part.documents]
    assert listed == names[::-1]
    assert third.next_page_token == ""


@pytest.mark.parametrize(
    ("request_fields", "at"), [({"page_size": 1001}, "page_size"), ({"page_token": "?"}, "page_token")]
)
async def test_a_bad_list_request_names_the_field(client: Client, request_fields: dict[str, object], at: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await client.list(**request_fields)
    assert refused.value.fields[0].field == at


async def test_deleting_answers_a_receipt_once(shared: Service, client: Client) -> None:
    document = (await client.upload(BOOK)).document
    receipt = await client.delete(document.name)
    assert (receipt.document, receipt.sha256, receipt.size_bytes) == (document.name, document.sha256, len(BOOK))
    assert receipt.objects_deleted == 1
    assert receipt.delete_time.ToDatetime() >= document.create_time.ToDatetime()
    assert shared.stored(client.tenant) == set()
    for call in (client.get, client.delete, client.extract):
        with pytest.raises(NotFound):
            await call(document.name)


async def test_another_tenants_document_is_not_found(client: Client) -> None:
    document = (await client.upload(BOOK)).document
    other = client.of("other")
    answers = []
    for call in (other.get, other.delete, other.extract):
        with pytest.raises(NotFound) as refused:
            await call(document.name)
        answers.append(refused.value.message)
    with pytest.raises(NotFound) as unknown:
        await other.get("documents/" + "0" * 32)
    assert {answer.replace(document.name, "") for answer in answers} == {
        unknown.value.message.replace("documents/" + "0" * 32, "")
    }
    assert (await other.list()).documents == []
    assert (await client.extract(document.name)).numbers == [1, 2, 3]


async def test_a_store_that_is_down_costs_the_upload_and_nothing_else(service: Service) -> None:
    service.objects.rmdir()
    service.objects.write_text("in the way")
    with pytest.raises(Unavailable) as told:
        await service.client.upload(BOOK)
    assert told.value.reason == "STORE_UNAVAILABLE"
    assert str(service.objects) not in told.value.message
    assert (await service.client.list()).documents == []
    assert service.spooled() == []
    service.objects.unlink()
    service.objects.mkdir()
    assert (await service.client.upload(BOOK)).created


async def test_a_database_that_is_down_costs_calls_while_it_is(start: Start, database: Callable[[str], str]) -> None:
    dsn = urlsplit(database("extractor"))
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(TcpProxy(dsn.hostname or "", dsn.port or 0).running())
        account = dsn.netloc.rpartition("@")[0]
        behind = dsn._replace(netloc=f"{account}@127.0.0.1:{wire.port}").geturl()
        service = await start(database_url=behind)
        name = (await service.client.upload(BOOK)).document.name
        wire.cut()
        calls = (service.client.upload(made_pdfs.book(1)), service.client.get(name), service.client.list())
        for told in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(told, Unavailable)
            assert told.reason == "DATABASE_UNAVAILABLE"
        assert service.spooled() == []
        wire.mend()
        assert (await service.client.get(name)).name == name
        # The object whose row could not be written is adopted.
        assert (await service.client.upload(made_pdfs.book(1))).created


async def test_too_many_uploads_at_a_time_are_told_to_come_back(start: Start) -> None:
    service = await start(max_uploads=1)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[pb.UploadDocumentRequest]:
        yield pb.UploadDocumentRequest(content=HttpBody(data=BOOK))
        await go_on.wait()

    call = service.client.stub.UploadDocument(slow(), timeout=60, metadata=service.client.metadata)
    await eventually(service.spooled, "the first upload is spooled")
    with pytest.raises(PagemeshError) as refused:
        await service.client.upload(made_pdfs.book(1))
    assert refused.value.reason == "TOO_MANY_UPLOADS"
    assert refused.value.retry_after_s
    go_on.set()
    assert (await call).created


async def test_a_call_without_the_scope_is_refused(client: Client) -> None:
    metadata = (("x-pagemesh-tenant", "acme"), ("x-pagemesh-scopes", "documents.read"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stub.UploadDocument(iter(pieces(BOOK)), timeout=20, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_upload_that_stands_still_gives_its_place_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.extractor.__main__._UPLOAD_STALL_S", 0.3)
    service = await start(max_uploads=1)

    async def standing_still() -> AsyncIterator[pb.UploadDocumentRequest]:
        yield pb.UploadDocumentRequest(content=HttpBody(data=BOOK))
        await asyncio.Event().wait()

    with pytest.raises(PagemeshError) as ended:
        await service.client.upload_messages(standing_still())
    assert ended.value.reason == "UPLOAD_STALLED"
    assert service.spooled() == []
    assert (await service.client.upload(BOOK)).created
