"""A stack that runs on after the command which started it has returned."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.preflight import require_free
from pagemesh_cli.stack.process import describe_exit, log_tail, wait_until
from pagemesh_cli.stack.services import find_checkout
from pagemesh_cli.stack.state import Phase, StackState, load_state

UP_TIMEOUT_S = 300.0


def up_command(root: Path, port: int | None, *, rate_limits: bool) -> tuple[str, ...]:
    """The command line of a supervisor: `pagemesh up` in the foreground of its own session."""
    options: Sequence[str] = () if port is None else ("--port", str(port))
    limits = "--rate-limits" if rate_limits else "--no-rate-limits"
    return (sys.executable, "-m", "pagemesh_cli", "up", "--data-dir", str(root), limits, *options)


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
        require_free(8443 if port is None else port)
    log = data.folder("logs") / "supervisor.log"
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        supervisor = subprocess.Popen(  # noqa: S603 - our own command
            up_command(root, port, rate_limits=rate_limits),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it prints the first key, which belongs in no log
            stderr=file,
            start_new_session=True,
        )
    report(f"starting; log in {log}")
    try:
        return _wait_running(data, supervisor, log)
    except BaseException:
        supervisor.terminate()
        supervisor.wait(UP_TIMEOUT_S)
        raise


def _wait_running(data: DataDir, supervisor: "subprocess.Popen[bytes]", log: Path) -> StackState:
    def settled() -> bool:
        state = load_state(data)
        return supervisor.poll() is not None or (
            state is not None and state.phase is Phase.RUNNING and state.supervisor.pid == supervisor.pid
        )

    if not wait_until(settled, timeout_s=UP_TIMEOUT_S, poll_s=0.1):
        raise StackError(f"The stack was not up within {UP_TIMEOUT_S:g} s.{log_tail(log)}")
    state = load_state(data)
    if supervisor.poll() is not None or state is None:
        raise StackError(f"The stack {describe_exit(supervisor.poll())}.{log_tail(log)}")
    return state
