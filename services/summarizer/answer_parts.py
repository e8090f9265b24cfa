"""The clean-up of answers, wired for the worker."""

import random

import structlog
from prometheus_client import Counter

from services.database.pool import Pool
from services.summarizer.adapters.postgres_results import PostgresResults
from services.summarizer.config import WorkerSettings
from services.summarizer.domain.answer_keeping import AnswerCleaner

_FORGOTTEN = Counter(
    "pagemesh_summarizer_answers_forgotten", "Answers that nobody had used for as long as they are kept."
)
_FAULTS = Counter(
    "pagemesh_summarizer_answer_cleanup_faults", "Rounds of their clean-up that failed; each is repeated."
)

log = structlog.get_logger()


def cleaner_of(settings: WorkerSettings, pool: Pool) -> AnswerCleaner:
    """Runs beside the jobs."""
    return AnswerCleaner(
        PostgresResults(pool),
        retention_s=float(settings.answer_retention_s),
        jitter=random.random,
        forgotten=_forgotten,
        failed=_failed,
    )


def _forgotten(count: int) -> None:
    _FORGOTTEN.inc(count)
    log.info("answers_forgotten", count=count)


def _failed(error: Exception) -> None:
    _FAULTS.inc()
    log.warning("answer_cleanup_failed", error=type(error).__name__)
