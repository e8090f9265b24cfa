"""What the service and the parent of its parser processes say to each other: records of one size each way."""

import struct
from dataclasses import dataclass
from enum import IntEnum


class CommandKind(IntEnum):
    """FORK travels with the new process's socket; KILL names a process."""

    FORK = 1
    KILL = 2


class EventKind(IntEnum):
    """READY comes once; FORKED in the order of the FORK commands; EXITED once for each process."""

    READY = 1
    FORKED = 2
    EXITED = 3


@dataclass(frozen=True, slots=True)
class Command:
    """From the service."""

    kind: CommandKind
    pid: int = 0

    _RECORD = struct.Struct("<BI")
    SIZE = _RECORD.size

    def pack(self) -> bytes:
        """SIZE bytes."""
        return self._RECORD.pack(self.kind, self.pid)

    @classmethod
    def unpack(cls, record: bytes) -> "Command":
        """The command in SIZE bytes."""
        kind, pid = cls._RECORD.unpack(record)
        return cls(CommandKind(kind), pid)


@dataclass(frozen=True, slots=True)
class Event:
    """To the service. `status` is an exit code, or a signal's number below zero."""

    kind: EventKind
    pid: int
    status: int = 0

    _RECORD = struct.Struct("<BIi")
    SIZE = _RECORD.size

    def pack(self) -> bytes:
        """SIZE bytes."""
        return self._RECORD.pack(self.kind, self.pid, self.status)

    @classmethod
    def unpack(cls, record: bytes) -> "Event":
        """The event in SIZE bytes."""
        kind, pid, status = cls._RECORD.unpack(record)
        return cls(EventKind(kind), pid, status)
