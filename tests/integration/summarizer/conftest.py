"""The whole summarizer in this process, over mTLS, with a real Postgres, Valkey and ledger behind breakable wires."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import pytest

from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from pagemesh.summarizer.v1 import summary_pb2
from pagemesh.summarizer.v1.model_policy_service_pb2_grpc import ModelPolicyServiceStub
from pagemesh.summarizer.v1.schema_service_pb2_grpc import SchemaServiceStub
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import SummarizerServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from services.runtime import status
from services.runtime.tls import TlsFolder
from services.summarizer.__main__ import serve
from services.summarizer.config import SummarizerSettings
from tests.conftest import Databases
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.peers import (
    Ledger,
    Script,
    ScriptedExtractor,
    extractor_registration,
    running_ledger,
    serving,
)
from tests.integration.summarizer.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from tests.integration.summarizer.job_calls import Jobs

DOCUMENT = "documents/" + "d" * 32
SCOPES = (
    "answers.create documents.read fields.create jobs.cancel jobs.create jobs.read models.admin models.read "
    "schemas.read schemas.write summaries.create"
)
MODEL = "mistral/mistral-small-latest"
BEES = (
    "Bees make honey from the nectar of flowers. They live together in hives that they build. "
    "A hive holds one queen and many thousands of workers. The workers gather nectar and pollen all summer. "
    "The queen lays all the eggs of the hive. Honey feeds the whole hive through the winter."
)
DANCES = "Bees dance in order to tell where the flowers stand. The dance points to the sun and the distance."


@dataclass
class Client:
    """Calls the summarizer as the edge does; errors come back as ours."""

    stub: Any
    tenant: str
    target: str
    schemas: Any = None
    policy: Any = None

    async def summarize(
        self, document: str = DOCUMENT, *, timeout_s: float = 30, tenant: str = "", **options: Any
    ) -> summary_pb2.Summary:
        request = service_pb2.SummarizeRequest(document=document, options=service_pb2.SummaryOptions(**options))
        try:
            answer = await self.stub.Summarize(request, timeout=timeout_s, metadata=metadata(tenant or self.tenant))
        except grpc.aio.AioRpcError as exc:
            raise status.from_rpc_error(exc, service="summarizer") from exc
        summary: summary_pb2.Summary = answer.summary
        return summary

    def stream(self, document: str = DOCUMENT, *, timeout_s: float = 30, **options: Any) -> Any:
        request = service_pb2.StreamSummarizeRequest(document=document, options=service_pb2.SummaryOptions(**options))
        return self.stub.StreamSummarize(request, timeout=timeout_s, metadata=metadata(self.tenant))


def metadata(tenant: str) -> tuple[tuple[str, str], ...]:
    return (
        ("x-pagemesh-tenant", tenant),
        ("x-pagemesh-actor", "apiKeys/0123456789abcdef"),
        ("x-pagemesh-project", ""),
        ("x-pagemesh-scopes", SCOPES),
    )


@dataclass
class World:
    """Everything around the summarizer; each wire can be cut, frozen and mended."""

    pki: CertificateAuthority
    tenant: str
    """One of this test's own: the databases are shared by the tests of a module."""
    ledger: Ledger
    extractor: ScriptedExtractor
    wires: Mapping[str, TcpProxy]
    """By name: ledger, extractor, postgres, valkey."""
    environment: Mapping[str, Any]
    """The summarizer's settings, by field, without its ports."""
    database_url: str
    """The summarizer's database, past the wire."""

    def settings(self, **changes: Any) -> SummarizerSettings:
        return SummarizerSettings(**{**self.environment, **changes})


def behind(url: str, wire: TcpProxy) -> str:
    """The same server at the other end of the wire."""
    parts = urlsplit(url)
    account = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{account}@127.0.0.1:{wire.port}").geturl()


@contextlib.asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[TcpProxy]:
    parts = urlsplit(url)
    async with TcpProxy(parts.hostname or "127.0.0.1", parts.port or 0).running() as wire:
        yield wire


@pytest.fixture(scope="module")
def databases(postgres_server: Databases) -> Iterator[dict[str, str]]:
    """Fresh databases of the ledger and the summarizer, as DSNs."""
    names = {service: postgres_server.create(service) for service in ("ledger", "summarizer")}
    yield {service: postgres_server.dsn(service, name) for service, name in names.items()}
    for name in names.values():
        postgres_server.drop(name)


