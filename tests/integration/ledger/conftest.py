"""The ledger as a real process: mTLS, real Postgres, and callers with every identity of the mesh."""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from pagemesh.ledger.v1.ledger_service_pb2 import QueryUsageRequest
from pagemesh.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.process import Process, ProcessSpec
from services.database.pool import open_pool
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.api import contract
from services.ledger.domain.identity import KeyRing
from services.ledger.domain.keys import KeyHasher, KeyMint
from services.ledger.domain.onboarding import Onboarding
from tests.conftest import Databases
from xdsapi.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub

ROOT = Path(__file__).parents[3]
PEPPER = "pepper-of-the-tests-pepper-of-the-tests"
ALL_SCOPES = "documents.read documents.write keys.admin summaries.create usage.read"


def environment(dsn: str, **changes: str) -> dict[str, str]:
    """What every command of the ledger needs."""
    return {"PAGEMESH_DATABASE_URL": dsn, "PAGEMESH_KEY_PEPPER": PEPPER, "PATH": "/usr/bin:/bin", **changes}


class LedgerProcess:
    """One replica: `python -m services.ledger` on free ports. It can be killed and started again."""

    def __init__(self, dsn: str, pki: CertificateAuthority, log: Path, **changes: str) -> None:
        self.dsn, self._pki = dsn, pki
        self.port, self.http_port = pick_free_port(), pick_free_port()
        self._spec = ProcessSpec(
            name="ledger",
            command=(sys.executable, "-m", "services.ledger"),
            log=log,
            directory=ROOT,
            environment=environment(
                dsn,
                PAGEMESH_GRPC_LISTEN=self.target,
                PAGEMESH_HTTP_LISTEN=f"127.0.0.1:{self.http_port}",
                PAGEMESH_TLS_DIR=str(pki.tls_dir("ledger")),
                PAGEMESH_PEERS="edge,extractor,summarizer,operator",
                PAGEMESH_EXPIRY_INTERVAL_S="0.1",
                PAGEMESH_DRAIN_S="0",
                **changes,
            ),
        )
        self._process: Process | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = Process(self._spec)
        self._process.wait_ready(self._check, timeout_s=30)

    def kill(self) -> None:
        """As a crash: no goodbye, nothing flushed."""
        assert self._process is not None
        self._process.kill()
        self._process.stop()

    def stop(self) -> int | None:
        """Asks it to stop and waits; answers its exit code."""
        if self._process is None:
            return None
        self._process.stop()
        return self._process.exit_code()

    def _check(self) -> None:
        with grpc.secure_channel(self.target, credentials(self._pki, "edge"), options=OPTIONS) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError as exc:
                raise OSError(str(exc)) from exc
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise OSError("not serving")


OPTIONS = (
    ("grpc.ssl_target_name_override", "ledger.pagemesh.local"),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 50),
)


def credentials(pki: CertificateAuthority, identity: str) -> grpc.ChannelCredentials:
    folder = pki.tls_dir(identity)
    return grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    )


@dataclass
class Peer:
    """A caller with one identity of the mesh, acting for one tenant."""

    channel: grpc.aio.Channel
    edge: grpc.aio.Channel
    """The way that public methods are called, whoever the peer is."""
    tenant: str
    actor: str = "apiKeys/" + "0" * 16
    scopes: str = ALL_SCOPES
    ledger: LedgerServiceStub = field(init=False)
    identity: IdentityServiceStub = field(init=False)
    authorization: AuthorizationStub = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = LedgerServiceStub(self.channel)
        self.identity = IdentityServiceStub(self.channel)
        self.authorization = AuthorizationStub(self.channel)

    async def call(self, method: Callable[..., Any], request: object, timeout_s: float = 10) -> Any:
        metadata = (
            ("x-pagemesh-tenant", self.tenant),
            ("x-pagemesh-actor", self.actor),
            ("x-pagemesh-scopes", self.scopes),
        )
        return await method(request, timeout=timeout_s, metadata=metadata)

    async def usage(self, request: QueryUsageRequest, timeout_s: float = 10) -> Any:
        """The tenant's usage, as its key sees it through the edge."""
        return await self.call(LedgerServiceStub(self.edge).QueryUsage, request, timeout_s)


