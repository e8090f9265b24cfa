"""What a service tells of a request: who, what, how it ended; never what was in it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pagemesh.ledger.v1 import audit_pb2

_NOTHING: Mapping[str, str] = {}


@dataclass(slots=True)
class Event:
    """The contract's AuditEvent says what each field means; `tenant` is the bare id. Nobody changes it: that it could
    be is for speed, as every call makes one."""

    tenant: str
    action: str
    actor: str
    request_id: str = ""
    client: str = ""
    resource: str = ""
    code: int = 0
    reason: str = ""
    duration_micros: int = 0
    details: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    event_id: uuid.UUID = field(default_factory=uuid.uuid4)
    occur_time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_message(self) -> audit_pb2.AuditEvent:
        """The same for the wire, cut to the contract's bounds: an event that is refused would be lost."""
        message = audit_pb2.AuditEvent(
            event_id=str(self.event_id),
            tenant=f"tenants/{self.tenant}",
            request_id=_clean(self.request_id, 128),
            actor=_clean(self.actor, 200),
            client=self.client,
            action=_clean(self.action, 200),
            resource=_clean(self.resource, 200),
            code=self.code,
            reason=_clean(self.reason, 100),
            duration_micros=max(0, self.duration_micros),
            details=self.details,
        )
        message.occur_time.FromDatetime(self.occur_time)
        return message


def _clean(text: str, longest: int) -> str:
    return text[:longest].replace("\0", "")
