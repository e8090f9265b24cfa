"""What every NoticeBook promises, in memory and in Postgres, and the feeder that empties it."""

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import pytest

from services.database.pool import Pool, open_pool
from services.runtime.errors import InvalidArgument, Unavailable
from services.summarizer.adapters.memory_job_notices import MemoryNoticeBook
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.adapters.postgres_job_notices import ENDED, PostgresNoticeBook
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.adapters.postgres_results import PostgresOutbox
from services.summarizer.domain.events import Progress
from services.summarizer.domain.job_notices import (
    BatchNotice,
    JobNotice,
    NoticeBacklog,
    NoticeBook,
    NoticeFeeder,
    NoticeSignals,
)
from services.summarizer.domain.jobs import JobState
from services.summarizer.domain.values import Caller, Delivery, TokenCount, UsageEvent
from tests.contract.test_summarizer_job_tables import plan
from tests.contract.test_summarizer_jobs import FAULT, KEEP_S, RETRIER, Store, claimed, finish, order, submit


@dataclass
class Ears:
    """An announcer that hears; `refuses` are jobs that it never takes."""

    jobs: list[JobNotice] = field(default_factory=list)
    batches: list[BatchNotice] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    deaf: int = 0

    async def announce(self, jobs: Sequence[JobNotice], batches: Sequence[BatchNotice]) -> None:
        if self.deaf:
            self.deaf -= 1
            raise Unavailable("PEER_DOWN", "It is down.")
        if any(notice.job_id in self.refuses for notice in jobs):
            raise InvalidArgument("INVALID_REQUEST", "No.")
        self.jobs += jobs
        self.batches += batches


@dataclass
class Desk:
    store: Store
    book: NoticeBook
    owe: Callable[[str], object]
    ears: Ears = field(default_factory=Ears)
    backlogs: list[NoticeBacklog] = field(default_factory=list)

    async def feed(self) -> int:
        signals = NoticeSignals(lambda _: None, lambda *_: None, lambda _: None, self.backlogs.append)
        feeder = NoticeFeeder(book=self.book, announcer=self.ears, jitter=lambda: 0.0, signals=signals)
        return await feeder.feed_once()


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    opened = await open_pool(database("summarizer"), name="contract", max_size=4)
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "postgres"])
def desk(request: pytest.FixtureRequest) -> Desk:
    if request.param == "memory":
        memory = MemoryJobs(lambda: datetime.now(UTC))
        book = MemoryNoticeBook(memory)

        async def owe_in_memory(job_id: str) -> None:
            book.owing.add(job_id)

        return Desk((memory, memory), book, owe_in_memory)
    pool: Pool = request.getfixturevalue("pool")

    owe = partial(owed_by, pool)
    return Desk((PostgresJobs(pool), PostgresJobQueue(pool)), PostgresNoticeBook(pool), owe)


async def owed_by(pool: Pool, job_id: str) -> None:
    """A call of the job that the ledger has not heard of."""
    caller = Caller("acme", "apiKeys/a", "", frozenset(), "call-1")
    event = UsageEvent(
        str(uuid.uuid4()), "a/b", TokenCount(1, 1), "summarize", "documents/d", "call-1", 0.0, f"jobs/{job_id}"
    )
    await PostgresOutbox(pool).add(Delivery(str(uuid.uuid4()), caller, event))


async def test_each_way_to_end_is_told_once(desk: Desk) -> None:
    done, failed, cancelled, _ = [(await submit(desk.store, order()))[0] for _ in range(4)]
    held = await claimed(desk.store)
    await desk.store[1].beat(held, lease_s=60, progress=Progress(2, 3, 0, 0))
    assert await finish(desk.store, held)
    assert await finish(desk.store, await claimed(desk.store), JobState.FAILED, fault=FAULT)
    await desk.store[0].cancel("acme", cancelled, keep_s=KEEP_S)
    assert await desk.feed() == 3
    told = [(n.job_id, n.state, n.reason, n.attempts, n.pages_read, n.page_count) for n in desk.ears.jobs]
    assert told == [
        (done, JobState.SUCCEEDED, "", 1, 2, 3),
        (failed, JobState.FAILED, "PEER_DOWN", 1, 0, 0),
        (cancelled, JobState.CANCELLED, "", 0, 0, 0),
    ]
    assert {notice.tenant for notice in desk.ears.jobs} == {"acme"}
    assert (await desk.feed(), desk.backlogs[-1].depth) == (0, 0)
    # What is done once more ends once more, under another number.
    assert await desk.store[0].retry(RETRIER, failed, limit=100) is not None
    held = await claimed(desk.store)
    assert await finish(desk.store, await claimed(desk.store))
    assert await desk.feed() == 1
    assert desk.ears.jobs[-1].sequence > desk.ears.jobs[1].sequence
    # Whoever is fenced off tells nothing.
    await desk.store[0].cancel("acme", held.job_id, keep_s=KEEP_S)
    assert not await finish(desk.store, held)
    assert await desk.feed() == 1


