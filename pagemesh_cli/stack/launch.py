"""`pagemesh up`: from an empty directory to a healthy stack, and back."""

import datetime as dt
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pagemesh_cli.stack import edge
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.checkout import WORKER, find_checkout
from pagemesh_cli.stack.credentials import Credentials, ensure_credentials, load_admin_key, store_admin_key
from pagemesh_cli.stack.edge_tracing import EdgeTracing
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.health import Check, checks, pulses
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.logs import rotate_logs
from pagemesh_cli.stack.ports import LOOPBACK, Reservation
from pagemesh_cli.stack.postgres import PostgresServer
from pagemesh_cli.stack.preflight import choose_ports, clear_leftovers, require_packages
from pagemesh_cli.stack.process import ProcessId, ProcessSpec, open_log
from pagemesh_cli.stack.services import DATABASE, ServiceRunner
from pagemesh_cli.stack.state import PartState, Phase, StackState, remove_state, save_state
from pagemesh_cli.stack.supervisor import Part, Supervisor
from pagemesh_cli.stack.valkey import ValkeyServer

_TICK_S = 0.2
_CARE_EVERY_S = 600.0
# sockaddr_un(7) allows 107 bytes.
_LONGEST_SOCKET_PATH = 107
_SERVICE_READY_S = 60.0


class StopRequested(BaseException):
    """SIGINT, SIGTERM or SIGHUP came while the stack was starting. Like KeyboardInterrupt, it is not an error."""


@dataclass(frozen=True)
class UpOptions:
    """What `pagemesh up` was asked for."""

    root: Path
    edge_port: int | None = None
    """None: 8443; 0: any free one."""
    rate_limits: bool = True
    environment: Mapping[str, str] | None = None
    """The caller's settings; None means those of this process."""


