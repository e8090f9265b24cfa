"""Records that settle holds, in the form in which `ledger.begin_moves` takes them."""

from services.ledger.domain.values import UsageRecord


def record_columns(record: UsageRecord) -> dict[str, object]:
    """One record of a hold. One JSON value for all of them: an array for each column would cost Python more."""
    event = record.event
    return {
        "event_id": str(event.event_id),
        "hold_id": str(record.hold_id),
        "model": event.model,
        "sent": event.tokens.sent,
        "received": event.tokens.received,
        "operation": event.operation,
        "document": event.document,
        "request_id": event.request_id,
        "occurred": event.occur_time.isoformat(),
        "tags": dict(event.tags),
        "cost": record.cost_micros,
        "version": record.price_book_version,
        "actor": record.actor,
        "recorded": record.record_time.isoformat(),
        "project": record.project,
        "job": event.job,
    }
