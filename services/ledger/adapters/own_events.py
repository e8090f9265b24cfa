"""The ledger's own requests in the audit trail: chained here, without the way over an outbox."""

from collections.abc import Awaitable, Callable, Sequence

from services.audit.event import Event
from services.ledger.domain.audit import AuditEvent
from services.ledger.domain.audit_books import AuditBooks


def chaining(books: AuditBooks) -> Callable[[Sequence[Event]], Awaitable[None]]:
    """What a Trail of the ledger keeps its events with."""

    async def keep(events: Sequence[Event]) -> None:
        await books.record([_audit_event(event) for event in events])

    return keep


def _audit_event(event: Event) -> AuditEvent:
    # By way of the message, which has the contract's bounds.
    message = event.to_message()
    return AuditEvent(
        event_id=event.event_id,
        tenant=event.tenant,
        occur_time=event.occur_time,
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
