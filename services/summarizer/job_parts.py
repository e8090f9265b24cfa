"""The parts of jobs, wired: for the service, which takes them in, and for the worker, which does them."""

import random
import uuid
from datetime import UTC, datetime

from services.database.pool import Pool
from services.runtime.clients import MeshClient
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.job_bell import PostgresJobBell
from services.summarizer.adapters.job_signals import limit_unknown, notice_signals, worker_signals
from services.summarizer.adapters.ledger_events import LedgerAnnouncer
from services.summarizer.adapters.ledger_plans import LedgerPlans
from services.summarizer.adapters.postgres_job_batches import PostgresBatches
from services.summarizer.adapters.postgres_job_limits import PostgresLimits
from services.summarizer.adapters.postgres_job_notices import PostgresNoticeBook
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_job_spending import PostgresJobSpending
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.adapters.work_spans import spanned_work
from services.summarizer.api.job_servicer import JobServicer
from services.summarizer.config import SummarizerSettings, WorkerSettings
from services.summarizer.domain.ask import StreamAsk
from services.summarizer.domain.estimate_jobs import EstimateJobs
from services.summarizer.domain.estimates import Estimator
from services.summarizer.domain.extract_fields import ExtractFields
from services.summarizer.domain.job_batches import BatchDesk
from services.summarizer.domain.job_desk import JobDesk, JobLimits
from services.summarizer.domain.job_limits import LimitKeeper
from services.summarizer.domain.job_notices import NoticeFeeder
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


def orders_of(settings: SummarizerSettings, *, models: Models, schemas: SchemaBook) -> Orders:
    """What checks work before it is accepted."""
    return Orders(models=models, schemas=schemas, policy=settings.personal_data())


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
    orders = orders_of(settings, models=models, schemas=schemas)
    return JobDesk(
        store=PostgresJobs(pool),
        bell=bell,
        orders=orders,
        pages=pages,
        act_as=act_as,
        limits=_limits(settings),
        now=_now,
    )


def batches_of(settings: SummarizerSettings, pool: Pool) -> BatchDesk:
    """Where batches are looked after."""
    return BatchDesk(store=PostgresBatches(pool), limits=_limits(settings))


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
        do=spanned_work(
            JobWork(
                standing=standing,
                stream=stream,
                fields=fields,
                ask=ask,
                pages=pages,
                spending=PostgresJobSpending(pool),
                act_as=act_as,
            )
        ),
        limits=limits,
        signals=worker_signals(),
        name=str(uuid.uuid4()),
        now=_now,
        jitter=random.random,
    )


def limits_of(pool: Pool, ledger: MeshClient) -> LimitKeeper:
    """Who asks how many jobs of each tenant may run."""
    return LimitKeeper(book=PostgresLimits(pool), plans=LedgerPlans(ledger), failed=limit_unknown)


def servicer_of(
    desk: JobDesk, settings: SummarizerSettings, pool: Pool, *, estimator: Estimator, orders: Orders
) -> JobServicer:
    """Who answers for jobs."""
    estimates = EstimateJobs(estimator, orders=orders)
    return JobServicer(desk, batches_of(settings, pool), PostgresLimits(pool), estimates)


def notices_of(pool: Pool, ledger: MeshClient) -> NoticeFeeder:
    """Who tells the ledger how jobs ended. In the service and in workers: whoever lives does it."""
    return NoticeFeeder(
        book=PostgresNoticeBook(pool),
        announcer=LedgerAnnouncer(ledger),
        jitter=random.random,
        signals=notice_signals(),
    )


def _limits(settings: SummarizerSettings) -> JobLimits:
    return JobLimits(settings.job_queue_limit, settings.job_attempts, float(settings.job_retention_s))


def _now() -> datetime:
    return datetime.now(UTC)
