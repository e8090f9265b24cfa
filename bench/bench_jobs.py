"""The queue of jobs with work that does nothing, against the library that does the same and the barest queue there is.

Three lines. `queue_overhead`: time for each of JOBS empty jobs, from the claim to the end with their events, of one
place that works without pause, against a worker of procrastinate with one place and an empty task, in the same run;
beside it one connection that takes rows of a table with FOR UPDATE SKIP LOCKED and deletes them, a commit for each
step. `submit_to_start`: from the call that submits until a worker that has nothing to do begins, against 100 ms.
`urgent_behind_queue`: the same for urgent jobs while 10,000 others wait and all other places are taken, against the
idle worker. One PostgreSQL with fsync on serves all.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import procrastinate
import psycopg

from bench.own_postgres import own_postgres
from bench.report import report
from services.database.pool import Pool, open_pool
from services.summarizer.adapters.job_bell import PostgresJobBell
from services.summarizer.adapters.job_signals import worker_signals
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.domain.job_ids import JobIds
from services.summarizer.domain.job_work import Doer, Told
from services.summarizer.domain.job_worker import JobWorker, WorkerLimits
from services.summarizer.domain.jobs import Claim, Extracted, ExtractWork, JobState, Order, Priority, Result
from services.summarizer.domain.values import Caller

JOBS = 500
QUEUED = 10_000
STARTS = 50
_ROOT = Path(__file__).parent.parent
_CALLER = Caller("bench", "apiKeys/bench", "", frozenset(), "bench")
_LIMITS = WorkerLimits(places=2, most_of_tenant=1000, lease_s=60, progress_s=1, attempt_s=600, grace_s=0.1, keep_s=3600)
_IDS = JobIds(lambda: datetime.now(UTC))
_NOTHING = Extracted(0, 0, (), 0)
_TAKE = """
    UPDATE bare SET taken = true WHERE id = (
        SELECT id FROM bare WHERE NOT taken ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING id
"""


async def submit(pool: Pool, count: int, priority: Priority = Priority.NORMAL, tenant: str = "bench") -> list[str]:
    """The ids of so many new jobs."""
    documents = tuple(f"documents/{number:032x}" for number in range(count))
    order = Order(replace(_CALLER, tenant=tenant), documents, ExtractWork(), priority, 3)
    ids = _IDS.many(count)
    await PostgresJobs(pool).submit(order, ids=ids, batch="", limit=10**6)
    return ids


async def ours_us(pool: Pool) -> float:
    """Microseconds for each empty job."""
    await submit(pool, JOBS)
    queue = PostgresJobQueue(pool)
    begun = time.perf_counter()
    for _ in range(JOBS):
        claim = await queue.claim(tuple(Priority), worker="w", lease_s=60, most_of_tenant=1000)
        assert claim is not None
        await queue.finish(claim, JobState.SUCCEEDED, result=_NOTHING, fault=None, keep_s=60)
    return (time.perf_counter() - begun) / JOBS * 1e6


async def bare_us(dsn: str) -> float:
    """The same for a row of the peer."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS summarizer.bare (id bigserial PRIMARY KEY, taken boolean)")
        await connection.execute("SET search_path = summarizer")
        await connection.execute("INSERT INTO bare (taken) SELECT false FROM generate_series(1, %s)", (JOBS,))
        begun = time.perf_counter()
        for _ in range(JOBS):
            row = await (await connection.execute(_TAKE)).fetchone()
            assert row is not None
            await connection.execute("DELETE FROM bare WHERE id = %s", row)
        return (time.perf_counter() - begun) / JOBS * 1e6


@contextlib.asynccontextmanager
async def library(dsn: str) -> AsyncIterator[procrastinate.App]:
    """procrastinate with its tables."""
    connector = procrastinate.PsycopgConnector(conninfo=dsn, kwargs={"options": "-c search_path=summarizer"})
    app = procrastinate.App(connector=connector)
    app.task(name="nothing")(nothing)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield app


async def nothing() -> None:
    """An empty job."""


async def library_us(app: procrastinate.App) -> float:
    """The same for a job of the library."""
    await app.configure_task("nothing").batch_defer_async(*[{} for _ in range(JOBS)])
    begun = time.perf_counter()
    await app.run_worker_async(
        concurrency=1, wait=False, listen_notify=False, install_signal_handlers=False, delete_jobs="never"
    )
    return (time.perf_counter() - begun) / JOBS * 1e6


class Starts:
    """Work that says when it began; what is of the flood's tenant stays where it is."""

    def __init__(self) -> None:
        self.begun: dict[str, asyncio.Future[float]] = {}

    async def __call__(self, claim: Claim, told: Told) -> Result:
        if claim.caller.tenant == "flood":
            await asyncio.Event().wait()
        self.begun[claim.job_id].set_result(time.perf_counter())
        return _NOTHING

    async def p50_ms(self, pool: Pool, priority: Priority) -> float:
        """Milliseconds from the submission to the start."""
        taken: list[float] = []
        for _ in range(STARTS):
            order = Order(_CALLER, ("documents/" + "0" * 32,), ExtractWork(), priority, 3)
            job_id = _IDS.one()
            started = self.begun[job_id] = asyncio.get_running_loop().create_future()
            begun = time.perf_counter()
            await PostgresJobs(pool).submit(order, ids=[job_id], batch="", limit=10**6)
            taken.append((await started - begun) * 1000)
            await asyncio.sleep(0.02)
        return float(statistics.median(taken))


@contextlib.asynccontextmanager
async def worker(dsn: str, pool: Pool, do: Doer) -> AsyncIterator[None]:
    """One worker while the block runs."""
    bell, stop = PostgresJobBell(dsn), asyncio.Event()
    one = JobWorker(
        queue=PostgresJobQueue(pool),
        bell=bell,
        do=do,
        limits=_LIMITS,
        signals=worker_signals(),
        name="bench",
        now=lambda: datetime.now(UTC),
        jitter=lambda: 0.5,
    )
    ringing, working = asyncio.create_task(bell.run()), asyncio.create_task(one.run(stop))
    try:
        yield
    finally:
        stop.set()
        await working
        ringing.cancel()


async def main() -> None:
    with own_postgres("summarizer") as dsn:
        pool = await open_pool(dsn, name="bench", min_size=4)
        async with library(dsn) as app:
            rounds = [(await ours_us(pool), await library_us(app), await bare_us(dsn)) for _ in range(5)]
        ours, theirs, bare = (statistics.median(values) for values in zip(*rounds, strict=True))
        detail = {"us_per_job": round(ours), "procrastinate_us": round(theirs), "bare_us": round(bare)}
        report("jobs.queue_overhead", ratio=ours / theirs, goal=3.0, better="lower", detail=detail)
        starts = Starts()
        async with worker(dsn, pool, starts):
            idle_ms = await starts.p50_ms(pool, Priority.URGENT)
            report(
                "jobs.submit_to_start",
                ratio=idle_ms / 100,
                goal=1.0,
                better="lower",
                detail={"p50_ms": round(idle_ms, 2)},
            )
            await submit(pool, QUEUED, tenant="flood")
            await asyncio.sleep(1)  # its two places are taken by now
            busy_ms = await starts.p50_ms(pool, Priority.URGENT)
            detail = {"p50_ms": round(busy_ms, 2), "idle_p50_ms": round(idle_ms, 2), "queued": QUEUED}
            report("jobs.urgent_behind_queue", ratio=busy_ms / idle_ms, goal=2.0, better="lower", detail=detail)
        await pool.close()


if __name__ == "__main__":
    asyncio.run(main())
