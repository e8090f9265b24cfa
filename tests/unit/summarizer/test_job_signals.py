"""What workers tell of the time that documents take."""

from prometheus_client import REGISTRY

from services.summarizer.adapters.job_signals import worker_signals
from services.summarizer.domain.jobs import Claim, Priority
from services.summarizer.domain.values import Caller


def observed() -> float:
    return REGISTRY.get_sample_value("pagemesh_jobs_seconds_count") or 0.0


def test_every_attempt_is_timed_once_whatever_becomes_of_it() -> None:
    signals, before = worker_signals(), observed()
    caller = Caller("acme", "apiKeys/a", "", frozenset(), "request")
    claims = [Claim(caller, "jobs/timed", "documents/d", None, next(iter(Priority)), n, n, 3) for n in (1, 2)]  # type: ignore[arg-type]
    for claim in claims:
        signals.started(claim)
    for claim, outcome in zip(claims, ("SUCCEEDED", "FENCED_OFF"), strict=True):
        signals.ended(claim, outcome, "")
    assert observed() == before + 2
    signals.ended(claims[0], "SUCCEEDED", "")
    assert observed() == before + 2, "what never began has no time"
