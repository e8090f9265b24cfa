"""What is told of the reading of documents that nobody extracts."""

import structlog
from prometheus_client import Counter, Gauge

from services.extractor.domain.indexer import IndexerSignals

_BACKLOG = Gauge(
    "pagemesh_extractor_index_backlog", "Documents that nobody extracts and that are due to be read for the search."
)
_ENDED = Counter(
    "pagemesh_extractor_index_reads", "Documents that the service read by itself, by how it ended.", ["outcome"]
)

log = structlog.get_logger()


def indexer_signals() -> IndexerSignals:
    """Metrics and logs."""
    return IndexerSignals(
        backlog=_BACKLOG.set,
        ended=lambda outcome: _ENDED.labels(outcome).inc(),
        broken=lambda exc: log.error("index_read_failed", exc_info=exc),
    )
