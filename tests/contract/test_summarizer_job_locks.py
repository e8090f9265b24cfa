"""Whoever moves jobs of several batches in Postgres waits for nobody who waits for him."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.database.pool import Pool, open_pool
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.domain.jobs import JobState
from tests.contract.test_summarizer_jobs import (
    DOCUMENTS,
    FAULT,
    KEEP_S,
    Store,
    claimed,
    finish,
    job_of,
    order,
    submit,
)

_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=8)
    yield pool
    await pool.close()


@pytest.fixture
def store(pool: Pool) -> Store:
    return PostgresJobs(pool), PostgresJobQueue(pool)


@asynccontextmanager
async def batches_held(pool: Pool) -> AsyncIterator[Callable[[int], "asyncio.Future[None]"]]:
    """Nobody can move a job of a batch on within the block; what is answered waits until so many try to."""

    async def waiting_now() -> int:
        async with pool.connection() as looking:
            row = await (await looking.execute(_WAITING)).fetchone()
        assert row is not None
        return int(row[0])

    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        await connection.execute("SELECT FROM summarizer.job_batches FOR UPDATE")

        async def wait(count: int) -> None:
            async with asyncio.timeout(60):
                while await waiting_now() != count:
                    await asyncio.sleep(0.01)

        yield lambda count: asyncio.ensure_future(wait(count))


async def test_two_workers_that_recover_jobs_of_the_same_batches_do_not_block_each_other(
    pool: Pool, store: Store
) -> None:
    first = await submit(store, order(documents=3, as_batch=True))
    second = await submit(store, order(documents=3, as_batch=True))
    lost = [first[0], second[0], second[1], first[1]]
    async with pool.connection() as connection:
        for place, job_id in enumerate(lost):
            await connection.execute(
                "UPDATE summarizer.job_queue SET worker = 'w', attempt = 1, tries = 1,"
                " lease_time = now() - interval '1 hour' + make_interval(secs => %s) WHERE job = %s",
                (place, job_id),
            )
    async with batches_held(pool) as waiting:
        # Each takes two at most, one of each batch, in another order.
        recovering = [asyncio.create_task(store[1].recover(FAULT, limit=2, keep_s=KEEP_S)) for _ in range(2)]
        await waiting(2)
    assert await asyncio.gather(*recovering) == [2, 2]
    assert [(await job_of(store, job_id)).state for job_id in lost] == [JobState.QUEUED] * 4
    assert {(await claimed(store)).job_id for _ in range(6)} == {*first, *second}


async def test_jobs_of_a_deleted_document_end_beside_a_worker_that_ends_one_of_them(pool: Pool, store: Store) -> None:
    """Both are of one batch; the worker has the second one, and wants to move its batch on after the first one."""
    ids = await submit(store, order(documents=1, as_batch=True))
    batch = (await job_of(store, ids[0])).batch
    (other,) = await submit(store, order(documents=1, as_batch=True))
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        await connection.execute("UPDATE summarizer.jobs SET batch = %s WHERE id = %s", (batch, other))
    held = {claim.job_id: claim for claim in [await claimed(store), await claimed(store)]}
    async with batches_held(pool) as waiting:
        erasing = asyncio.create_task(store[0].erase("acme", DOCUMENTS[0], FAULT, keep_s=KEEP_S))
        await waiting(1)
        ending = asyncio.create_task(finish(store, held[other]))
        await waiting(2)
    ended, erased = await asyncio.gather(ending, erasing)
    assert (ended, erased) == (False, 2), "who was first has the place in the queue"
    assert [(await job_of(store, job_id)).state for job_id in (ids[0], other)] == [JobState.FAILED] * 2
