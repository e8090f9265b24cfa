"""The summarizer's peers: the real ledger in this process, and an extractor that reads what a test wrote."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import grpc
from google.api import httpbody_pb2

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2, vectors_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.extractor.v1.extractor_service_pb2_grpc import (
    ExtractorServiceServicer,
    add_ExtractorServiceServicer_to_server,
)
from pagemesh.ledger.v1 import identity_pb2, identity_service_pb2, project_pb2, tenant_pb2
from pagemesh.ledger.v1.identity_service_pb2_grpc import (
    IdentityServiceServicer,
    add_IdentityServiceServicer_to_server,
)
from pagemesh.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from services.database.pool import Pool, open_pool
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.api import contract
from services.runtime.call import current_identity
from services.runtime.config import RuntimeSettings
from services.runtime.errors import NotFound, Unavailable, Unimplemented
from services.runtime.health import Health
from services.runtime.server import MeshServer
from tests.unit.ledger.samples import a_servicer

ALL_SCOPES = ("answers.create", "documents.read", "fields.create", "summaries.create")
EXTRACTOR = "pagemesh.extractor.v1.ExtractorService"
Registration = tuple[Callable[[Any, Any], None], object, str]


def settings(tls_dir: Path, **changes: Any) -> RuntimeSettings:
    """Settings of a server on free ports, or of a client."""
    values: dict[str, Any] = {
        "grpc_listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
        "tls_dir": tls_dir,
        "peers": "edge,extractor,summarizer",
        "database_url": "postgresql://nobody@localhost/none",
        "drain_s": 0,
        "shutdown_s": 2,
    }
    return RuntimeSettings(**{**values, **changes})


@contextlib.asynccontextmanager
async def serving(name: str, tls_dir: Path, *registrations: Registration) -> AsyncIterator[str]:
    """A mesh server with these services; answers its target."""
    server = MeshServer(name=name, settings=settings(tls_dir), health=Health())
    for registration in registrations:
        server.add(*registration)
    started, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(server.run(started=started, stop=stop))
    try:
        async with asyncio.timeout(10):
            await started.wait()
        yield f"127.0.0.1:{server.grpc_port}"
    finally:
        stop.set()
        await task


@dataclass
class Ledger:
    """A running ledger, and a look into the books of one tenant."""

    target: str
    pool: Pool
    tenant: str
    identity: "ScriptedIdentity"

    async def admit(self, tenant: str) -> None:
        """Makes a tenant."""
        await PostgresTenants(self.pool).ensure(tenant, tenant, now())

    async def limit(self, budget_micros: int) -> None:
        """Sets a hard budget."""
        await PostgresTenants(self.pool).set_hard_budget(self.tenant, budget_micros)

    async def holds(self) -> dict[str, str]:
        """The state of each hold, by its id, the oldest first."""
        rows = await self._rows(
            "SELECT hold_id::text, state::text FROM ledger.holds WHERE tenant = %s ORDER BY create_time"
        )
        return dict(rows)

    async def events(self) -> list[tuple[str, int, int, int]]:
        """Operation, tokens sent and received, and cost in micro-units of each record, the oldest first."""
        return await self._rows(
            "SELECT operation, input_tokens, output_tokens, cost_micros FROM ledger.usage_records "
            "WHERE tenant = %s ORDER BY record_time, event_id"
        )

    async def _rows(self, query: LiteralString) -> list[Any]:
        async with self.pool.connection() as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (self.tenant,))
            return await (await connection.execute(query, (self.tenant,))).fetchall()


@dataclass
class ScriptedIdentity(IdentityServiceServicer):
    """Says of every caller that he stands, with every scope, until a test says otherwise."""

    tenant_active: bool = True
    project_active: bool = True
    key: identity_pb2.ApiKey = field(default_factory=lambda: identity_pb2.ApiKey(scopes=ALL_SCOPES))

    async def GetTenant(
        self, request: identity_service_pb2.GetTenantRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> identity_service_pb2.GetTenantResponse:
        return identity_service_pb2.GetTenantResponse(
            tenant=tenant_pb2.Tenant(name=request.name, active=self.tenant_active)
        )

    async def GetApiKey(
        self, request: identity_service_pb2.GetApiKeyRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> identity_service_pb2.GetApiKeyResponse:
        return identity_service_pb2.GetApiKeyResponse(api_key=self.key)

    async def GetProject(
        self, request: identity_service_pb2.GetProjectRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> identity_service_pb2.GetProjectResponse:
        return identity_service_pb2.GetProjectResponse(
            project=project_pb2.Project(name=request.name, active=self.project_active)
        )


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@contextlib.asynccontextmanager
async def running_ledger(dsn: str, tls_dir: Path, tenant: str) -> AsyncIterator[Ledger]:
    """The ledger's real service on a real database, with one tenant."""
    pool = await open_pool(dsn, name="ledger", max_size=4)
    registration = (add_LedgerServiceServicer_to_server, a_servicer(pool), contract.LEDGER)
    identity = ScriptedIdentity()  # type: ignore[abstract]
    known = (add_IdentityServiceServicer_to_server, identity, contract.IDENTITY)
    async with serving("ledger", tls_dir, registration, known) as target:
        ledger = Ledger(target, pool, tenant, identity)
        await ledger.admit(tenant)
        yield ledger
    await pool.close()


