"""What only Postgres promises of jobs: tenants are walled off, and every list has its index."""

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.summarizer.adapters import postgres_job_queue, postgres_jobs
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from tests.contract.test_summarizer_jobs import IDS, order, submit


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=2)
    yield pool
    await pool.close()


TENANT_TABLES = ("jobs", "job_batches", "job_events", "job_requests")


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(pool: Pool) -> None:
    store = PostgresJobs(pool), PostgresJobQueue(pool)
    await submit(store, order(documents=2, as_batch=True, request_id=str(uuid.uuid4())))
    for table in TENANT_TABLES:
        for tenant, there in (("acme", True), ("globex", False), ("", False)):
            async with pool.connection() as connection, connection.transaction():
                await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
                rows = await (await connection.execute(f"SELECT tenant FROM summarizer.{table}".encode())).fetchall()
                assert bool(rows) is there, (table, tenant)
                assert {row[0] for row in rows} <= {tenant}


async def test_nobody_writes_for_another_tenant(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("SELECT set_config('pagemesh.across', 'jobs', true)")
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(
                "INSERT INTO summarizer.job_batches (tenant, id, last_sequence) VALUES ('globex', %s, 0)", ("a" * 32,)
            )
        await connection.rollback()


LISTS = {"": "jobs_pkey", "state": "jobs_by_state", "batch": "jobs_by_batch", "document": "jobs_by_document"}


async def plan(pool: Pool, query: str, row: dict[str, Any]) -> str:
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        for setting in ("enable_seqscan", "enable_sort"):
            await connection.execute(f"SET LOCAL {setting} = off".encode())
        rows = await (await connection.execute(f"EXPLAIN {query}".encode(), row)).fetchall()
    return "\n".join(line for (line,) in rows)


@pytest.mark.parametrize("chosen", LISTS)
async def test_every_list_has_its_index(pool: Pool, chosen: str) -> None:
    condition, index = postgres_jobs._ONLY.get(chosen, ""), LISTS[chosen]
    row = {"tenant": "acme", "before": "g", "limit": 10, "state": "FAILED", "batch": "b", "document": "d"}
    found = await plan(pool, postgres_jobs._LIST.format(condition), row)
    assert index in found, found


async def test_events_and_claims_have_theirs(pool: Pool) -> None:
    row = {"tenant": "acme", "id": "a", "after": 3, "limit": 10, "priority": 1, "most": 3, "worker": "w", "lease_s": 1}
    # Of the months, that of the job alone; a batch is looked up in the index of each.
    of_job = await plan(pool, postgres_jobs._EVENTS_OF_JOB, {**row, "id": IDS.one()})
    month = f"job_events_{datetime.now(UTC):y%Ym%m}"
    assert f"{month}_pkey" in of_job, of_job
    assert of_job.count("Scan") == 1, of_job
    of_batch = await plan(pool, postgres_jobs._EVENTS_OF_BATCH, row)
    assert f"{month}_by_batch" in of_batch, of_batch
    assert of_batch.count("Scan") == of_batch.count("_by_batch on") <= 6, of_batch
    assert "Merge Append" in of_batch, of_batch
    claiming = await plan(pool, postgres_job_queue._CLAIM, row)
    assert "job_queue_by_due_time" in claiming, claiming
    assert "Sort" not in claiming
