"""The whole extractor in this process, over mTLS, with a real Postgres, a real directory and real parser processes."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import document_pb2, extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import add_SummarizerServiceServicer_to_server
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from services.extractor.__main__ import serve
from services.extractor.config import ExtractorSettings
from services.runtime import status
from services.runtime.errors import InternalError
from services.runtime.tls import TlsFolder
from tests.conftest import Databases
from tests.integration.extractor.scripted_summarizer import SUMMARIZER, ScriptedSummarizer
from tests.integration.summarizer.peers import serving

CHUNK_BYTES = 64 * 1024
MESSAGE_BYTES = 16 * 1024 * 1024


@dataclass
class Extracted:
    """All that one extraction said."""

    start: extraction_pb2.ExtractionStart | None = None
    pages: list[page_pb2.Page] = field(default_factory=list)
    failed: list[extraction_pb2.FailedPage] = field(default_factory=list)
    end: extraction_pb2.ExtractionEnd | None = None

    @property
    def numbers(self) -> list[int]:
        return [page.number for page in self.pages]

    def take(self, response: pb.ExtractPagesResponse) -> None:
        kind = response.WhichOneof("event")
        if kind == "start":
            self.start = response.start
        elif kind == "page":
            self.pages.append(response.page)
        elif kind == "failed_page":
            self.failed.append(response.failed_page)
        elif kind == "end":
            self.end = response.end


@dataclass
class Client:
    """Calls the extractor as the edge does, for one tenant; errors come back as ours."""

    stub: Any
    tenant: str = "acme"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (
            ("x-pagemesh-tenant", self.tenant),
            ("x-pagemesh-actor", "apiKeys/test"),
            ("x-pagemesh-scopes", "documents.read documents.write"),
        )

    def of(self, tenant: str) -> "Client":
        return Client(self.stub, tenant)

    async def upload(self, data: bytes, name: str = "a.pdf", *, chunk: int = CHUNK_BYTES) -> pb.UploadDocumentResponse:
        for _ in range(30):
            try:
                return await self.upload_messages(pieces(data, name, chunk))
            except InternalError as exc:
                if "execute_batch" not in exc.__cause__.debug_error_string():  # type: ignore[union-attr]
                    raise
                # The client itself, which was sending as the service ended the call, and lost what that said.
        return await self.upload_messages(pieces(data, name, chunk))

    async def upload_messages(self, messages: Any) -> pb.UploadDocumentResponse:
        response: pb.UploadDocumentResponse = await self._call(self.stub.UploadDocument, messages)
        return response

    async def get(self, name: str) -> document_pb2.Document:
        found: document_pb2.Document = (
            await self._call(self.stub.GetDocument, pb.GetDocumentRequest(name=name))
        ).document
        return found

    async def list(self, **request: Any) -> pb.ListDocumentsResponse:
        response: pb.ListDocumentsResponse = await self._call(
            self.stub.ListDocuments, pb.ListDocumentsRequest(**request)
        )
        return response

    async def update(self, name: str, *mask: str, **fields: Any) -> document_pb2.Document:
        document = document_pb2.Document(name=name, **fields)
        request = pb.UpdateDocumentRequest(document=document, update_mask=FieldMask(paths=mask))
        changed: document_pb2.Document = (await self._call(self.stub.UpdateDocument, request)).document
        return changed

    async def receipts(self, **request: Any) -> pb.ListDeletionReceiptsResponse:
        response: pb.ListDeletionReceiptsResponse = await self._call(
            self.stub.ListDeletionReceipts, pb.ListDeletionReceiptsRequest(**request)
        )
        return response

    async def delete(self, name: str) -> document_pb2.DeletionReceipt:
        request = pb.DeleteDocumentRequest(name=name)
        receipt: document_pb2.DeletionReceipt = (await self._call(self.stub.DeleteDocument, request)).receipt
        return receipt

    def open_extraction(self, name: str, *parts: str, timeout_s: float = 60, **request: Any) -> Any:
        message = pb.ExtractPagesRequest(name=name, read_mask=FieldMask(paths=parts), **request)
        return self.stub.ExtractPages(message, timeout=timeout_s, metadata=self.metadata)

    async def extract(self, name: str, *parts: str, into: Extracted | None = None, **request: Any) -> Extracted:
        extracted = into or Extracted()
        try:
            async for response in self.open_extraction(name, *parts, **request):
                extracted.take(response)
        except grpc.aio.AioRpcError as exc:
            raise status.from_rpc_error(exc, service="extractor") from exc
        return extracted

    async def upload_and_extract(self, data: bytes, *parts: str, **request: Any) -> Extracted:
        return await self.extract((await self.upload(data)).document.name, *parts, **request)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=60, metadata=self.metadata)
        except grpc.aio.AioRpcError as exc:
            raise status.from_rpc_error(exc, service="extractor") from exc


def pieces(data: bytes, name: str = "a.pdf", chunk: int = CHUNK_BYTES) -> Iterable[pb.UploadDocumentRequest]:
    for begin in range(0, max(len(data), 1), chunk):
        yield pb.UploadDocumentRequest(
            content=HttpBody(data=data[begin : begin + chunk]), display_name=name if begin == 0 else ""
        )


@dataclass
class Service:
    """A running extractor and what a test may look at beside its answers."""

    client: Client
    objects: Path
    spool: Path
    strangers: set[int]
    """Child processes of this one that are not the service's."""
    summarizer: ScriptedSummarizer
    database_url: str
    target: str

    def stored(self, tenant: str = "") -> set[str]:
        """Keys of the objects, of one tenant or of all."""
        return {str(path.relative_to(self.objects)) for path in (self.objects / tenant).rglob("*") if path.is_file()}

    def spooled(self) -> list[Path]:
        return list(self.spool.iterdir())

    def parser_parent(self) -> psutil.Process:
        (parent,) = (child for child in psutil.Process().children() if child.pid not in self.strangers)
        return parent

    def parsers(self) -> list[psutil.Process]:
        return [process for process in self.parser_parent().children() if process.status() != psutil.STATUS_ZOMBIE]


