"""Stacks that run beside the command which started them: on their own after it, or only as long as it does."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pagemesh_cli.journal import last_error
from pagemesh_cli.stack.checkout import find_checkout
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.preflight import DEFAULT_PORTS, require_free
from pagemesh_cli.stack.process import Process, ProcessSpec, describe_exit, log_since, log_tail, open_log, wait_until
from pagemesh_cli.stack.state import Phase, StackState, load_state

UP_TIMEOUT_S = 300.0


def up_command(root: Path, port: int | None, *, rate_limits: bool) -> tuple[str, ...]:
    """The command line of a supervisor: `pagemesh up`, which keeps the first key to itself because it writes a log."""
    options: Sequence[str] = () if port is None else ("--port", str(port))
    limits = "--rate-limits" if rate_limits else "--no-rate-limits"
    fixed = ("up", "--as-log", "--hide-key", "--data-dir", str(root))
    return (sys.executable, "-m", "pagemesh_cli", *fixed, limits, *options)


def start_in_background(
    root: Path, port: int | None, *, rate_limits: bool, report: Callable[[str], None]
) -> StackState:
    """Starts a supervisor of its own and waits until the stack is up.

    Raises StackError with the end of its log where it is not; a KeyboardInterrupt meanwhile stops it again.
    """
    find_checkout()
    data = DataDir(root)
    data.prepare()
    if data.is_locked():
        raise StackError(f"A stack is already starting or stopping on {root}. `pagemesh status` shows it.")
    if port != 0:
        require_free(DEFAULT_PORTS["edge"] if port is None else port)
    log = data.folder("logs") / "supervisor.log"
    with open_log(log) as file:
        since = file.tell()
        supervisor = subprocess.Popen(  # noqa: S603 - our own command
            up_command(root, port, rate_limits=rate_limits),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    report(f"starting; log in {log}")
    try:
        return _wait_running(data, supervisor.pid, supervisor.poll, _Written(log, since))
    except BaseException:  # Ctrl-C too: a stack that nobody was told of must not stay behind
        supervisor.terminate()
        supervisor.wait(UP_TIMEOUT_S)
        raise


class Supervised:
    """A whole stack for the time of a `with` block, out of the same command as any other.

    It stops in good order at the end of the block, and also when the process that entered it dies. Raises StackError
    where it cannot start.
    """

    def __init__(self, root: Path, *, port: int, environment: Mapping[str, str], rate_limits: bool = True) -> None:
        """`environment` is the supervisor's whole environment; its PAGEMESH_ settings reach the services."""
        self._data = DataDir(root)
        self._spec = ProcessSpec(
            name="the stack",
            command=up_command(root, port, rate_limits=rate_limits),
            log=root / "logs" / "supervisor.log",
            environment=environment,
            directory=find_checkout(),
            orphan_signal=signal.SIGTERM,
            stop_timeout_s=120.0,
        )

    def __enter__(self) -> "Supervised":
        self._data.prepare()
        begun = time.monotonic()
        written = _Written.from_now(self._spec.log)
        self.process = Process(self._spec)
        try:
            self.state = _wait_running(self._data, self.process.pid, self.process.exit_code, written)
        except BaseException:  # the same
            self.process.stop()
            raise
        self.seconds = time.monotonic() - begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.process.stop() and error is None:
            raise StackError(f"The stack did not stop within {self._spec.stop_timeout_s:g} s and was killed.")


@dataclass(frozen=True)
class _Written:
    """What a supervisor writes into its log, behind what earlier ones wrote."""

    log: Path
    since: int

    @classmethod
    def from_now(cls, log: Path) -> "_Written":
        return cls(log, log.stat().st_size if log.exists() else 0)

    def why(self, otherwise: str) -> str:
        """What the supervisor itself says of its end; `otherwise`, with the log's last lines, if it says nothing."""
        told = last_error(log_since(self.log, self.since))
        return told or f"{otherwise}{log_tail(self.log, since=self.since)}"


def _wait_running(data: DataDir, pid: int, exit_code: Callable[[], int | None], written: _Written) -> StackState:
    def settled() -> bool:
        state = load_state(data)
        running = state is not None and state.phase is Phase.RUNNING and state.supervisor.pid == pid
        return running or exit_code() is not None

    if not wait_until(settled, timeout_s=UP_TIMEOUT_S, poll_s=0.1):
        raise StackError(written.why(f"The stack was not up within {UP_TIMEOUT_S:g} s."))
    state = load_state(data)
    if exit_code() is not None or state is None:
        raise StackError(written.why(f"The stack {describe_exit(exit_code())}."))
    return state
