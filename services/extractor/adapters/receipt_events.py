"""Deletion receipts in the audit trail, which tells in its chain what was erased and with which digest."""

from services.audit.event import Event
from services.audit.outbox import event_id_of
from services.extractor.domain.receipts import DeletionReceipt
from services.runtime.call import current_call

ACTION = "pagemesh.extractor.v1.DeletionReceipt"
_NOBODY = "system/lifecycle"


def receipt_event(receipt: DeletionReceipt) -> Event:
    """The event of a receipt; the same receipt is the same event."""
    return Event(
        tenant=receipt.tenant,
        action=ACTION,
        actor=receipt.actor or _NOBODY,
        request_id=_request_id(),
        resource=receipt.document,
        details={
            "receipt": receipt.name,
            "digest": receipt.digest,
            "cause": receipt.cause.value,
            "size_bytes": str(receipt.size_bytes),
            "objects_deleted": str(receipt.objects_deleted),
            "pages_deleted": str(receipt.pages_deleted),
            "index_entries_deleted": str(receipt.index_entries_deleted),
            "results_deleted": str(receipt.results_deleted),
        },
        event_id=event_id_of(receipt.id),
        occur_time=receipt.delete_time,
    )


def _request_id() -> str:
    """That of the call which erased it; empty where its time had come, or it was completed later."""
    try:
        return current_call().request_id
    except LookupError:
        return ""