@pytest.fixture
async def world(databases: dict[str, str], valkey_url: str, mesh_pki: CertificateAuthority) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        open_up = stack.enter_async_context
        tenant = f"t-{uuid.uuid4().hex}"
        ledger = await open_up(running_ledger(databases["ledger"], mesh_pki.tls_dir("ledger"), tenant))
        extractor = ScriptedExtractor()  # type: ignore[abstract]
        registration = extractor_registration(extractor)
        extractor_target = await open_up(serving("extractor", mesh_pki.tls_dir("extractor"), registration))
        database_url = databases["summarizer"]
        wires = {
            "ledger": await open_up(wire_to(f"grpc://{ledger.target}")),
            "extractor": await open_up(wire_to(f"grpc://{extractor_target}")),
            "postgres": await open_up(wire_to(database_url)),
            "valkey": await open_up(wire_to(valkey_url)),
        }
        environment = {
            "tls_dir": mesh_pki.tls_dir("summarizer"),
            "database_url": behind(database_url, wires["postgres"]),
            "redis_url": behind(valkey_url, wires["valkey"]),
            "extractor_target": wires["extractor"].target,
            "ledger_target": wires["ledger"].target,
            "drain_s": 0,
            "shutdown_s": 2,
        }
        yield World(mesh_pki, tenant, ledger, extractor, wires, environment, database_url)


@contextlib.asynccontextmanager
async def connected(
    pki: CertificateAuthority, target: str, tenant: str, *, identity: str = "edge"
) -> AsyncIterator[Client]:
    """A client with the certificate of the edge or of a service, which never tries twice."""
    credentials = TlsFolder(pki.tls_dir(identity)).channel_credentials()
    options = [
        ("grpc.ssl_target_name_override", "summarizer.pagemesh.local"),
        ("grpc.enable_retries", 0),
    ]
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield Client(
            SummarizerServiceStub(channel), tenant, target, SchemaServiceStub(channel), ModelPolicyServiceStub(channel)
        )


Start = Callable[..., Awaitable[Client]]


@pytest.fixture
async def start(world: World) -> AsyncIterator[Start]:
    """`await start(**settings)` runs the summarizer and answers a client of it."""
    async with AsyncExitStack() as stack:

        async def begin(**changes: Any) -> Client:
            port = pick_free_port()
            listen = {"grpc_listen": f"127.0.0.1:{port}", "http_listen": "127.0.0.1:0"}
            started, stop = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(serve(world.settings(**{**listen, **changes}), started=started, stop=stop))
            stack.push_async_callback(_end, task, stop)
            async with asyncio.timeout(20):
                await started.wait()
            return await stack.enter_async_context(connected(world.pki, f"127.0.0.1:{port}", world.tenant))

        yield begin


async def _end(task: "asyncio.Task[None]", stop: asyncio.Event) -> None:
    stop.set()
    async with asyncio.timeout(30):
        await task


@pytest.fixture
def mistral() -> Iterator[MistralServer]:
    """A server that speaks Mistral's API and keeps its own bill."""
    with MistralServer() as server:
        yield server


@pytest.fixture
async def client(start: Start, mistral: MistralServer) -> Client:
    """A client of a summarizer whose default model is Mistral's."""
    return await start(default_model=MODEL, mistral_api_key="a key", mistral_url=mistral.url)


@pytest.fixture
def document(world: World) -> Script:
    """What the document of the tests is; a test may change it."""
    script = Script((BEES, DANCES))
    world.extractor.documents[world.tenant, DOCUMENT] = script
    return script


async def until(condition: Callable[[], bool], *, timeout_s: float = 10) -> None:
    """Waits for something that happens in a server of the test."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def until_so(condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 40, poll_s: float = 0.05) -> None:
    """The same for a question that takes time itself."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(poll_s)


@pytest.fixture
def paid(mistral: MistralServer) -> dict[str, object]:
    """Settings of a summarizer that pays."""
    return {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}


@pytest.fixture
async def jobs(world: World, start: Start, paid: dict[str, object]) -> AsyncIterator["Jobs"]:
    from tests.integration.summarizer.job_calls import jobs_at

    client = await start(**paid, job_queue_limit=100)
    async with jobs_at(world, client.target) as calls:
        yield calls
