"""Processes that are started, watched and stopped without ever leaving one behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pagemesh_cli.stack.errors import StackError

_LEASH = Path(__file__).with_name("leash.py")
_POLL_S = 0.02
_LOG_READ_BYTES = 64 * 1024
_LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class Account:
    """A user to run as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from a later one that was given the same number."""

    pid: int
    start_mark: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The process that has this number now; None where none is running."""
        mark = _start_mark(pid)
        return None if mark is None else cls(pid, mark)

    def alive(self) -> bool:
        return _start_mark(self.pid) == self.start_mark

    def terminate(self) -> None:
        """Asks it to stop; a process that is gone is not an error."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):  # it ended in between
                os.kill(self.pid, number)

    def wait_gone(self, timeout_s: float) -> bool:
        """True as soon as the process has ended, False after `timeout_s`."""
        return wait_until(lambda: not self.alive(), timeout_s=timeout_s)


def _start_mark(pid: int) -> str | None:
    if sys.platform != "linux":
        return _start_mark_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the name may hold blanks and brackets, so count fields from its last bracket; 3 is state, 22 starttime.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _start_mark_ps(pid: int) -> str | None:
    result = subprocess.run(  # noqa: S603 - a fixed program and a number
        ["/bin/ps", "-o", "lstart=,state=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=5,
    )
    mark, _, state = result.stdout.strip().rpartition(" ")
    return None if not mark or state.startswith("Z") else mark.strip()


def wait_until(condition: Callable[[], bool], *, timeout_s: float, poll_s: float = _POLL_S) -> bool:
    """Polls until the condition holds (True) or `timeout_s` have passed (False)."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


@dataclass(frozen=True)
class ProcessSpec:
    """How to run and how to stop one process."""

    name: str
    command: tuple[str, ...]
    log: Path
    # The whole environment; nothing is inherited. Never secrets in `command`: everybody can list it.
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    account: Account | None = None
    inherit_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    # Sent by the kernel when the process that started this one dies, however it dies.
    orphan_signal: signal.Signals = signal.SIGKILL
    stop_timeout_s: float = 10.0


class Process:
    """A running process. It leads its own session, so that a Ctrl-C at the terminal reaches only its starter."""

    def __init__(self, spec: ProcessSpec) -> None:
        """Starts it; its output is appended to `spec.log` (0600).

        Start it from the main thread: the kernel ties a child to the thread that made it.
        """
        self.spec = spec
        with open_log(spec.log) as log:
            self._log_begin = log.tell()
            self._popen = subprocess.Popen(  # noqa: S603 - commands come from the stack, not from input
                leashed(spec.command, account=spec.account, orphan_signal=spec.orphan_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(spec.environment),
                cwd=spec.directory,
                pass_fds=spec.inherit_fds,
                start_new_session=True,
            )
        # None where it ended before it could be looked at: then poll() says so.
        self.id = ProcessId.of(self._popen.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        return self._popen.poll()

    def wait_ready(self, check: Callable[[], None], *, timeout_s: float) -> None:
        """Waits until `check` no longer raises OSError.

        Raises StackError with the end of the log where the process ends first or `timeout_s` pass.
        """
        problem = "not asked yet"

        def ready() -> bool:
            nonlocal problem
            if self.exit_code() is not None:
                raise StackError(f"{self.spec.name} {describe_exit(self.exit_code())}.{self.log_tail()}")
            try:
                check()
            except OSError as error:
                problem = str(error)
                return False
            return True

        if not wait_until(ready, timeout_s=timeout_s, poll_s=0.05):
            raise StackError(f"{self.spec.name} was not ready within {timeout_s:g} s ({problem}).{self.log_tail()}")

    def request_stop(self) -> None:
        if self.exit_code() is None:
            self._popen.send_signal(self.spec.stop_signal)

    def kill(self) -> None:
        """Ends it and everything in its process group at once, without waiting: a signal handler may call it."""
        # Nothing may be left of the group; macOS says EPERM where only a zombie is.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> bool:
        """Asks it to stop, then kills it after `stop_timeout_s`; True where asking was enough.

        What it left in its process group is killed as well.
        """
        self.request_stop()
        try:
            self._popen.wait(self.spec.stop_timeout_s)
            clean = True
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait(self.spec.stop_timeout_s)
            clean = False
        self.kill()
        return clean

    def log_tail(self) -> str:
        """The last lines that it logged, indented, with the log's path; empty where there are none."""
        return log_tail(self.spec.log, since=self._log_begin)

    def log_written(self) -> str:
        """The end of what it logged, 64 KiB at most."""
        return log_since(self.spec.log, self._log_begin)


def leashed(command: tuple[str, ...], *, account: Account | None, orphan_signal: signal.Signals) -> list[str]:
    """The command line that runs `command` so that it dies with its starter (Linux) and as `account`."""
    user = "-" if account is None else f"{account.uid}:{account.gid}"
    leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), str(int(orphan_signal)), user]
    return [*leash, *command]


def describe_exit(code: int | None) -> str:
    if code is None:
        return "is running"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def log_tail(log: Path, *, since: int = 0) -> str:
    """The last lines that were written after the first `since` bytes, indented, with the log's path; or nothing."""
    lines = log_since(log, since).splitlines()[-_LOG_TAIL_LINES:]
    return "".join(f"\n    {line}" for line in [f"{log} ends with:", *lines]) if lines else ""


def log_since(log: Path, since: int) -> str:
    """What was written after the first `since` bytes, the last 64 KiB of it; all of a log that was turned over."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        begin = since if since <= size else 0
        file.seek(max(begin, size - _LOG_READ_BYTES))
        return file.read().decode(errors="replace")


def open_log(log: Path) -> BinaryIO:
    """Opens the log for appending; only its owner may read it, also where it was made otherwise before."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")
