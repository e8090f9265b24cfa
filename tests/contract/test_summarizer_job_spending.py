"""JobSpending: in memory and on a real Postgres."""

import uuid

from services.database.pool import Pool
from services.summarizer.adapters.memory_job_batches import MemoryBatches
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.adapters.postgres_job_batches import PostgresBatches
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_job_spending import PostgresJobSpending
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.domain.job_ports import JobSpending
from services.summarizer.domain.jobs import JobState
from services.summarizer.domain.values import Money
from tests.contract.test_summarizer_jobs import (
    FAULT,
    RETRIER,
    Store,
    claimed,
    finish,
    job_of,
    order,
    pool,
    store,
    submit,
)

__all__ = ["pool", "store"]  # fixtures


def spending_of(store: Store) -> JobSpending:
    return store[0] if isinstance(store[0], MemoryJobs) else PostgresJobSpending(store[0]._pool)  # type: ignore[attr-defined]


async def test_what_a_job_spends_is_counted_over_its_attempts(store: Store) -> None:
    spending, holds = spending_of(store), [str(uuid.uuid4()) for _ in range(3)]
    (job_id,) = await submit(store, order(max_cost=Money("USD", 100)))
    first = await claimed(store)
    assert (first.max_cost, first.spent_micros) == (Money("USD", 100), 0)
    assert await spending.taken(first, holds[0], 40)
    assert await spending.taken(first, holds[1], 30)
    for _ in range(2):
        await spending.ended("globex", holds[0], 1)
        await spending.ended("acme", holds[0], 7)
    assert (await job_of(store, job_id)).spent_micros == 37
    await store[1].hand_back(first)
    second = await claimed(store)
    assert second.spent_micros == 37, "nobody knows what the other call cost"
    assert not await spending.taken(first, holds[2], 1), "somebody else has the job"
    assert (await job_of(store, job_id)).spent_micros == 37
    await finish(store, second, JobState.FAILED, fault=FAULT)
    assert not await spending.taken(second, holds[2], 1), "it has ended"
    found = await store[0].retry(RETRIER, job_id, limit=10, max_cost=Money("USD", 200))
    assert found is not None
    assert (found[0].max_cost, found[0].spent_micros) == (Money("USD", 200), 37)
    await spending.ended("acme", holds[1], 0)
    assert (await claimed(store)).spent_micros == 7


async def test_a_batch_spends_what_its_jobs_do(store: Store) -> None:
    spending, holds = spending_of(store), [str(uuid.uuid4()) for _ in range(2)]
    ids = await submit(store, order(documents=3, as_batch=True))
    await submit(store, order(documents=1, as_batch=True))
    batch_id = (await job_of(store, ids[0])).batch
    for hold in holds:
        assert await spending.taken(await claimed(store), hold, 40)
    await spending.ended("acme", holds[0], 7)
    batch = await store[0].batch("acme", batch_id)
    assert batch is not None
    assert batch.spent_micros == 47
    batches = MemoryBatches(store[0]) if isinstance(store[0], MemoryJobs) else PostgresBatches(store[0]._pool)  # type: ignore[attr-defined]
    listed = await batches.list("acme", open_only=False, first="", before="g", limit=10)
    assert [one.spent_micros for one in listed] == [0, 47]


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(pool: Pool) -> None:
    both = PostgresJobs(pool), PostgresJobQueue(pool)
    await submit(both, order())
    assert await PostgresJobSpending(pool).taken(await claimed(both), str(uuid.uuid4()), 5)
    for tenant, there in (("acme", True), ("globex", False), ("", False)):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
            rows = await (await connection.execute("SELECT tenant FROM summarizer.job_calls")).fetchall()
            assert bool(rows) is there, tenant
