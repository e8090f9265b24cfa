"""Small real services behind a real Envoy: gRPC servers over mTLS that note what reaches them and answer as told."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import struct_pb2
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import document_pb2, extraction_pb2, extractor_service_pb2_grpc
from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.ledger.v1 import credential_service_pb2 as credential_pb2
from pagemesh.ledger.v1 import credential_service_pb2_grpc, identity_service_pb2_grpc, ledger_service_pb2_grpc
from pagemesh.ledger.v1 import identity_service_pb2 as identity_pb2
from pagemesh.ledger.v1 import ledger_service_pb2 as ledger_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as summarizer_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2_grpc, summary_pb2
from services.runtime.errors import ResourceExhausted
from services.runtime.status import to_status
from services.runtime.tls import TlsFolder
from xdsapi.envoy.config.core.v3 import base_pb2
from xdsapi.envoy.service.auth.v3 import external_auth_pb2 as auth_pb2
from xdsapi.envoy.service.auth.v3 import external_auth_pb2_grpc
from xdsapi.envoy.type.v3 import http_status_pb2

DOCUMENT = "documents/" + "a" * 32
MISSING = "documents/" + "f" * 32
PIECE_BYTES = 256 * 1024
Context = Any  # grpc.aio.ServicerContext is generic over messages that do not matter here


@dataclass(frozen=True)
class Seen:
    """One call as a service saw it."""

    method: str
    metadata: dict[str, str]
    remaining_s: float | None
    peer: str


@dataclass
class Journal:
    """What reached the services, in order."""

    calls: list[Seen] = field(default_factory=list)

    def note(self, method: str, context: Context) -> None:
        pairs = context.invocation_metadata()
        metadata = {key: value for key, value in pairs if isinstance(value, str)}
        peer = context.auth_context().get("peer_spiffe_id", [b""])[0].decode()
        self.calls.append(Seen(method, metadata, context.time_remaining(), peer))

    @property
    def last(self) -> Seen:
        return self.calls[-1]


class Authorizer(external_auth_pb2_grpc.AuthorizationServicer):
    """Lets `Bearer pm_<tenant>_<key>` in and nobody else."""

    def __init__(self) -> None:
        self.asked: list[auth_pb2.CheckRequest] = []

    async def Check(self, request: auth_pb2.CheckRequest, context: Context) -> auth_pb2.CheckResponse:
        self.asked.append(request)
        credential = request.attributes.request.http.headers.get("authorization", "")
        if credential == "Bearer exhausted":
            return _exhausted(request)
        if not credential.startswith("Bearer pm_"):
            forbidden = credential == "Bearer forbidden"
            return auth_pb2.CheckResponse(
                status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED if forbidden else code_pb2.UNAUTHENTICATED),
                denied_response=auth_pb2.DeniedHttpResponse(
                    status=http_status_pb2.HttpStatus(
                        code=http_status_pb2.Forbidden if forbidden else http_status_pb2.Unauthorized
                    ),
                    body="As the authorizer says.",
                ),
            )
        _, tenant, key = credential.removeprefix("Bearer ").split("_")
        about = struct_pb2.Struct()
        about.update({"tenant": tenant, "actor": f"apiKeys/{key}"})
        headers = {"x-pagemesh-tenant": tenant, "x-pagemesh-actor": f"apiKeys/{key}", "x-pagemesh-scopes": "usage.read"}
        options = [
            base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value))
            for name, value in headers.items()
        ]
        return auth_pb2.CheckResponse(
            status=status_pb2.Status(), ok_response=auth_pb2.OkHttpResponse(headers=options), dynamic_metadata=about
        )


def _exhausted(request: auth_pb2.CheckRequest) -> auth_pb2.CheckResponse:
    """As the ledger says that a quota is used up, to gRPC callers with details."""
    headers = {"retry-after": "1234"}
    if request.attributes.request.http.headers.get("content-type", "").startswith("application/grpc"):
        error = ResourceExhausted("QUOTA_EXCEEDED", "As the authorizer says.", retry_after_s=1234)
        headers["grpc-status-details-bin"] = base64.b64encode(to_status(error).SerializeToString()).decode().rstrip("=")
    return auth_pb2.CheckResponse(
        status=status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED),
        denied_response=auth_pb2.DeniedHttpResponse(
            status=http_status_pb2.HttpStatus(code=http_status_pb2.TooManyRequests),
            headers=[
                base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value))
                for name, value in headers.items()
            ],
            body="As the authorizer says.",
        ),
    )


class Identities(identity_service_pb2_grpc.IdentityServiceServicer):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.fail_next: list[grpc.StatusCode] = []

    async def WhoAmI(self, request: identity_pb2.WhoAmIRequest, context: Context) -> identity_pb2.WhoAmIResponse:
        self._journal.note("WhoAmI", context)
        if self.fail_next:
            await context.abort(self.fail_next.pop(0), "as the test asked")
        metadata = self._journal.last.metadata
        return identity_pb2.WhoAmIResponse(
            tenant=f"tenants/{metadata['x-pagemesh-tenant']}", actor=metadata["x-pagemesh-actor"], scopes=["s" * 2000]
        )

    async def CreateApiKey(
        self, request: identity_pb2.CreateApiKeyRequest, context: Context
    ) -> identity_pb2.CreateApiKeyResponse:
        self._journal.note("CreateApiKey", context)
        if self.fail_next:
            await context.abort(self.fail_next.pop(0), "as the test asked")
        return identity_pb2.CreateApiKeyResponse(secret="pm_x_y")

    async def RevokeApiKey(
        self, request: identity_pb2.RevokeApiKeyRequest, context: Context
    ) -> identity_pb2.RevokeApiKeyResponse:
        self._journal.note("RevokeApiKey", context)
        return identity_pb2.RevokeApiKeyResponse()


class Credentials(credential_service_pb2_grpc.CredentialServiceServicer):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def ExchangeToken(
        self, request: credential_pb2.ExchangeTokenRequest, context: Context
    ) -> credential_pb2.ExchangeTokenResponse:
        self._journal.note("ExchangeToken", context)
        return credential_pb2.ExchangeTokenResponse(expires_in=1800)

    async def GetJsonWebKeySet(
        self, request: credential_pb2.GetJsonWebKeySetRequest, context: Context
    ) -> credential_pb2.GetJsonWebKeySetResponse:
        self._journal.note("GetJsonWebKeySet", context)
        return credential_pb2.GetJsonWebKeySetResponse()


class Ledger(ledger_service_pb2_grpc.LedgerServiceServicer):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def Reserve(self, request: ledger_pb2.ReserveRequest, context: Context) -> ledger_pb2.ReserveResponse:
        self._journal.note("Reserve", context)
        return ledger_pb2.ReserveResponse()

    async def Settle(self, request: ledger_pb2.SettleRequest, context: Context) -> ledger_pb2.SettleResponse:
        self._journal.note("Settle", context)
        return ledger_pb2.SettleResponse()

    async def Release(self, request: ledger_pb2.ReleaseRequest, context: Context) -> ledger_pb2.ReleaseResponse:
        self._journal.note("Release", context)
        return ledger_pb2.ReleaseResponse()

    async def RecordUsage(
        self, request: ledger_pb2.RecordUsageRequest, context: Context
    ) -> ledger_pb2.RecordUsageResponse:
        self._journal.note("RecordUsage", context)
        return ledger_pb2.RecordUsageResponse()

    async def ForecastUsage(
        self, request: ledger_pb2.ForecastUsageRequest, context: Context
    ) -> ledger_pb2.ForecastUsageResponse:
        self._journal.note("ForecastUsage", context)
        return ledger_pb2.ForecastUsageResponse()

    async def ExportUsage(
        self, request: ledger_pb2.ExportUsageRequest, context: Context
    ) -> AsyncIterator[ledger_pb2.ExportUsageResponse]:
        self._journal.note("ExportUsage", context)
        yield ledger_pb2.ExportUsageResponse()

    async def QueryUsage(
        self, request: ledger_pb2.QueryUsageRequest, context: Context
    ) -> ledger_pb2.QueryUsageResponse:
        self._journal.note("QueryUsage", context)
        return ledger_pb2.QueryUsageResponse(total_records=request.page_size)


class Extractor(extractor_service_pb2_grpc.ExtractorServiceServicer):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.gate = asyncio.Event()
        self.gate.set()
        self.received_bytes = 0
        self.largest_chunk_bytes = 0

    async def UploadDocument(
        self, request_iterator: AsyncIterator[extractor_pb2.UploadDocumentRequest], context: Context
    ) -> extractor_pb2.UploadDocumentResponse:
        self._journal.note("UploadDocument", context)
        digest, name, self.received_bytes = hashlib.sha256(), "", 0
        async for piece in request_iterator:
            await self.gate.wait()
            name = name or piece.display_name
            digest.update(piece.content.data)
            self.received_bytes += len(piece.content.data)
            self.largest_chunk_bytes = max(self.largest_chunk_bytes, len(piece.content.data))
        return extractor_pb2.UploadDocumentResponse(
            document=document_pb2.Document(
                display_name=name, size_bytes=self.received_bytes, sha256=digest.hexdigest()
            ),
            created=True,
        )

    async def GetDocument(
        self, request: extractor_pb2.GetDocumentRequest, context: Context
    ) -> extractor_pb2.GetDocumentResponse:
        self._journal.note("GetDocument", context)
        await self.gate.wait()
        if request.name == MISSING:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such document.")
        return extractor_pb2.GetDocumentResponse(document=document_pb2.Document(name=request.name))

    async def ListDocuments(
        self, request: extractor_pb2.ListDocumentsRequest, context: Context
    ) -> extractor_pb2.ListDocumentsResponse:
        self._journal.note("ListDocuments", context)
        return extractor_pb2.ListDocumentsResponse(next_page_token="more")

    async def DeleteDocument(
        self, request: extractor_pb2.DeleteDocumentRequest, context: Context
    ) -> extractor_pb2.DeleteDocumentResponse:
        self._journal.note("DeleteDocument", context)
        return extractor_pb2.DeleteDocumentResponse(receipt=document_pb2.DeletionReceipt(document=request.name))

    async def ExtractPages(
        self, request: extractor_pb2.ExtractPagesRequest, context: Context
    ) -> AsyncIterator[extractor_pb2.ExtractPagesResponse]:
        self._journal.note("ExtractPages", context)
        yield extractor_pb2.ExtractPagesResponse(start=extraction_pb2.ExtractionStart(page_count=2))
        await self.gate.wait()
        for number in (1, 2):
            yield extractor_pb2.ExtractPagesResponse(page=page_pb2.Page(number=number, text="\n"))
        yield extractor_pb2.ExtractPagesResponse(end=extraction_pb2.ExtractionEnd(pages_sent=2))

    async def RenderPage(
        self, request: extractor_pb2.RenderPageRequest, context: Context
    ) -> AsyncIterator[extractor_pb2.RenderPageResponse]:
        self._journal.note("RenderPage", context)
        if request.name == MISSING:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such document.")
        kind = "image/png"
        for number in range(request.page):
            piece = HttpBody(content_type=kind, data=bytes([number % 256]) * PIECE_BYTES)
            yield extractor_pb2.RenderPageResponse(content=piece)
            kind = ""


class Summarizer(summarizer_service_pb2_grpc.SummarizerServiceServicer):
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = asyncio.Event()
        self.focus = ""

    async def Summarize(
        self, request: summarizer_pb2.SummarizeRequest, context: Context
    ) -> summarizer_pb2.SummarizeResponse:
        self._journal.note("Summarize", context)
        self.focus = request.options.focus
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return summarizer_pb2.SummarizeResponse(summary=summary_pb2.Summary(document=request.document))

    async def StreamSummarize(
        self, request: summarizer_pb2.StreamSummarizeRequest, context: Context
    ) -> AsyncIterator[summarizer_pb2.StreamSummarizeResponse]:
        self._journal.note("StreamSummarize", context)
        self.focus = request.options.focus
        yield summarizer_pb2.StreamSummarizeResponse(text_delta="Once\nmore")
        await self.gate.wait()
        yield summarizer_pb2.StreamSummarizeResponse(summary=summary_pb2.Summary(document=request.document))


class Upstream:
    """A gRPC server that has a mesh identity, health, and keeps its port over restarts."""

    def __init__(self, tls_dir: Path, *register: Callable[[grpc.aio.Server], None]) -> None:
        self.tls_dir = tls_dir
        self._register = register
        self._server: grpc.aio.Server | None = None
        self.health = grpc_health.HealthServicer()
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.health = grpc_health.HealthServicer()
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for register in self._register:
            register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        credentials = TlsFolder(self.tls_dir).server_credentials()
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await server.start()
        await self.serving(True)
        self._server = server

    async def serving(self, yes: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if yes else health_pb2.HealthCheckResponse.NOT_SERVING
        await self.health.set("", state)

    async def stop(self, grace_s: float | None = None) -> None:
        """With a grace the calls under way may end; without, they are cut."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None


