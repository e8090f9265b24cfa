"""What the audit trail speaks of: events, their records in the chain of a tenant, and which of them are meant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

MAX_AHEAD = timedelta(days=1)
"""How far the clock of a service may be ahead of the ledger's before its events have to wait."""
RETENTION_ACTION = "pagemesh.ledger.v1.AuditRetention"
"""The action of the event by which a chain says that its beginning was dropped."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who did what, as the service that answered tells it; the contract's AuditEvent explains each field.

    `tenant` is the bare id, `occur_time` UTC in whole microseconds.
    """

    event_id: UUID
    tenant: str
    occur_time: datetime
    action: str
    request_id: str = ""
    actor: str = ""
    client: str = ""
    resource: str = ""
    code: int = 0
    reason: str = ""
    duration_micros: int = 0
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChainHead:
    """A place in the chain of a tenant and the hash there, 32 bytes. `record_time` is None at place 0, before the
    first record."""

    sequence: int
    hash: bytes
    record_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An event in the chain. `sequence` counts from 1 without gaps; hashes are 32 bytes."""

    event: AuditEvent
    sequence: int
    record_time: datetime
    previous_hash: bytes
    hash: bytes

    @property
    def head(self) -> ChainHead:
        """Its place."""
        return ChainHead(self.sequence, self.hash, self.record_time)


@dataclass(frozen=True, slots=True)
class AuditSelection:
    """Which records of a tenant are meant: `start` is included, `end` is not, empty strings mean all.

    `failed` is None for all, True for those that did not succeed, False for those that did; `code` narrows the former.
    """

    tenant: str
    start: datetime | None = None
    end: datetime | None = None
    actor: str = ""
    action: str = ""
    resource: str = ""
    failed: bool | None = None
    code: int = 0


@dataclass(frozen=True, slots=True)
class AuditCursor:
    """The last record of a part: the next part begins after it."""

    occur_time: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch."""

    recorded: int
    already_known: int
