"""What storing pages tells operators: metrics and log lines, without names or text."""

import structlog
from prometheus_client import Counter, Gauge

from services.extractor.domain.page_keeper import KeepingSignals, PageKeeper
from services.runtime.errors import PagemeshError

_STORED = Counter("pagemesh_extractor_stored_pages", "Pages that were stored.")
_BYTES = Counter("pagemesh_extractor_stored_bytes", "Bytes of those pages, before they were compressed.")
_FAILED = Counter("pagemesh_extractor_unstored_pages", "Pages that were sent and could not be stored.")
_WAITING = Gauge("pagemesh_extractor_unwritten_bytes", "Bytes of pages that wait to be stored.")

log = structlog.get_logger()


def keeping_signals() -> KeepingSignals:
    """For the page keeper."""
    return KeepingSignals(stored=_stored, failed=_failed)


def show_waiting(keeper: PageKeeper) -> None:
    """Lets the metrics say what waits in it."""
    _WAITING.set_function(lambda: keeper.waiting_bytes)


def _stored(pages: int, size_bytes: int) -> None:
    _STORED.inc(pages)
    _BYTES.inc(size_bytes)


def _failed(pages: int, error: Exception) -> None:
    _FAILED.inc(pages)
    if isinstance(error, PagemeshError):
        log.warning("pages_not_stored", pages=pages, reason=error.reason)
    else:
        log.error("pages_not_stored", pages=pages, exc_info=error)