@dataclass
class Script:
    """What one document does when it is read."""

    pages: tuple[str | None, ...]
    """The text of each page; None is one that cannot be read."""
    cut_after: int | None = None
    """After so many pages the stream breaks off."""
    hang_after: int | None = None
    """After so many pages nothing comes any more until it may `go_on`."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    scans: frozenset[int] = frozenset()
    """Pages whose text was read from their pictures; without any they have none."""
    pictures: dict[int, bytes] = field(default_factory=dict)


@dataclass
class ScriptedExtractor(ExtractorServiceServicer):
    """Speaks the contract; its documents are what a test wrote."""

    documents: dict[tuple[str, str], Script] = field(default_factory=dict)
    reading: int = 0
    cancelled: int = 0
    held: dict[str, str] = field(default_factory=dict)
    """Documents by the id of their hold."""
    processed: list[str] = field(default_factory=list)
    """Documents that were released as processed."""
    vectors: list[vectors_pb2.StorePageVectorsRequest] = field(default_factory=list)
    """What was handed over to be kept."""
    keeps_vectors: bool = True

    async def GetDocument(
        self, request: extractor_pb2.GetDocumentRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> extractor_pb2.GetDocumentResponse:
        self._find(request.name)
        response = extractor_pb2.GetDocumentResponse()
        response.document.name = request.name
        return response

    async def ExtractPages(
        self, request: extractor_pb2.ExtractPagesRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[extractor_pb2.ExtractPagesResponse]:
        script = self._find(request.name)
        assert sorted(request.read_mask.paths) in (["flags", "text", "words"], ["text"])
        self.reading += 1
        last = request.last_page or len(script.pages)
        try:
            async for response in _responses(script):
                page = response.page.number or response.failed_page.number
                if not page or request.first_page <= page <= last:
                    yield response
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def RenderPage(
        self, request: extractor_pb2.RenderPageRequest, context: object
    ) -> AsyncIterator[extractor_pb2.RenderPageResponse]:
        picture = self._find(request.name).pictures[request.page]
        for start in range(0, len(picture), 50):
            piece = httpbody_pb2.HttpBody(content_type="" if start else "image/jpeg", data=picture[start : start + 50])
            yield extractor_pb2.RenderPageResponse(content=piece)

    async def HoldDocument(
        self, request: extractor_pb2.HoldDocumentRequest, context: object
    ) -> extractor_pb2.HoldDocumentResponse:
        self._find(request.name)
        self.held[request.hold_id] = request.name
        return extractor_pb2.HoldDocumentResponse()

    async def ReleaseDocument(
        self, request: extractor_pb2.ReleaseDocumentRequest, context: object
    ) -> extractor_pb2.ReleaseDocumentResponse:
        if self.held.pop(request.hold_id, "") and request.processed:
            self.processed.append(request.name)
        return extractor_pb2.ReleaseDocumentResponse()

    async def StorePageVectors(
        self, request: vectors_pb2.StorePageVectorsRequest, context: object
    ) -> vectors_pb2.StorePageVectorsResponse:
        self._find(request.document)
        if not self.keeps_vectors:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database does not answer.")
        self.vectors.append(request)
        return vectors_pb2.StorePageVectorsResponse()

    async def UploadDocument(self, request_iterator: object, context: object) -> Any:
        raise Unimplemented("UNIMPLEMENTED", "Documents are put in by the test.")

    async def ListDocuments(self, request: object, context: object) -> Any:
        raise Unimplemented("UNIMPLEMENTED", "The summarizer never asks.")

    async def DeleteDocument(self, request: object, context: object) -> Any:
        raise Unimplemented("UNIMPLEMENTED", "The summarizer never asks.")

    def _find(self, name: str) -> Script:
        found = self.documents.get((current_identity().tenant, name))
        if found is None:
            raise NotFound("DOCUMENT_NOT_FOUND", "There is no such document.")
        return found


async def _responses(script: Script) -> AsyncIterator[extractor_pb2.ExtractPagesResponse]:
    count = len(script.pages)
    start = extraction_pb2.ExtractionStart(page_count=count, first_page=1, last_page=count)
    yield extractor_pb2.ExtractPagesResponse(start=start)
    for number, text in enumerate(script.pages, start=1):
        if script.cut_after is not None and number > script.cut_after:
            return
        if script.hang_after is not None and number > script.hang_after:
            await script.go_on.wait()
        response = _page(number, text)
        if number in script.scans:
            response.page.flags.append(page_pb2.PAGE_FLAG_OCR if text else page_pb2.PAGE_FLAG_NO_TEXT)
        yield response
    yield extractor_pb2.ExtractPagesResponse(end=extraction_pb2.ExtractionEnd(pages_sent=count))


def _page(number: int, text: str | None) -> extractor_pb2.ExtractPagesResponse:
    if text is None:
        failed = extraction_pb2.FailedPage(number=number, reason="PAGE_CORRUPT")
        return extractor_pb2.ExtractPagesResponse(failed_page=failed)
    page = page_pb2.Page(number=number, width_pt=600, height_pt=800, text=text)
    for line, row in enumerate(text.split("\n")):
        for column, word in enumerate(row.split()):
            box = page_pb2.BoundingBox(x0=40.0 * column, y0=12.0 * line, x1=40.0 * column + 38, y1=12.0 * line + 10)
            page.words.add(text=word, box=box, block=0, line=line)
    return extractor_pb2.ExtractPagesResponse(page=page)


def extractor_registration(extractor: ScriptedExtractor) -> Registration:
    return add_ExtractorServiceServicer_to_server, extractor, EXTRACTOR
