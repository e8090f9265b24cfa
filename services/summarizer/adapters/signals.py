"""What the summarizer's background work and its paid calls tell operators: metrics and log lines."""

import structlog
from prometheus_client import Counter, Gauge

from services.runtime.errors import PagemeshError
from services.summarizer.domain.models import Model
from services.summarizer.domain.outbox_feeder import FeederSignals
from services.summarizer.domain.personal_kinds import Counts
from services.summarizer.domain.ports import Backlog
from services.summarizer.domain.values import Delivery

_CALLS = Counter("pagemesh_summarizer_provider_calls", "Calls to providers, by outcome.", ["provider", "outcome"])
_JOINS = Counter("pagemesh_summarizer_single_flight_joins", "Requests that were answered by another one's run.")
_FAILOVERS = Counter(
    "pagemesh_summarizer_failovers", "Requests that another model was asked for.", ["asked", "instead", "reason"]
)
_DROPPED = Counter("pagemesh_summarizer_savings_dropped", "Events of free answers that were not recorded.")
_DELIVERED = Counter("pagemesh_summarizer_outbox_delivered", "Deliveries that the feeder brought to the ledger.")
_REFUSED = Counter("pagemesh_summarizer_outbox_refused", "Deliveries that the ledger did not take.", ["reason"])
_DEPTH = Gauge("pagemesh_summarizer_outbox_depth", "Deliveries that the ledger has not acknowledged.")
_AGE = Gauge("pagemesh_summarizer_outbox_oldest_seconds", "Age of the oldest of them.")
_PARKED = Gauge("pagemesh_summarizer_outbox_parked", "Deliveries that the ledger refused for good; not in the depth.")

_ANONYMISED = Counter(
    "pagemesh_summarizer_anonymised", "Values that were replaced before text left for a provider, by kind.", ["kind"]
)

log = structlog.get_logger()


def called(model: Model, outcome: str) -> None:
    """A call to a provider ended: `ok` or the reason of its error."""
    _CALLS.labels(model.provider.name, outcome).inc()


def failed_over(asked: Model, instead: Model, reason: str) -> None:
    """A model could not answer, and another one is asked."""
    _FAILOVERS.labels(asked.name, instead.name, reason).inc()
    log.warning("failed_over", asked=asked.name, instead=instead.name, reason=reason)


def anonymised(counts: Counts) -> None:
    """Personal data was replaced in one request."""
    for kind, count in counts.items():
        _ANONYMISED.labels(kind.name.lower()).inc(count)


def joined() -> None:
    """A request joined the run of another one."""
    _JOINS.inc()


def savings_dropped(count: int) -> None:
    """Events of free answers were lost."""
    _DROPPED.inc(count)
    log.warning("savings_dropped", count=count)


def feeder_signals() -> FeederSignals:
    """What the feeder of the outbox calls."""
    return FeederSignals(delivered=_DELIVERED.inc, refused=_refused, parked=_parked, broken=_broken, backlog=_backlog)


def _refused(delivery: Delivery, error: PagemeshError) -> None:
    _REFUSED.labels(error.reason).inc()
    log.warning("outbox_refused", hold_id=delivery.hold_id, reason=error.reason)


def _parked(delivery: Delivery, error: PagemeshError) -> None:
    _REFUSED.labels(error.reason).inc()
    log.error("outbox_parked", hold_id=delivery.hold_id, reason=error.reason)


def _broken(error: Exception) -> None:
    known = isinstance(error, PagemeshError)
    log.error("outbox_round_failed", error=type(error).__name__, exc_info=None if known else error)


def _backlog(backlog: Backlog) -> None:
    _DEPTH.set(backlog.depth)
    _AGE.set(backlog.oldest_age_s)
    _PARKED.set(backlog.parked)
