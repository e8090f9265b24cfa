"""Real servers for tests. Each is started once a session, from the same parts as `pagemesh up`, at a free port."""

import dataclasses
import datetime as dt
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from pagemesh_cli.stack.background import Supervised
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.checkout import SERVICES
from pagemesh_cli.stack.credentials import AdminKey, load_admin_key, load_credentials
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.postgres import SUPERUSER, PostgresServer
from pagemesh_cli.stack.process import Process
from pagemesh_cli.stack.services import ServiceRunner
from pagemesh_cli.stack.state import StackState
from pagemesh_cli.stack.valkey import ValkeyServer, command_valkey
from tests.databases import Databases as Databases  # noqa: PLC0414 - tests take it from here

if TYPE_CHECKING:
    from tests.fakes.collector import Collector
    from tests.s3_server import S3Server

# A busy machine is slow, and no example is wrong for it.
settings.register_profile("pagemesh", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pagemesh")

_ROOT = Path(__file__).parent.parent
_ROLES = _ROOT / "deploy" / "postgres" / "roles.sql"


_LONG = (
    "chaos/test_outages.py",
    "corpus/test_corpus.py",
    "integration/audit/test_crashes.py",
    "integration/extractor/test_cancelling.py",
    "integration/extractor/test_outages.py",
    "integration/extractor/test_parser_processes.py",
    "integration/ledger/test_crashes.py",
    "integration/ledger/test_every_text.py",
    "integration/ledger/test_step_kills.py",
    "integration/ledger/test_usage_crashes.py",
    "integration/summarizer/test_job_crashes.py",
    "integration/summarizer/test_job_partitions.py",
    "integration/summarizer/test_job_restarts.py",
    "integration/summarizer/test_job_stops.py",
    "integration/summarizer/test_service_crashes.py",
    "integration/summarizer/test_service_faults.py",
    "stack/test_lifecycle.py",
    "stack/test_object_store.py",
    "unit/extractor/test_page_bounds.py",
)


_FIRST = ("stack", "scenarios", "integration", "edge", "contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what takes minutes, and puts the folders with long files first: at the end of a run, when one of its
    workers has nothing left, the other one has only a short file."""
    ranks = {name: rank for rank, name in enumerate(_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(_ROOT / "tests").parts[0], len(ranks)))
    for item in items:
        if item.path.as_posix().endswith(_LONG):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def session_dir() -> Iterator[Path]:
    """A folder of this session. Not pytest's own: servers log into it, and it goes when the session ends."""
    with tempfile.TemporaryDirectory(prefix="pagemesh-test-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres_server(session_dir: Path) -> Iterator[Databases]:
    """A real PostgreSQL 18; `.superuser_dsn`, `.create_empty()`, `.create(service)`, `.dsn(…)`.

    It leaves writing to the disk to the kernel, which outlives every process that tests kill. That a stack's own does
    not is tested in stack/test_servers.py.
    """
    superuser_password = secrets.token_hex(16)
    passwords = {service: secrets.token_hex(16) for service in SERVICES}
    server = PostgresServer(
        directory=session_dir / "postgres",
        port=pick_free_port(),
        password=superuser_password,
        log=session_dir / "postgres.log",
    )
    server.initialise()
    spec = server.spec()
    process = Process(dataclasses.replace(spec, command=(*spec.command, "--fsync=off", "--full-page-writes=off")))
    try:
        process.wait_ready(server.check, timeout_s=30)
        server.ensure_database("with_roles")
        server.apply_roles(_ROLES, passwords, database="with_roles")
        yield Databases(server, superuser_password, passwords)
    finally:
        process.stop()
        server.close()


@pytest.fixture
def database(postgres_server: Databases) -> Iterator[Callable[[str], str]]:
    """`database("ledger")` answers the DSN of a fresh, migrated database, dropped after the test."""
    created = []

    def create(service: str) -> str:
        created.append(postgres_server.create(service))
        return postgres_server.dsn(service, created[-1])

    yield create
    for name in created:
        postgres_server.drop(name)


@pytest.fixture(scope="session")
def valkey_server(session_dir: Path) -> Iterator[ValkeyServer]:
    """A real Valkey for the session; most tests want `valkey_url`."""
    server = ValkeyServer(
        directory=session_dir / "valkey",
        port=pick_free_port(),
        password=secrets.token_hex(16),
        log=session_dir / "valkey.log",
    )
    process = Process(server.spec())
    try:
        process.wait_ready(server.check, timeout_s=15)
        yield server
    finally:
        process.stop()


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """The URL of a real Valkey that holds nothing yet."""
    command_valkey(valkey_server.port, valkey_server.password, "FLUSHALL")
    return valkey_server.url


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[S3Server]":
    """A real S3 server for the session; `s3_bucket` is what most tests want."""
    from tests import s3_server

    with s3_server.running() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a bucket that holds nothing yet, which S3 clients of this process can reach."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{secrets.token_hex(8)}"
    s3_server.client.create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture(scope="session")
def mesh_pki(session_dir: Path) -> CertificateAuthority:
    """A CA with a certificate for each identity: `.ca_file`, `.tls_dir("ledger")`, `.rotate("ledger", now=…)`."""
    authority = CertificateAuthority(session_dir / "pki")
    authority.ensure(now=dt.datetime.now(dt.UTC))
    return authority


@dataclass(frozen=True)
class RunningStack:
    """A whole stack that runs for the session: Envoy, PostgreSQL, Valkey and the services, started by `pagemesh up`.

    Rate limits are off, as many tests share it; tests of the limits start an edge of their own.
    """

    data: DataDir
    state: StackState
    admin: AdminKey

    @property
    def url(self) -> str:
        return self.state.url

    @property
    def host(self) -> str:
        return "localhost"

    @property
    def port(self) -> int:
        return self.state.ports["edge"]

    @property
    def grpc_target(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.data.ca_file

    @property
    def admin_key(self) -> str:
        """Of the tenant `local`, with every scope."""
        return self.admin.secret

    @property
    def superuser_dsn(self) -> str:
        password = load_credentials(self.data).postgres_superuser
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.state.ports['postgres']}/pagemesh"

    def tls_dir(self, identity: str) -> Path:
        return CertificateAuthority(self.data.root / "pki").tls_dir(identity)

    def new_tenant(self, tenant: str) -> str:
        """Another tenant, made if absent; answers a new key with every scope."""
        authority, credentials = CertificateAuthority(self.data.root / "pki"), load_credentials(self.data)
        runner = ServiceRunner(_ROOT, self.data, authority, credentials, self.state.ports, stack_environment())
        return runner.bootstrap(tenant).secret


def stack_environment(**settings: str) -> dict[str, str]:
    """The environment of a stack in tests: nothing of the caller's own settings, and a short wait for the edge."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAGEMESH_")}
    return {**kept, "PAGEMESH_DRAIN_S": "0.2", **settings}


@pytest.fixture(scope="session")
def collector() -> "Iterator[Collector]":
    """Where the stack's spans go."""
    from tests.fakes.collector import collecting

    with collecting() as running:
        yield running


@pytest.fixture(scope="session")
def stack(session_dir: Path, collector: "Collector") -> Iterator[RunningStack]:
    """The whole stack; see RunningStack."""
    data = DataDir(session_dir / "stack")
    environment = stack_environment(PAGEMESH_OTLP_ENDPOINT=collector.endpoint)
    with Supervised(data.root, port=0, rate_limits=False, environment=environment) as running:
        admin = load_admin_key(data)
        assert admin is not None
        yield RunningStack(data, running.state, admin)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder with a short path, for unix sockets and for data directories of whole stacks."""
    directory = Path(tempfile.mkdtemp(prefix="pm-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)