async def test_a_batch_is_told_of_when_its_last_job_has_ended(desk: Desk) -> None:
    ids = await submit(desk.store, order(documents=3, as_batch=True))
    await submit(desk.store, order("globex"))
    assert await finish(desk.store, await claimed(desk.store))
    await desk.store[0].cancel("acme", ids[2], keep_s=KEEP_S)
    await desk.feed()
    assert desk.ears.batches == []
    for _ in range(2):
        assert await finish(desk.store, await claimed(desk.store))
    await desk.feed()
    (told,) = desk.ears.batches
    job = await desk.store[0].get("acme", ids[0])
    assert job is not None
    batch = await desk.store[0].batch("acme", job.batch)
    assert batch is not None
    assert (told.tenant, told.batch_id, told.sequence) == ("acme", batch.batch_id, batch.last_sequence)
    assert (told.succeeded, told.failed, told.cancelled) == (2, 0, 1)


async def test_a_batch_is_told_of_when_the_ledger_knows_what_its_jobs_cost(desk: Desk) -> None:
    owing, other = await submit(desk.store, order(documents=2, as_batch=True))
    await desk.owe(owing)  # type: ignore[misc]
    for _ in range(2):
        assert await finish(desk.store, await claimed(desk.store))
    assert await desk.feed() == 1
    assert ([notice.job_id for notice in desk.ears.jobs], desk.ears.batches) == ([other], [])
    async with desk.book.feeding() as feeding:
        taken = await feeding.take(10, cost_wait_s=-1)
        (told,) = await feeding.ended(taken)
    assert ([notice.job_id for notice in taken], told.succeeded, told.cost_micros) == ([owing], 2, 0)


async def test_two_that_feed_at_once_do_not_leave_a_batch_untold(pool: Pool) -> None:
    """Each has one of its jobs, and one of these owes something by now."""
    store, book = (PostgresJobs(pool), PostgresJobQueue(pool)), PostgresNoticeBook(pool)
    await submit(store, order(documents=2, as_batch=True))
    for _ in range(2):
        assert await finish(store, await claimed(store))
    async with book.feeding() as first, book.feeding() as second:
        mine = await first.take(1, cost_wait_s=60)
        theirs = await second.take(1, cost_wait_s=60)
        assert mine[0].job_id != theirs[0].job_id
        await owed_by(pool, theirs[0].job_id)
        assert len(await first.ended(mine)) == 1


async def test_an_end_waits_until_the_ledger_knows_what_it_cost(desk: Desk) -> None:
    owing, paid = [(await submit(desk.store, order()))[0] for _ in range(2)]
    await desk.owe(owing)  # type: ignore[misc]
    for _ in range(2):
        assert await finish(desk.store, await claimed(desk.store))
    assert await desk.feed() == 1
    assert [notice.job_id for notice in desk.ears.jobs] == [paid]
    async with desk.book.feeding() as feeding:
        assert [n.job_id for n in await feeding.take(10, cost_wait_s=-1)] == [owing], "but not for ever"


async def test_what_the_ledger_did_not_hear_is_told_again_and_what_it_refuses_is_parked(desk: Desk) -> None:
    ids = [(await submit(desk.store, order()))[0] for _ in range(5)]
    for _ in ids:
        assert await finish(desk.store, await claimed(desk.store))
    desk.ears.deaf, desk.ears.refuses = 1, {ids[3]}
    with pytest.raises(Unavailable):
        await desk.feed()
    assert await desk.feed() == 5
    assert [notice.job_id for notice in desk.ears.jobs] == [ids[0], ids[1], ids[2], ids[4]]
    assert (desk.backlogs[-1].depth, desk.backlogs[-1].parked, await desk.feed()) == (0, 1, 0)


async def test_notices_of_others_are_hidden_and_open_jobs_of_a_batch_have_an_index(pool: Pool) -> None:
    store = PostgresJobs(pool), PostgresJobQueue(pool)
    await submit(store, order())
    assert await finish(store, await claimed(store))
    for tenant in ("acme", "globex", ""):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
            found = await (await connection.execute("SELECT tenant FROM summarizer.job_notices")).fetchall()
            assert found == [], "tenants hear of them by their webhooks"
    shown = await plan(pool, ENDED, {"tenant": "acme", "batches": ["b"]})
    assert "jobs_open_of_batch" in shown, shown
