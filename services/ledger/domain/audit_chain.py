"""How records are chained, byte for byte as docs/audit.md promises it.

A field is the length of its bytes as 4 bytes, the highest first, and the bytes: UTF-8 for text, decimal digits for
numbers. Lengths in front make the encoding of two different records different. `pagemesh audit verify` has the same
rules written a second time, so that a mistake here is found there.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from services.ledger.domain.audit import AuditEvent, AuditRecord, ChainHead

FORMAT = "pagemesh-audit-v1"

_LENGTH = struct.Struct(">I")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def genesis(tenant: str) -> ChainHead:
    """What the first record of a tenant is chained to."""
    return ChainHead(0, hashlib.sha256(_fields([FORMAT, "genesis", f"tenants/{tenant}"])).digest())


def extend(head: ChainHead, events: Sequence[AuditEvent], now: datetime) -> list[AuditRecord]:
    """The events as the next records of their chain, in their order. Where the clock was set back, the time of the
    record before them stands in for `now`."""
    record_time = now if head.record_time is None else max(now, head.record_time)
    records = []
    for event in events:
        sequence = head.sequence + 1
        digest = hashlib.sha256(head.hash + encode(event, sequence, record_time)).digest()
        records.append(AuditRecord(event, sequence, record_time, head.hash, digest))
        head = records[-1].head
    return records


def encode(event: AuditEvent, sequence: int, record_time: datetime) -> bytes:
    """The bytes of a record that its hash is over, besides the hash before it."""
    return _fields(
        [
            FORMAT,
            f"tenants/{event.tenant}",
            str(sequence),
            str(micros(record_time)),
            str(event.event_id),
            str(micros(event.occur_time)),
            event.request_id,
            event.actor,
            event.client,
            event.action,
            event.resource,
            str(event.code),
            event.reason,
            str(event.duration_micros),
        ]
    ) + _field(_details(event))


def micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def _details(event: AuditEvent) -> bytes:
    # By the bytes of the key, which is the order of code points too.
    if not event.details:
        return b""
    return _fields([part for key in sorted(event.details) for part in (key, event.details[key])])


def _fields(texts: Iterable[str]) -> bytes:
    # Without a function for each field: of every event there are fifteen.
    parts = [text.encode() for text in texts]
    return b"".join([piece for part in parts for piece in (_LENGTH.pack(len(part)), part)])


def _field(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data
