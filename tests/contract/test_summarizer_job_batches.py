"""What every BatchStore promises, in memory and in Postgres, through the desk that uses it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from services.database.pool import Pool, open_pool
from services.runtime.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from services.summarizer.adapters import postgres_job_batches
from services.summarizer.adapters.memory_job_batches import MemoryBatches
from services.summarizer.adapters.memory_job_notices import MemoryNoticeBook
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.adapters.postgres_job_batches import PostgresBatches
from services.summarizer.adapters.postgres_job_notices import PostgresNoticeBook
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.domain.events import Progress
from services.summarizer.domain.job_batches import BatchDesk, BatchSelection, Moved
from services.summarizer.domain.job_desk import JobLimits
from services.summarizer.domain.job_notices import NoticeBook
from services.summarizer.domain.jobs import Batch, EventKind, JobState, Selection
from services.summarizer.domain.values import Caller
from tests.contract.test_summarizer_job_tables import plan
from tests.contract.test_summarizer_jobs import FAULT, IDS, KEEP_S, Store, claimed, finish, job_of, kinds, order, submit

RETRIER = Caller("acme", "apiKeys/bob", "films", frozenset({"documents.read"}), "call-2")
ALL = BatchSelection()


@dataclass
class Desk:
    store: Store
    batches: BatchDesk
    book: NoticeBook

    async def made(self, documents: int = 3, *, tenant: str = "acme") -> tuple[str, list[str]]:
        """A batch and its jobs."""
        ids = await submit(self.store, order(tenant, documents=documents, as_batch=True))
        return (await job_of(self.store, ids[0], tenant)).batch, ids

    async def listed(self, selection: BatchSelection = ALL, *, size: int = 0, token: str = "") -> list[str]:
        found, _ = await self.batches.list("acme", selection, page_size=size, page_token=token)
        return [batch.batch_id for batch in found]


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    opened = await open_pool(database("summarizer"), name="contract", max_size=8)
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "postgres"])
def desk(request: pytest.FixtureRequest) -> Desk:
    limits = JobLimits(50, 3, KEEP_S)
    if request.param == "memory":
        memory = MemoryJobs(lambda: datetime.now(UTC))
        batches = BatchDesk(store=MemoryBatches(memory), limits=limits)
        return Desk((memory, memory), batches, MemoryNoticeBook(memory))
    pool: Pool = request.getfixturevalue("pool")
    store = PostgresJobs(pool), PostgresJobQueue(pool)
    return Desk(store, BatchDesk(store=PostgresBatches(pool), limits=limits), PostgresNoticeBook(pool))


async def events_of(desk: Desk, batch: str) -> list[tuple[int, str, EventKind]]:
    events = await desk.store[0].batch_events("acme", batch, after=0, limit=1000)
    assert [event.batch_sequence for event in events] == list(range(1, len(events) + 1)), "no gaps"
    return [(event.batch_sequence, event.job_id, event.kind) for event in events]


async def test_a_batch_is_cancelled_at_once_and_again_without_harm(desk: Desk) -> None:
    batch, ids = await desk.made(4)
    other, _ = await desk.made(1)
    done = await claimed(desk.store)
    assert await finish(desk.store, done)
    running = await claimed(desk.store)
    told, count = await desk.batches.cancel("acme", batch)
    assert (count, told.counts) == (3, {JobState.SUCCEEDED: 1, JobState.CANCELLED: 3})
    assert not await finish(desk.store, running), "its worker is fenced off"
    again, count = await desk.batches.cancel("acme", batch)
    assert (count, again) == (0, told)
    events = await events_of(desk, batch)
    assert len(events) == told.last_sequence == 4 + 2 + 1 + 3
    cancelled = [job for job in ids if job != done.job_id]
    assert [job for _, job, kind in events[-3:] if kind is EventKind.ENDED] == cancelled
    assert await kinds(desk.store, cancelled[-1]) == [EventKind.QUEUED, EventKind.ENDED]
    job = await job_of(desk.store, cancelled[-1])
    assert job.end_time is not None
    assert job.expire_time is not None
    assert await desk.listed(BatchSelection(open_only=True)) == [other]
    async with desk.book.feeding() as feeding:
        notices = await feeding.take(100, cost_wait_s=0)
        assert [notice.job_id for notice in notices] == [done.job_id, *cancelled]
        (ended,) = await feeding.ended(notices)
    assert (ended.batch_id, ended.sequence, ended.succeeded, ended.cancelled) == (batch, told.last_sequence, 1, 3)


async def test_what_failed_is_queued_once_more_as_the_callers_own(desk: Desk) -> None:
    batch, ids = await desk.made(3)
    for state in (JobState.FAILED, JobState.SUCCEEDED):
        assert await finish(desk.store, await claimed(desk.store), state, fault=FAULT)
    await desk.store[0].cancel("acme", ids[2], keep_s=KEEP_S)
    (failed,) = [job for job in ids if (await job_of(desk.store, job)).state is JobState.FAILED]
    with pytest.raises(PermissionDenied, match="SCOPE_MISSING"):
        await desk.batches.retry(Caller("acme", "a", "", frozenset(), ""), batch, cancelled=False)
    told, count = await desk.batches.retry(RETRIER, batch, cancelled=False)
    assert (count, told.counts[JobState.QUEUED], told.counts[JobState.CANCELLED]) == (1, 1, 1)
    again = await job_of(desk.store, failed)
    assert (again.actor, again.fault, again.end_time, again.expire_time) == ("apiKeys/bob", None, None, None)
    held = await claimed(desk.store)
    assert (held.job_id, held.attempt, held.caller.actor) == (failed, 2, "apiKeys/bob")
    told, count = await desk.batches.retry(RETRIER, batch, cancelled=True)
    assert (count, told.counts) == (1, {JobState.RUNNING: 1, JobState.SUCCEEDED: 1, JobState.QUEUED: 1})
    assert (await events_of(desk, batch))[-1][2] is EventKind.QUEUED


async def test_a_retry_without_room_queues_nothing(desk: Desk) -> None:
    batch, _ = await desk.made(20)
    await desk.batches.cancel("acme", batch)
    for _ in range(2):
        await desk.made(20)
    with pytest.raises(ResourceExhausted, match="JOB_QUEUE_FULL"):
        await desk.batches.retry(RETRIER, batch, cancelled=True)
    found, _ = await desk.batches.list("acme", ALL, page_size=100, page_token="")
    assert [one.counts for one in found if one.batch_id == batch] == [{JobState.CANCELLED: 20}]


async def test_batches_are_listed_newest_first_in_pages(desk: Desk) -> None:
    made = []
    for number in range(5):
        made.append((await desk.made(1 + number % 2))[0])
    await desk.made(1, tenant="globex")
    await desk.batches.cancel("acme", made[2])
    newest = made[::-1]
    assert await desk.listed() == newest
    first, token = await desk.batches.list("acme", ALL, page_size=2, page_token="")
    assert [batch.batch_id for batch in first] == newest[:2]
    assert first[0].counts == {JobState.QUEUED: 1}
    assert await desk.listed(size=100, token=token) == newest[2:]
    open_ones = BatchSelection(open_only=True)
    assert await desk.listed(open_ones) == [name for name in newest if name != made[2]]
    assert await desk.listed(open_ones, size=2) == [name for name in newest if name != made[2]][:2]
    with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
        await desk.listed(open_ones, token=token)
    second = int(newest[1][:12], 16)
    at = datetime.fromtimestamp(second / 1000, UTC)
    # Several may have been made in one millisecond.
    from_then_on = [name for name in newest if int(name[:12], 16) >= second]
    assert await desk.listed(BatchSelection(start=at)) == from_then_on
    assert await desk.listed(BatchSelection(end=at)) == newest[len(from_then_on) :]
    assert await desk.listed(BatchSelection(start=at + timedelta(hours=1))) == []


async def test_anothers_batch_is_not_there(desk: Desk) -> None:
    batch, _ = await desk.made(1, tenant="globex")
    for asked in (desk.batches.cancel("acme", batch), desk.batches.retry(RETRIER, batch, cancelled=True)):
        with pytest.raises(NotFound, match="BATCH_NOT_FOUND"):
            await asked
    (job,) = await desk.store[0].list("globex", Selection(), before="", limit=2)
    assert job.state is JobState.QUEUED


async def test_the_last_progress_comes_before_the_end(desk: Desk) -> None:
    await submit(desk.store, order())
    held = await claimed(desk.store)
    assert await finish(desk.store, held, progress=Progress(7, 7, 2, 2))
    events = await desk.store[0].events("acme", held.job_id, after=0, limit=10)
    assert [event.kind for event in events][-2:] == [EventKind.PROGRESS, EventKind.ENDED]
    assert events[-2].progress == events[-1].progress == Progress(7, 7, 2, 2)
    assert events[-2].state is JobState.RUNNING
    assert not await finish(desk.store, held, progress=Progress(8, 8, 2, 2))
    assert len(await desk.store[0].events("acme", held.job_id, after=0, limit=10)) == len(events)


async def test_cancelling_and_ending_at_once_ends_each_job_once(pool: Pool) -> None:
    store = PostgresJobs(pool), PostgresJobQueue(pool)
    desk = BatchDesk(store=PostgresBatches(pool), limits=JobLimits(50, 3, KEEP_S))
    ids = await submit(store, order(documents=12, as_batch=True))
    batch = (await job_of(store, ids[0])).batch
    held = [await claimed(store) for _ in range(6)]
    cancels = [desk.cancel("acme", batch) for _ in range(3)]
    outcomes = await asyncio.gather(*(finish(store, one) for one in held), *cancels)
    finished = sum(outcome is True for outcome in outcomes)
    assert finished + sum(outcome[1] for outcome in outcomes if isinstance(outcome, tuple)) == 12
    told: Batch | None = await store[0].batch("acme", batch)
    assert told is not None
    assert told.counts.get(JobState.SUCCEEDED, 0) == finished
    events = await store[0].batch_events("acme", batch, after=0, limit=1000)
    assert [event.batch_sequence for event in events] == list(range(1, 12 + 6 + 12 + 1))


async def test_a_large_batch_is_cancelled_in_few_transactions_along_indexes(pool: Pool) -> None:
    calls = 0

    class Counting(PostgresBatches):
        async def cancel_some(self, *args: object, **values: object) -> Moved:
            nonlocal calls
            calls += 1
            return await super().cancel_some(*args, **values)  # type: ignore[arg-type]

    store = PostgresJobs(pool)
    wanted = order(as_batch=True)
    documents = tuple(f"documents/{number:032x}" for number in range(2_500))
    ids, batch = IDS.many(2_500), IDS.one()
    await store.submit(replace(wanted, documents=documents), ids=ids, batch=batch, limit=20_000)
    _, count = await BatchDesk(store=Counting(pool), limits=JobLimits(50, 3, KEEP_S)).cancel("acme", batch)
    assert (count, calls) == (2_500, 6)
    for _ in range(30):
        await submit((store, PostgresJobQueue(pool)), order(documents=2, as_batch=True))
    async with pool.connection() as connection:
        await connection.execute("ANALYZE summarizer.jobs, summarizer.job_batches")
    row = {"tenant": "acme", "batch": "b", "after": "", "first": "", "before": "g", "limit": 10, "states": ["FAILED"]}
    for statement, indexes in (
        (postgres_job_batches.listing(open_only=False), ("job_batches_pkey", "jobs_by_batch")),
        (postgres_job_batches.listing(open_only=True), ("jobs_open_of_batch", "jobs_by_batch")),
        (postgres_job_batches.SOME_OPEN.encode(), ("jobs_open_of_batch",)),
        (postgres_job_batches.SOME_ENDED.encode(), ("jobs_by_batch",)),
    ):
        found = await plan(pool, statement.decode(), row)
        assert all(index in found for index in indexes), found