class StopSignals:
    """The first signal asks the stack to stop; the second one ends everything at once."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.starting = True
        self.at_once: Callable[[], None] = lambda: None

    @contextmanager
    def handled(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested.is_set():
            self.at_once()
        self.requested.set()
        if self.starting:
            self.starting = False
            raise StopRequested


def run_stack(
    options: UpOptions, report: Callable[[str], None], ready: Callable[[StackState, str | None], None]
) -> bool:
    """Starts the stack, keeps it running until a signal, stops it. Nothing of it runs any more when this returns.

    `ready` is called once all parts are well, with the first admin key's secret where it was made just now. False
    where the signal came before that. Raises StackError where the stack cannot start; what had started is stopped.
    """
    require_packages()
    checkout = find_checkout()
    data = DataDir(options.root)
    for note in data.prepare():
        report(note)
    signals, reservation = StopSignals(), Reservation()
    with data.locked(), signals.handled():
        try:
            clear_leftovers(data, report)
            ports = choose_ports(options.edge_port, reservation)
            _run(Stack(options, data, checkout, ports, report), signals, ready)
        except StopRequested:
            report("it was stopped before everything was up")
            return False
        finally:
            reservation.close()
    return True


def _run(stack: "Stack", signals: StopSignals, ready: Callable[[StackState, str | None], None]) -> None:
    signals.at_once = stack.supervisor.kill
    try:
        secret = stack.start()
        signals.starting = False
        ready(stack.state(Phase.RUNNING), secret)
        stack.watch(signals.requested)
    finally:
        signals.starting = False
        stack.stop()


class Stack:
    """All parts of one stack, wired."""

    def __init__(
        self,
        options: UpOptions,
        data: DataDir,
        checkout: Path,
        ports: Mapping[str, int],
        report: Callable[[str], None],
    ) -> None:
        self._options = options
        self._environment = dict(os.environ if options.environment is None else options.environment)
        self._data = data
        self._checkout = checkout
        self._ports = dict(ports)
        self._pulses = pulses(ports)
        self._report = _undisturbed(report)
        self._phase = Phase.STARTING
        self._parts: tuple[PartState, ...] = ()
        self._authority = CertificateAuthority(data.folder("pki"))
        self._postgres: PostgresServer | None = None
        self._admin_socket_dir: Path | None = None
        self._admin_socket = self._find_admin_socket(data.root / "edge" / "admin.sock")
        self.supervisor = Supervisor(changed=self._on_change, report=self._report)

    def start(self) -> str | None:
        """Everything in order, each part healthy before the next; answers the first admin key if it was made now."""
        # The one time that this must succeed: a stack that nobody can find is not begun.
        save_state(self._data, self.state(self._phase))
        renewed = self._authority.ensure(now=_now())
        if renewed:
            self._report(f"certificates made for {', '.join(renewed)}")
        credentials = ensure_credentials(self._data)
        ask = checks(self._ports, credentials, ca_file=self._data.ca_file, admin_socket=self._admin_socket)
        self._start_stores(credentials, ask)
        runner = ServiceRunner(self._checkout, self._data, self._authority, credentials, self._ports, self._environment)
        runner.migrate()
        self._report("the schemas are up to date")
        secret = self._ensure_admin_key(runner)
        self.supervisor.start(self._service(runner, "ledger", ask), self._service(runner, "extractor", ask))
        self.supervisor.start(self._service(runner, "summarizer", ask), self._service(runner, WORKER, ask))
        self.supervisor.start(
            Part("edge", self._ports["edge"], self._edge_spec, ask["edge"], pulse=self._pulses["edge"])
        )
        self._phase = Phase.RUNNING
        self._save()
        return secret

    def watch(self, stop: threading.Event) -> None:
        """Restarts what dies, renews certificates and turns logs over, until `stop` is set."""
        care_due = time.monotonic() + _CARE_EVERY_S
        while not stop.wait(_TICK_S):
            self.supervisor.tick()
            if time.monotonic() >= care_due:
                self._care()
                care_due = time.monotonic() + _CARE_EVERY_S

    def stop(self) -> None:
        """In reverse order. The edge goes after the services, because it brings their last answers out."""
        self._phase = Phase.STOPPING
        self._save()
        self._report("stopping")
        killed = self.supervisor.stop(
            (WORKER,), ("summarizer",), ("extractor", "ledger"), ("edge",), ("valkey",), ("postgres",)
        )
        for name in killed:
            self._report(f"{name} did not stop in time and was killed")
        if self._postgres is not None:
            self._postgres.close()
        if self._admin_socket_dir is not None:
            shutil.rmtree(self._admin_socket_dir, ignore_errors=True)
        self._forget_state()
        self._report("stopped")

    def state(self, phase: Phase) -> StackState:
        supervisor = ProcessId.of(os.getpid())
        if supervisor is None:
            raise StackError("This system does not tell when a process started, which the stack needs to know.")
        return StackState(
            phase=phase,
            supervisor=supervisor,
            ports=self._ports,
            parts=self._parts,
            admin_socket=str(self._admin_socket),
        )

    def _start_stores(self, credentials: Credentials, ask: Mapping[str, Check]) -> None:
        postgres = self._postgres = PostgresServer(
            directory=self._data.folder("postgres"),
            port=self._ports["postgres"],
            password=credentials.postgres_superuser,
            log=self._data.logs / "postgres.log",
        )
        if postgres.initialise():
            self._report("made the database cluster")
        valkey = ValkeyServer(
            directory=self._data.folder("valkey"),
            port=self._ports["valkey"],
            password=credentials.valkey_password,
            log=self._data.logs / "valkey.log",
        )
        self.supervisor.start(
            Part("postgres", postgres.port, postgres.spec, ask["postgres"], 120.0, self._pulses["postgres"]),
            Part("valkey", valkey.port, valkey.spec, ask["valkey"], pulse=self._pulses["valkey"]),
        )
        postgres.ensure_database(DATABASE)
        roles = self._checkout / "deploy" / "postgres" / "roles.sql"
        postgres.apply_roles(roles, credentials.role_passwords(), database=DATABASE)

    def _ensure_admin_key(self, runner: ServiceRunner) -> str | None:
        if load_admin_key(self._data) is not None:
            return None
        key = runner.bootstrap()
        store_admin_key(self._data, key)
        return key.secret

    def _service(self, runner: ServiceRunner, name: str, ask: Mapping[str, Check]) -> Part:
        return Part(name, self._ports[name], lambda: runner.spec(name), ask[name], _SERVICE_READY_S, self._pulses[name])

    def _edge_spec(self) -> ProcessSpec:
        directory = self._data.folder("edge")
        access_log = self._data.logs / "edge-access.log"
        open_log(access_log).close()  # Envoy itself would make it for everybody to read
        addresses = edge.EdgeAddresses(
            listen=f"{LOOPBACK}:{self._ports['edge']}",
            metrics_listen=f"{LOOPBACK}:{self._ports['edge_admin']}",
            ledger=f"{LOOPBACK}:{self._ports['ledger']}",
            extractor=f"{LOOPBACK}:{self._ports['extractor']}",
            summarizer=f"{LOOPBACK}:{self._ports['summarizer']}",
            tls_dir=self._authority.tls_dir("edge"),
            access_log=access_log,
            trust_domain=self._authority.trust_domain,
            admin_socket=self._admin_socket,
        )
        limits = edge.EdgeLimits() if self._options.rate_limits else edge.EdgeLimits.lifted()
        tracing = EdgeTracing.of_environment(self._environment)
        config = edge.render(directory, addresses=addresses, limits=limits, tracing=tracing)
        return ProcessSpec(
            name="edge",
            command=tuple(edge.command(config)),
            log=self._data.logs / "edge.log",
            environment={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            directory=directory,
        )

    def _find_admin_socket(self, wanted: Path) -> Path:
        """In the data directory; in a short-named private folder where a socket's path would be too long there."""
        if len(os.fsencode(wanted.absolute())) <= _LONGEST_SOCKET_PATH:
            return wanted
        if self._admin_socket_dir is None:
            self._admin_socket_dir = Path(tempfile.mkdtemp(prefix="pagemesh-"))
        return self._admin_socket_dir / "admin.sock"

    def _care(self) -> None:
        """Each of these is tried again in ten minutes; what runs does not depend on it today."""
        for duty in (self._renew_certificates, lambda: rotate_logs(self._data.logs)):
            try:
                duty()
            except (OSError, StackError) as error:
                self._report(f"could not look after certificates or logs: {error}")

    def _renew_certificates(self) -> None:
        for identity in self._authority.ensure(now=_now()):
            self._report(f"renewed the certificate of {identity}")

    def _on_change(self, parts: tuple[PartState, ...]) -> None:
        self._parts = parts
        self._save()

    def _save(self) -> None:
        """A disk that is full neither ends what runs nor keeps it from being stopped."""
        try:
            save_state(self._data, self.state(self._phase))
        except StackError as error:
            self._report(f"{error} `pagemesh status` shows what was true before.")

    def _forget_state(self) -> None:
        try:
            remove_state(self._data)
        except OSError as error:
            self._report(f"Cannot remove {self._data.state_file}: {error.strerror}.")


def _undisturbed(report: Callable[[str], None]) -> Callable[[str], None]:
    """Tells as long as somebody hears: the log may lie on the disk that is full, the terminal may be gone."""

    def tell(text: str) -> None:
        with suppress(OSError):
            report(text)

    return tell


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