class Refused:
    """What was answered instead of a response."""

    code: grpc.StatusCode
    reason: str
    fields: list[str]
    quota: str


@contextlib.asynccontextmanager
async def refused(code: grpc.StatusCode, reason: str) -> AsyncIterator[Refused]:
    """The body must fail with this status and this machine reason."""
    told = Refused()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield told
    error = raised.value
    told.code, told.reason, told.fields, told.quota = error.code(), "", [], ""
    trailing = {key: value for key, value in error.trailing_metadata() or ()}  # noqa: C416  # a tuple of its own kind
    status = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
    for detail in status.details:
        info, bad, quota = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.QuotaFailure(),
        )
        if detail.Unpack(info):
            told.reason = info.reason
        elif detail.Unpack(bad):
            told.fields = [violation.field for violation in bad.field_violations]
        elif detail.Unpack(quota):
            told.quota = quota.violations[0].subject
    assert (told.code, told.reason) == (code, reason), error.details()


async def eventually(condition: Callable[[], Awaitable[bool]], *, within_s: float = 20.0) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def ledger_dsn(postgres_server: Databases) -> Iterator[str]:
    """A fresh, migrated database for the tests of one module."""
    name = postgres_server.create("ledger")
    yield postgres_server.dsn("ledger", name)
    postgres_server.drop(name)


@pytest.fixture(scope="module")
def service(ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path) -> Iterator[LedgerProcess]:
    """A ledger that runs."""
    process = LedgerProcess(ledger_dsn, mesh_pki, session_dir / "ledger.log")
    process.start()
    yield process
    process.stop()


Connect = Callable[..., Peer]


@pytest.fixture
async def connect(mesh_pki: CertificateAuthority) -> AsyncIterator[Connect]:
    """`connect(service, "summarizer", "acme")`: a caller with that identity, acting for that tenant."""
    async with contextlib.AsyncExitStack() as stack:

        def open_peer(service: LedgerProcess, identity: str, tenant: str, **changes: str) -> Peer:
            channel = grpc.aio.secure_channel(service.target, credentials(mesh_pki, identity), options=OPTIONS)
            stack.push_async_callback(channel.close)
            edge = grpc.aio.secure_channel(service.target, credentials(mesh_pki, "edge"), options=OPTIONS)
            stack.push_async_callback(edge.close)
            return Peer(channel, edge, tenant, **changes)

        yield open_peer


_numbers = itertools.count(1)


@dataclass(frozen=True)
class Tenant:
    """A tenant with its admin key."""

    name: str
    api_key: str
    secret: str


Admit = Callable[..., Awaitable[Tenant]]


@pytest.fixture
async def admit(ledger_dsn: str) -> AsyncIterator[Admit]:
    """`await admit(hard_budget_micros=5)`: a new tenant, or another budget for the one of that name."""
    pool = await open_pool(ledger_dsn, name="test", max_size=2)
    keys = KeyRing(
        keys=PostgresKeys(pool),
        hasher=KeyHasher(PEPPER),
        mint=KeyMint(),
        clock=lambda: datetime.now(UTC),
        known_scopes=contract.scopes(),
    )
    onboarding = Onboarding(
        tenants=PostgresTenants(pool), keys=keys, clock=lambda: datetime.now(UTC), scopes=contract.scopes()
    )

    async def make(*, name: str = "", hard_budget_micros: int | None = None) -> Tenant:
        name = name or f"tenant-{next(_numbers)}"
        key, credential = await onboarding.admit(name, "", hard_budget_micros=hard_budget_micros)
        return Tenant(key.tenant, key.name, credential)

    yield make
    await pool.close()


async def run_command(arguments: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Runs `python -m services.ledger …`; answers the exit code and everything it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.ledger",
        *arguments,
        cwd=ROOT,
        env=variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()
