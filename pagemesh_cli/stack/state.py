"""What a running stack says of itself, for `status`, `down` and the client verbs."""

import enum
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import DataDir, read_json, write_private
from pagemesh_cli.stack.process import ProcessId


class Phase(enum.StrEnum):
    """Where a stack is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True)
class PartState:
    """One process of the stack."""

    name: str
    port: int
    process: ProcessId | None
    """None while it is down and waits for its restart."""
    started_at: str | None
    """RFC 3339, UTC."""
    restarts: int = 0
    last_exit: str | None = None
    """How it ended last, such as "was killed by SIGKILL"."""


@dataclass(frozen=True)
class StackState:
    """The whole stack."""

    phase: Phase
    supervisor: ProcessId
    ports: dict[str, int]
    parts: tuple[PartState, ...] = field(default=())
    admin_socket: str | None = None
    """Where Envoy answers its operator; None until it is configured."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.ports['edge']}"

    def processes(self) -> list[ProcessId]:
        return [part.process for part in self.parts if part.process is not None]


def save_state(data: DataDir, state: StackState) -> None:
    """Raises StackError where it cannot be written, as on a full disk."""
    try:
        write_private(data.state_file, json.dumps(asdict(state), indent=2) + "\n")
    except OSError as error:
        raise StackError(f"Cannot write {data.state_file}: {error.strerror}.") from error


def load_state(data: DataDir) -> StackState | None:
    """None where no stack has run, or the last one stopped in good order. StackError where the file is damaged."""
    if not data.state_file.exists():
        return None
    try:
        return _decode(read_json(data.state_file))
    except (KeyError, TypeError, ValueError) as error:
        raise StackError(f"{data.state_file} is damaged ({error!r}): remove it once no process of it runs.") from error


def remove_state(data: DataDir) -> None:
    data.state_file.unlink(missing_ok=True)


def _decode(value: dict[str, Any]) -> StackState:
    parts = [
        PartState(**{**part, "process": ProcessId(**part["process"]) if part["process"] else None})
        for part in value["parts"]
    ]
    return StackState(
        phase=Phase(value["phase"]),
        supervisor=ProcessId(**value["supervisor"]),
        ports={str(name): int(port) for name, port in value["ports"].items()},
        parts=tuple(parts),
        admin_socket=value.get("admin_socket"),
    )
