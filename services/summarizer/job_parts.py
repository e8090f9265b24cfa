"""The parts of jobs, wired: for the service, which takes them in, and for the worker, which does them."""

import random
import uuid
from datetime import UTC, datetime

from services.database.pool import Pool
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.job_bell import PostgresJobBell
from services.summarizer.adapters.job_signals import worker_signals
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_job_spending import PostgresJobSpending
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.config import SummarizerSettings, WorkerSettings
from services.summarizer.domain.ask import StreamAsk
from services.summarizer.domain.extract_fields import ExtractFields
from services.summarizer.domain.job_desk import JobDesk, JobLimits
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.job_standing import Standing
from services.summarizer.domain.job_work import JobWork
from services.summarizer.domain.job_worker import JobWorker, WorkerLimits
from services.summarizer.domain.models import Models
from services.summarizer.domain.ports import PageSource
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.summarize import StreamSummarize


def bell_of(settings: SummarizerSettings) -> PostgresJobBell:
    """Rings once it runs."""
    return PostgresJobBell(settings.database_url.get_secret_value())


def desk_of(
    settings: SummarizerSettings,
    *,
    pool: Pool,
    pages: PageSource,
    models: Models,
    schemas: SchemaBook,
    bell: PostgresJobBell,
) -> JobDesk:
    """Where jobs are handed in."""
    limits = JobLimits(settings.job_queue_limit, settings.job_attempts, float(settings.job_retention_s))
    orders = Orders(models=models, schemas=schemas)
    return JobDesk(
        store=PostgresJobs(pool), bell=bell, orders=orders, pages=pages, act_as=act_as, limits=limits, now=_now
    )


def worker_of(
    settings: WorkerSettings,
    *,
    pool: Pool,
    pages: PageSource,
    standing: Standing,
    stream: StreamSummarize,
    fields: ExtractFields,
    ask: StreamAsk,
    bell: PostgresJobBell,
) -> JobWorker:
    """Who does them."""
    limits = WorkerLimits(
        places=settings.job_places,
        most_of_tenant=settings.job_tenant_places,
        lease_s=settings.job_lease_s,
        progress_s=settings.job_progress_s,
        attempt_s=settings.job_attempt_s,
        grace_s=settings.shutdown_s,
        keep_s=float(settings.job_retention_s),
    )
    return JobWorker(
        queue=PostgresJobQueue(pool),
        bell=bell,
        do=JobWork(
            standing=standing,
            stream=stream,
            fields=fields,
            ask=ask,
            pages=pages,
            spending=PostgresJobSpending(pool),
            act_as=act_as,
        ),
        limits=limits,
        signals=worker_signals(),
        name=str(uuid.uuid4()),
        now=_now,
        jitter=random.random,
    )


def _now() -> datetime:
    return datetime.now(UTC)
