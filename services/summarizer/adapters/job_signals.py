"""What workers tell operators: metrics and log lines."""

import time
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Gauge, Histogram

from services.runtime.errors import PagemeshError
from services.summarizer.domain.job_notices import JobNotice, NoticeBacklog, NoticeSignals
from services.summarizer.domain.job_worker import WorkerSignals
from services.summarizer.domain.jobs import Claim, Forgotten, Waiting

_QUEUED = Gauge("pagemesh_jobs_queued", "Jobs that wait, in the whole deployment.", ["priority"])
_AT_WORK = Gauge("pagemesh_jobs_running", "Jobs that a worker is at, in the whole deployment.", ["priority"])
_AGE = Gauge("pagemesh_jobs_oldest_seconds", "For how long the oldest job that could begin has waited.", ["priority"])
_HERE = Gauge("pagemesh_jobs_here", "Jobs that this worker is at.")
_STARTED = Counter("pagemesh_jobs_started", "Attempts that this worker began.", ["priority"])
_ENDED = Counter("pagemesh_jobs_ended", "Attempts of this worker that ended, by outcome.", ["priority", "outcome"])
_TRIES = Histogram("pagemesh_jobs_tries", "Which attempt it was that succeeded.", buckets=(1, 2, 3, 5, 10, 20))
_SECONDS = Histogram(
    "pagemesh_jobs_seconds",
    "How long attempts took, each with one document.",
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
_RECOVERED = Counter("pagemesh_jobs_recovered", "Jobs that were taken from workers that were lost.")
_FORGOTTEN = Counter("pagemesh_jobs_forgotten", "What the clean-up removed.", ["kind"])
_BROKEN = Counter("pagemesh_jobs_worker_faults", "Faults of the worker itself; each is tried again.", ["step"])
_TOLD = Counter("pagemesh_job_notices_told", "Ends of jobs that the ledger has acknowledged, for webhooks.")
_UNTOLD = Gauge("pagemesh_job_notices_waiting", "Ends of jobs that the ledger has not acknowledged.")
_UNTOLD_AGE = Gauge("pagemesh_job_notices_oldest_seconds", "Age of the oldest of them.")
_UNTOLD_PARKED = Gauge("pagemesh_job_notices_parked", "Ends of jobs that the ledger refused for good.")

log = structlog.get_logger()
_begun: dict[tuple[str, int], float] = {}
"""Since when this process is at an attempt, by job and attempt; as many as it has at a time."""


def worker_signals() -> WorkerSignals:
    """What a worker calls."""
    return WorkerSignals(
        started=_started,
        ended=_ended,
        recovered=_recovered,
        forgotten=_forgotten,
        waiting=_waiting,
        broken=_broken,
    )


def _started(claim: Claim) -> None:
    _begun[claim.job_id, claim.attempt] = time.monotonic()
    _HERE.inc()
    _STARTED.labels(claim.priority.name).inc()
    log.info("job_attempt_started", **_names(claim))


def _ended(claim: Claim, outcome: str, reason: str) -> None:
    _HERE.dec()
    begun = _begun.pop((claim.job_id, claim.attempt), None)
    if begun is not None:
        _SECONDS.observe(time.monotonic() - begun)
    _ENDED.labels(claim.priority.name, outcome).inc()
    if outcome == "SUCCEEDED":
        _TRIES.observe(claim.tries)
    tell = log.warning if outcome in ("FAILED", "UNWRITTEN") else log.info
    tell("job_attempt_ended", **_names(claim), outcome=outcome, reason=reason)


def _names(claim: Claim) -> dict[str, object]:
    caller = claim.caller
    return {
        "job": claim.job_id,
        "tenant": caller.tenant,
        "actor": caller.actor,
        "request_id": caller.request_id,
        "document": claim.document,
        "attempt": claim.attempt,
    }


def _recovered(count: int) -> None:
    _RECOVERED.inc(count)
    log.warning("jobs_recovered", count=count)


def _forgotten(found: Forgotten) -> None:
    for kind, count in (("jobs", found.jobs), ("events", found.events), ("batches", found.batches)):
        _FORGOTTEN.labels(kind).inc(count)
    log.info("jobs_forgotten", jobs=found.jobs, events=found.events, batches=found.batches)


def _waiting(queues: Sequence[Waiting]) -> None:
    for queue in queues:
        _QUEUED.labels(queue.priority.name).set(queue.queued)
        _AT_WORK.labels(queue.priority.name).set(queue.running)
        _AGE.labels(queue.priority.name).set(queue.oldest_age_s)


def _broken(step: str, error: Exception) -> None:
    _BROKEN.labels(step).inc()
    known = isinstance(error, PagemeshError)
    log.error("job_worker_fault", step=step, error=type(error).__name__, exc_info=None if known else error)


def limit_unknown(tenant: str, error: Exception) -> None:
    """The plan of a tenant could not be asked for; nothing of it where no limit could be kept."""
    known = isinstance(error, PagemeshError)
    reason = getattr(error, "reason", type(error).__name__)
    log.warning("job_limit_unknown", tenant=tenant, reason=reason, exc_info=None if known else error)


def notice_signals() -> NoticeSignals:
    """What the feeder of notices calls."""
    return NoticeSignals(told=_TOLD.inc, parked=_notice_parked, broken=_notices_broken, backlog=_notices_backlog)


def _notice_parked(notice: JobNotice, error: PagemeshError) -> None:
    log.error("job_notice_parked", tenant=notice.tenant, job=notice.job_id, reason=error.reason)


def _notices_broken(error: Exception) -> None:
    known = isinstance(error, PagemeshError | TimeoutError)
    reason = getattr(error, "reason", type(error).__name__)
    log.warning("job_notices_failed", reason=reason, exc_info=None if known else error)


def _notices_backlog(backlog: NoticeBacklog) -> None:
    _UNTOLD.set(backlog.depth)
    _UNTOLD_AGE.set(backlog.oldest_age_s)
    _UNTOLD_PARKED.set(backlog.parked)
