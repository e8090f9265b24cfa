"""Messages of the audit contract to values of the domain and back, and the lines of an export."""

import json
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from pagemesh.ledger.v1 import audit_pb2
from pagemesh.ledger.v1 import audit_service_pb2 as pb
from services.ledger.api.mapping import time_of, timestamp_of
from services.ledger.domain.audit import AuditEvent, AuditRecord, AuditSelection, ChainHead
from services.ledger.domain.audit_chain import FORMAT

PIECE_BYTES = 256 * 1024
_FAILED = {
    pb.ListEventsRequest.OUTCOME_UNSPECIFIED: None,
    pb.ListEventsRequest.OUTCOME_OK: False,
    pb.ListEventsRequest.OUTCOME_FAILED: True,
}


def event_of(message: audit_pb2.AuditEvent, path: str) -> AuditEvent:
    """What a service tells; `path` is where it stands in the request."""
    return AuditEvent(
        event_id=UUID(message.event_id),
        tenant=message.tenant.removeprefix("tenants/"),
        occur_time=time_of(message.occur_time, f"{path}.occur_time"),
        action=message.action,
        request_id=message.request_id,
        actor=message.actor,
        client=message.client,
        resource=message.resource,
        code=message.code,
        reason=message.reason,
        duration_micros=message.duration_micros,
        details=dict(message.details),
    )


def record_message(record: AuditRecord) -> audit_pb2.AuditRecord:
    """A record as callers see it."""
    event = record.event
    return audit_pb2.AuditRecord(
        event=audit_pb2.AuditEvent(
            event_id=str(event.event_id),
            tenant=f"tenants/{event.tenant}",
            occur_time=timestamp_of(event.occur_time),
            request_id=event.request_id,
            actor=event.actor,
            client=event.client,
            action=event.action,
            resource=event.resource,
            code=event.code,
            reason=event.reason,
            duration_micros=event.duration_micros,
            details=event.details,
        ),
        sequence=record.sequence,
        record_time=timestamp_of(record.record_time),
        previous_hash=record.previous_hash.hex(),
        hash=record.hash.hex(),
    )


def head_message(head: ChainHead) -> audit_pb2.ChainHead:
    """A place in the chain as callers see it."""
    message = audit_pb2.ChainHead(sequence=head.sequence, hash=head.hash.hex())
    if head.record_time is not None:
        message.record_time.CopyFrom(timestamp_of(head.record_time))
    return message


def selection_of(request: pb.ListEventsRequest, tenant: str) -> AuditSelection:
    """Which records are asked for."""
    return AuditSelection(
        tenant=tenant,
        start=time_of(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=time_of(request.end_time, "end_time") if request.HasField("end_time") else None,
        actor=request.actor,
        action=request.action,
        resource=request.resource,
        failed=_FAILED[request.outcome],
        code=request.code,
    )


def begin_line(tenant: str, beginning: ChainHead, *, partial: bool) -> bytes:
    """First line of an export: what its first record follows; `partial` where that was asked for."""
    return _line(
        {
            "kind": "begin",
            "format": FORMAT,
            "tenant": f"tenants/{tenant}",
            "sequence": beginning.sequence,
            "hash": beginning.hash.hex(),
            "partial": partial,
        }
    )


def record_line(record: AuditRecord) -> bytes:
    """One record, with all that its hash is over."""
    event = record.event
    return _line(
        {
            "kind": "record",
            "sequence": record.sequence,
            "record_time": _time(record.record_time),
            "event_id": str(event.event_id),
            "occur_time": _time(event.occur_time),
            "request_id": event.request_id,
            "actor": event.actor,
            "client": event.client,
            "action": event.action,
            "resource": event.resource,
            "code": event.code,
            "reason": event.reason,
            "duration_micros": event.duration_micros,
            "details": dict(event.details),
            "previous_hash": record.previous_hash.hex(),
            "hash": record.hash.hex(),
        }
    )


def head_line(head: ChainHead) -> bytes:
    """Last line of an export: the head of the chain when the export began."""
    return _line({"kind": "head", "sequence": head.sequence, "hash": head.hash.hex()})


def pieces(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Whole lines, joined to at most PIECE_BYTES."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if held and size + len(line) > PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield b"".join(held)


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _line(value: dict[str, object]) -> bytes:
    # ASCII: a character that ends lines for some readers is none here.
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
