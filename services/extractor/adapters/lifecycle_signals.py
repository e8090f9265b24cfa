"""What erasing tells operators: metrics and log lines, without names or text."""

import structlog
from prometheus_client import Counter, Gauge

from services.extractor.domain.keeping import Backlog
from services.extractor.domain.lifecycle import LifecycleSignals
from services.extractor.domain.receipts import DeletionReceipt
from services.runtime.errors import PagemeshError

_DELETED = Counter("pagemesh_extractor_documents_deleted", "Documents that were erased, by cause.", ["cause"])
_FAILED = Counter("pagemesh_extractor_lifecycle_failures", "Steps of the lifecycle worker that failed.", ["step"])
_WAITING = Gauge(
    "pagemesh_extractor_erasures_waiting", "Documents whose time has come or whose deletion is unfinished."
)
_AGE = Gauge("pagemesh_extractor_erasures_oldest_seconds", "How long the first of them has been waiting.")

log = structlog.get_logger()


def deleted(receipt: DeletionReceipt) -> None:
    """A document was erased."""
    _DELETED.labels(receipt.cause.value).inc()
    log.info(
        "document_deleted",
        tenant=receipt.tenant,
        document=receipt.document,
        receipt=receipt.name,
        cause=receipt.cause.value,
        actor=receipt.actor,
        objects=receipt.objects_deleted,
        pages=receipt.pages_deleted,
        index_entries=receipt.index_entries_deleted,
        results=receipt.results_deleted,
        digest=receipt.digest,
    )


def lifecycle_signals() -> LifecycleSignals:
    """For the lifecycle worker."""
    return LifecycleSignals(backlog=_backlog, failed=_failed)


def _backlog(backlog: Backlog) -> None:
    _WAITING.set(backlog.waiting)
    _AGE.set(backlog.oldest_age_s)


def _failed(step: str, error: Exception) -> None:
    _FAILED.labels(step).inc()
    if isinstance(error, PagemeshError):
        log.warning("lifecycle_failed", step=step, reason=error.reason, waits_for=error.metadata.get("waits_for", ""))
    else:
        log.error("lifecycle_failed", step=step, exc_info=error)
