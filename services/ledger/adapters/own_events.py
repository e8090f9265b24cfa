"""The ledger's own requests in the audit trail: chained here, without the way over an outbox."""

from collections.abc import Awaitable, Callable, Sequence

from services.audit.event import Event
from services.audit.trail import Trail
from services.ledger.domain.audit import AuditEvent
from services.ledger.domain.audit_books import AuditBooks
from services.runtime.call import current_call

OPERATOR = "system/operator"
"""Who acts by the operator's certificate or commands."""


def chaining(books: AuditBooks) -> Callable[[Sequence[Event]], Awaitable[None]]:
    """What a Trail of the ledger keeps its events with."""

    async def keep(events: Sequence[Event]) -> None:
        await books.record([_audit_event(event) for event in events])

    return keep


def telling_of_operator(trail: Trail) -> Callable[[str], Awaitable[None]]:
    """What the operator's present call did to a tenant goes into that tenant's chain, before the call is answered.

    What is answered takes a bare id and raises Unavailable AUDIT_UNAVAILABLE; the event is written later then.
    """

    async def tell(tenant: str) -> None:
        call = current_call()
        event = Event(tenant, call.method.removeprefix("/"), OPERATOR, call.request_id, resource=f"tenants/{tenant}")
        await trail.record(event, durable=True, within_s=call.remaining_s())

    return tell


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
