"""The table of events that was there becomes partitions; months are made ahead and go when they are empty."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from services.database.migrate import migrate
from services.database.pool import Pool, open_pool
from services.summarizer.adapters.postgres_job_event_months import PostgresEventMonths
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.domain.jobs import Priority
from tests.conftest import Databases
from tests.contract.test_summarizer_jobs import order, submit
from tests.old_schema import upgrade_to

_MIGRATIONS = Path(__file__).parents[2] / "services" / "summarizer" / "migrations"
NOW = datetime.now(UTC)
_BEFORE = "0016"
"""The revision that the one of the partitions follows."""
_ALL = (Priority.URGENT, Priority.NORMAL, Priority.BATCH)
_OLD_ROWS = """
    INSERT INTO summarizer.job_events (tenant, job, sequence, batch, batch_sequence, kind, state, attempt, pages_read,
        page_count, chunks_done, chunk_count, fault_kind, fault_reason, fault_message)
    SELECT 't' || n %% 3, lpad(to_hex(%s + n * 3600000::bigint), 12, '0') || lpad(to_hex(n), 20, '0'), s, '', 0,
           'PROGRESS', 'RUNNING', 1, 0, 0, 0, 0, '', '', ''
    FROM generate_series(1, %s) n, generate_series(1, 3) s
"""


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=2)
    yield pool
    await pool.close()


@pytest.fixture
def old_database(postgres_server: Databases) -> Iterator[str]:
    """A summarizer's database before it had partitions, with events of four months."""
    name = postgres_server.create_empty()
    dsn = postgres_server.dsn("summarizer", name)
    upgrade_to(dsn, "summarizer", _BEFORE)
    begun = int((NOW - timedelta(days=100)).timestamp() * 1000)
    with psycopg.connect(dsn) as connection:
        for tenant in range(3):
            connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (f"t{tenant}",))
            connection.execute(f"{_OLD_ROWS} WHERE n %% 3 = {tenant}".encode(), (begun, 2400))
    yield dsn
    postgres_server.drop(name)


async def test_events_of_before_are_the_first_partition(old_database: str) -> None:
    older = await open_pool(old_database, name="older", max_size=2)
    store = PostgresJobs(older), PostgresJobQueue(older)
    # Today's store stands for the older release's; it writes one column more than that one had.
    with psycopg.connect(old_database, autocommit=True) as connection:
        connection.execute("ALTER TABLE summarizer.jobs ADD COLUMN trace text NOT NULL DEFAULT ''")
        (before,) = await submit(store, order(request_id=str(uuid.uuid4())))
        connection.execute("ALTER TABLE summarizer.jobs DROP COLUMN trace")
    migrate(old_database, directory=_MIGRATIONS, schema="summarizer")
    migrate(old_database, directory=_MIGRATIONS, schema="summarizer")
    # Who was connected goes on, with jobs of before and with new ones.
    assert [e.sequence for e in await store[0].events("acme", before, after=0, limit=10)] == [1]
    claim = await store[1].claim(_ALL, worker="w", lease_s=60, most_of_tenant=10)
    assert claim is not None
    assert claim.job_id == before
    assert [e.sequence for e in await store[0].events("acme", before, after=0, limit=10)] == [1, 2]
    await older.close()
    with psycopg.connect(old_database) as connection:
        counted = {}
        for tenant in ("t0", "t1", "t2", "acme", "nobody"):
            connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (tenant,))
            counted[tenant] = {
                table: connection.execute(f"SELECT count(*) FROM summarizer.{table}".encode()).fetchall()[0][0]
                for table in ("job_events", "job_events_before", "job_events_default")
            }
    of_each = {"job_events": 2400, "job_events_before": 2400, "job_events_default": 0}
    assert counted["t0"] == counted["t1"] == counted["t2"] == of_each
    assert counted["acme"] == {"job_events": 2, "job_events_before": 2, "job_events_default": 0}
    assert not any(counted["nobody"].values())