class Mesh:
    """The three services, each one replica; a test may add more."""

    def __init__(self, tls_dir: Callable[[str], Path]) -> None:
        self.journal = Journal()
        self.authorizer = Authorizer()
        self.identities = Identities(self.journal)  # type: ignore[abstract]
        self.extracting = Extractor(self.journal)  # type: ignore[abstract]
        self.summarizing = Summarizer(self.journal)  # type: ignore[abstract]
        self.keeping = Ledger(self.journal)  # type: ignore[abstract]
        self._tls_dir = tls_dir
        self.ledger = Upstream(
            tls_dir("ledger"),
            lambda s: external_auth_pb2_grpc.add_AuthorizationServicer_to_server(self.authorizer, s),
            lambda s: identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(self.identities, s),
            lambda s: ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(self.keeping, s),
            lambda s: credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(
                Credentials(self.journal),  # type: ignore[abstract]
                s,
            ),
        )
        self.extractor = self.new_extractor()
        self.summarizer = Upstream(
            tls_dir("summarizer"),
            lambda s: summarizer_service_pb2_grpc.add_SummarizerServiceServicer_to_server(self.summarizing, s),
        )

    def new_extractor(self, identity: str = "extractor") -> Upstream:
        return Upstream(
            self._tls_dir(identity),
            lambda s: extractor_service_pb2_grpc.add_ExtractorServiceServicer_to_server(self.extracting, s),
        )

    async def start(self) -> None:
        for upstream in (self.ledger, self.extractor, self.summarizer):
            await upstream.start()

    async def stop(self) -> None:
        for upstream in (self.ledger, self.extractor, self.summarizer):
            await upstream.stop()