async def eventually(condition: Callable[[], object], what: str, *, timeout_s: float = 60) -> None:
    """Waits until the condition holds."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never: {what}")


Start = Callable[..., Awaitable[Service]]


@contextlib.asynccontextmanager
async def running(
    databases: Databases, pki: CertificateAuthority, directory: Path, **changes: Any
) -> AsyncIterator[Service]:
    """The extractor with a database and folders of its own."""
    port, database = pick_free_port(), databases.create("extractor")
    objects, spool = directory / "objects", directory / "spool"
    values = {
        "grpc_listen": f"127.0.0.1:{port}",
        "http_listen": "127.0.0.1:0",
        "tls_dir": pki.tls_dir("extractor"),
        "database_url": databases.dsn("extractor", database),
        "object_store_url": objects.as_uri(),
        "spool_dir": spool,
        "parser_processes": 2,
        "ledger_target": "127.0.0.1:1",
        "drain_s": 0,
        "shutdown_s": 2,
    }
    summarizer = ScriptedSummarizer()  # type: ignore[abstract]
    started, stop = asyncio.Event(), asyncio.Event()
    before = {child.pid for child in psutil.Process().children()}
    stack = AsyncExitStack()
    registration = (add_SummarizerServiceServicer_to_server, summarizer, SUMMARIZER)
    values["summarizer_target"] = await stack.enter_async_context(
        serving("summarizer", pki.tls_dir("summarizer"), registration)
    )
    task = asyncio.create_task(serve(ExtractorSettings(**{**values, **changes}), started=started, stop=stop))
    try:
        waiting = asyncio.create_task(started.wait())
        async with asyncio.timeout(60):
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        async with connected(pki, f"127.0.0.1:{port}") as client:
            yield Service(client, objects, spool, before, summarizer, str(values["database_url"]), f"127.0.0.1:{port}")
    finally:
        stop.set()
        try:
            async with asyncio.timeout(60):
                await task
        finally:
            await stack.aclose()
            databases.drop(database)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(
    postgres_server: Databases, mesh_pki: CertificateAuthority, session_dir: Path
) -> AsyncIterator[Service]:
    """One extractor for all tests that only need a tenant of their own."""
    async with running(postgres_server, mesh_pki, session_dir / "extractor") as service:
        yield service


_tenants = itertools.count(1)


@pytest.fixture
def client(shared: Service) -> Client:
    """The shared extractor, for a tenant that has nothing yet."""
    return shared.client.of(f"tenant-{next(_tenants)}")


@pytest_asyncio.fixture(loop_scope="session")
async def start(postgres_server: Databases, mesh_pki: CertificateAuthority, tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(**settings)` runs an extractor for this test alone."""
    async with AsyncExitStack() as stack:

        async def begin(**changes: Any) -> Service:
            return await stack.enter_async_context(running(postgres_server, mesh_pki, tmp_path, **changes))

        yield begin


@pytest_asyncio.fixture(loop_scope="session")
async def service(start: Start) -> Service:
    """An extractor for this test alone."""
    return await start()


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are held to their computing alone, which is the same on a machine that is busy, and not to the clock."""
    monkeypatch.setattr("services.extractor.__main__._WALL_TIMES_CPU", 200)
    monkeypatch.setattr("services.extractor.__main__._LOST_TIME_IN_TIMEOUTS", 1000)


@contextlib.asynccontextmanager
async def connected(pki: CertificateAuthority, target: str, *, identity: str = "edge") -> AsyncIterator[Client]:
    """A client with the certificate of the edge or of a service, which never tries twice."""
    credentials = TlsFolder(pki.tls_dir(identity)).channel_credentials()
    options = [
        ("grpc.ssl_target_name_override", "extractor.pagemesh.local"),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ]
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield Client(ExtractorServiceStub(channel))