async def partitions(pool: Pool) -> list[str]:
    """Those of months, in their order."""
    async with pool.connection() as connection:
        found = await connection.execute("SELECT name FROM summarizer.job_event_partitions ORDER BY first_job")
        names = [name for (name,) in await found.fetchall()]
        walls = await connection.execute(
            "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND relrowsecurity AND relforcerowsecurity",
            ([*names, "job_events", "job_events_default"],),
        )
        assert len(await walls.fetchall()) == len(names) + 2
    return names


async def test_months_are_made_ahead_and_go_only_when_they_are_over_and_empty(pool: Pool) -> None:
    months = PostgresEventMonths(pool)
    made = await partitions(pool)
    assert len(made) == 4
    assert made[0] == f"job_events_{NOW:y%Ym%m}"
    store = PostgresJobs(pool), PostgresJobQueue(pool)
    (job,) = await submit(store, order())
    later = NOW + timedelta(days=70)
    await months.keep(later)
    await months.keep(later)
    # The month with the job stays; the one after it is over and empty.
    assert made[0] in await partitions(pool)
    assert made[1] not in await partitions(pool)
    assert [e.sequence for e in await store[0].events("acme", job, after=0, limit=10)] == [1]
    assert f"job_events_{later + timedelta(days=80):y%Ym%m}" in await partitions(pool)


async def test_the_clean_up_keeps_months(pool: Pool) -> None:
    queue = PostgresJobQueue(pool)
    await queue.forget(NOW + timedelta(days=40), limit=10)
    assert f"job_events_{NOW + timedelta(days=40 + 80):y%Ym%m}" in await partitions(pool)


async def test_a_month_that_somebody_reads_is_left_for_the_next_time(pool: Pool) -> None:
    made = await partitions(pool)
    later = NOW + timedelta(days=70)
    async with pool.connection() as connection:
        await connection.execute("SELECT FROM summarizer.job_events LIMIT 1")
        await PostgresEventMonths(pool).keep(later)
    assert made[0] in await partitions(pool)
    await PostgresEventMonths(pool).keep(later)
    assert made[0] not in await partitions(pool)


async def test_a_job_of_a_time_that_no_month_was_made_for_is_taken_all_the_same(pool: Pool) -> None:
    store = PostgresJobs(pool), PostgresJobQueue(pool)
    far = NOW + timedelta(days=800)
    stray = f"{int(far.timestamp() * 1000):012x}{1:020x}"
    await store[0].submit(order(), ids=[stray], batch="", limit=10)
    assert [e.sequence for e in await store[0].events("acme", stray, after=0, limit=10)] == [1]
    # Its month cannot be made any more, and the others can.
    await PostgresEventMonths(pool).keep(far - timedelta(days=31))
    names = await partitions(pool)
    assert f"job_events_{far:y%Ym%m}" not in names
    assert f"job_events_{far - timedelta(days=31):y%Ym%m}" in names


async def test_a_number_of_a_job_or_of_a_batch_is_given_once_whatever_the_time(pool: Pool) -> None:
    store = PostgresJobs(pool), PostgresJobQueue(pool)
    job, *_ = await submit(store, order(documents=3, as_batch=True))
    again = """
        INSERT INTO summarizer.job_events (tenant, job, sequence, batch, batch_sequence, kind, state, attempt,
            pages_read, page_count, chunks_done, chunk_count, fault_kind, fault_reason, fault_message, create_time)
        SELECT tenant, %s, %s, batch, %s, kind, state, attempt, pages_read, page_count, chunks_done, chunk_count,
               fault_kind, fault_reason, fault_message, create_time + interval '100 days'
        FROM summarizer.job_events WHERE job = %s
    """
    other = f"{job[:12]}{int(job[12:], 16) + 7:020x}"
    for values, broken in (((job, 1, 9, job), "pkey"), ((other, 1, 1, job), "batch")):
        with pytest.raises(psycopg.errors.UniqueViolation, match=broken):
            async with pool.connection() as connection:
                await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
                await connection.execute(again, values)
