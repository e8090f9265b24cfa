"""JobStore and JobQueue: in memory and on a real Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.database.pool import Pool, open_pool
from services.runtime.errors import AlreadyExists, ResourceExhausted
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.domain.events import Progress
from services.summarizer.domain.job_ids import JobIds
from services.summarizer.domain.job_ports import JobQueue, JobStore
from services.summarizer.domain.jobs import (
    Claim,
    EventKind,
    Extracted,
    ExtractWork,
    Fault,
    Job,
    JobState,
    Order,
    Priority,
    Selection,
    SummarizeWork,
)
from services.summarizer.domain.values import Caller, Consumption, Length, Money, Options, Style, Summary, TokenCount

DOCUMENTS = tuple(f"documents/{number:032x}" for number in range(20))
OPTIONS = Options(Length.SHORT, Style.BULLETS, "de", "bees \x00\ud800", "offline/lexrank", "bears")
WORK = SummarizeWork(OPTIONS, ("offline/lexrank",))
FAULT = Fault("Unavailable", "PEER_DOWN", "It is down.")
ALL = (Priority.URGENT, Priority.NORMAL, Priority.BATCH)
KEEP_S = 1000.0
USED = Consumption(TokenCount(3, 4), 1, Money("EUR", 5), True, (str(uuid.UUID(int=1)),))
SUMMARY = Summary(DOCUMENTS[0], "Text.", (), "a/b", False, False, (3,), USED, "c/d")
Store = tuple[JobStore, JobQueue]
IDS = JobIds(lambda: datetime.now(UTC))


RETRIER = Caller("acme", "apiKeys/bob", "films", frozenset({"jobs.create"}), "call-2")


def order(tenant: str = "acme", *, documents: int = 1, **changes: Any) -> Order:
    caller = Caller(tenant, changes.pop("actor", "apiKeys/alice"), "books", frozenset({"jobs.create"}), "call-1")
    values: dict[str, Any] = {"work": ExtractWork(), "priority": Priority.NORMAL, "max_attempts": 3, **changes}
    return Order(caller, DOCUMENTS[:documents], **values)


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=8)
    yield pool
    await pool.close()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        memory = MemoryJobs(lambda: datetime.now(UTC))
        return memory, memory
    pool = request.getfixturevalue("pool")
    return PostgresJobs(pool), PostgresJobQueue(pool)


async def submit(store: Store, wanted: Order, *, limit: int = 100) -> list[str]:
    """The ids of the jobs that were asked for."""
    ids = IDS.many(len(wanted.documents))
    batch = IDS.one() if wanted.as_batch else ""
    job, made = await store[0].submit(wanted, ids=ids, batch=batch, limit=limit)
    assert job.job_id == ids[0]
    assert made == batch
    return ids


async def claim(store: Store, *classes: Priority, lease_s: float = 60, most: int = 100) -> Claim | None:
    return await store[1].claim(classes or ALL, worker="w", lease_s=lease_s, most_of_tenant=most)


async def claimed(store: Store, *classes: Priority, lease_s: float = 60) -> Claim:
    found = await claim(store, *classes, lease_s=lease_s)
    assert found is not None
    return found


async def finish(store: Store, held: Claim, state: JobState = JobState.SUCCEEDED, **changes: Any) -> bool:
    values: dict[str, Any] = {"result": None, "fault": None, "keep_s": KEEP_S, **changes}
    return await store[1].finish(held, state, **values)


async def job_of(store: Store, job_id: str, tenant: str = "acme") -> Job:
    job = await store[0].get(tenant, job_id)
    assert job is not None
    return job


async def kinds(store: Store, job_id: str) -> list[EventKind]:
    events = await store[0].events("acme", job_id, after=0, limit=1000)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1)), "no gaps"
    assert (await job_of(store, job_id)).last_sequence == len(events)
    return [event.kind for event in events]


class TestEveryStore:
    async def test_a_job_from_its_beginning_to_its_end(self, store: Store) -> None:
        (job_id,) = await submit(store, order(work=WORK, priority=Priority.URGENT))
        queued = await job_of(store, job_id)
        assert (queued.state, queued.work, queued.actor, queued.attempts) == (JobState.QUEUED, WORK, "apiKeys/alice", 0)
        held = await claimed(store)
        assert (held.job_id, held.work, held.document, held.attempt, held.tries) == (job_id, WORK, DOCUMENTS[0], 1, 1)
        assert held.caller == Caller("acme", "apiKeys/alice", "books", frozenset(), "call-1", f"jobs/{job_id}", rank=0)
        assert await claim(store) is None
        assert await store[1].beat(held, lease_s=60, progress=Progress(1, 2, 3, 4))
        running = await job_of(store, job_id)
        assert (running.state, running.progress, running.end_time) == (JobState.RUNNING, Progress(1, 2, 3, 4), None)
        assert await finish(store, held, result=SUMMARY)
        done = await job_of(store, job_id)
        assert (done.state, done.result) == (JobState.SUCCEEDED, SUMMARY)
        assert done.end_time is not None
        assert done.expire_time == done.end_time + timedelta(seconds=KEEP_S)
        assert done.start_time is not None
        assert done.create_time <= done.start_time <= done.end_time
        assert await kinds(store, job_id) == [
            EventKind.QUEUED, EventKind.STARTED, EventKind.PROGRESS, EventKind.ENDED
        ]  # fmt: skip

    async def test_other_results_are_kept_as_well(self, store: Store) -> None:
        (job_id,) = await submit(store, order())
        result = Extracted(9, 8, (4,), 1000)
        await finish(store, await claimed(store), result=result)
        assert (await job_of(store, job_id)).result == result

    async def test_it_ends_once(self, store: Store) -> None:
        (job_id,) = await submit(store, order())
        held = await claimed(store)
        assert await finish(store, held, JobState.FAILED, fault=FAULT)
        for again in (
            finish(store, held, result=SUMMARY),
            store[1].beat(held, lease_s=60, progress=Progress(1, 1, 1, 1)),
            store[1].postpone(held, delay_s=0, fault=FAULT),
            store[1].hand_back(held),
        ):
            assert not await again
        job = await store[0].cancel("acme", job_id, keep_s=KEEP_S)
        assert job is not None
        assert (job.state, job.fault, job.result) == (JobState.FAILED, FAULT, None)
        assert await claim(store) is None
        assert (await kinds(store, job_id)).count(EventKind.ENDED) == 1

    async def test_a_worker_that_was_lost_changes_nothing_any_more(self, store: Store) -> None:
        (job_id,) = await submit(store, order())
        first = await claimed(store, lease_s=-1)
        assert await store[1].recover(FAULT, limit=10, keep_s=KEEP_S) == 1
        assert not await finish(store, first), "nobody has it"
        second = await claimed(store)
        assert (second.attempt, second.tries) == (2, 2)
        for late in (finish(store, first), store[1].beat(first, lease_s=60, progress=None), store[1].hand_back(first)):
            assert not await late
        assert await finish(store, second, result=SUMMARY)
        assert (await kinds(store, job_id))[2] is EventKind.WORKER_LOST

    async def test_a_document_that_kills_its_workers_is_given_up(self, store: Store) -> None:
        (job_id,) = await submit(store, order(max_attempts=2))
        for _ in range(2):
            await claimed(store, lease_s=-1)
            assert await store[1].recover(FAULT, limit=10, keep_s=KEEP_S) == 1
        assert await claim(store) is None
        job = await job_of(store, job_id)
        assert (job.state, job.fault, job.attempts) == (JobState.FAILED, FAULT, 2)

    async def test_whose_lease_is_good_is_left_alone(self, store: Store) -> None:
        await submit(store, order())
        held = await claimed(store, lease_s=-1)
        assert await store[1].beat(held, lease_s=60, progress=None)
        assert await store[1].recover(FAULT, limit=10, keep_s=KEEP_S) == 0

    async def test_a_failed_attempt_counts_and_one_that_was_handed_back_does_not(self, store: Store) -> None:
        (job_id,) = await submit(store, order())
        assert await store[1].hand_back(await claimed(store))
        held = await claimed(store)
        assert (held.attempt, held.tries) == (2, 1)
        assert await store[1].postpone(held, delay_s=0, fault=FAULT)
        assert (await job_of(store, job_id)).fault == FAULT
        assert (await claimed(store)).tries == 2
        assert (await job_of(store, job_id)).fault is None

    async def test_what_is_due_later_waits(self, store: Store) -> None:
        await submit(store, order(schedule_time=datetime.now(UTC) + timedelta(hours=1)))
        assert await claim(store) is None
        (job_id,) = await submit(store, order())
        held = await claimed(store)
        assert held.job_id == job_id
        assert await store[1].postpone(held, delay_s=3600, fault=FAULT)
        assert await claim(store) is None

    @pytest.mark.parametrize("stage", ["queued", "running", "postponed"])
    async def test_it_is_cancelled_at_any_stage(self, store: Store, stage: str) -> None:
        (job_id,) = await submit(store, order())
        held = None if stage == "queued" else await claimed(store)
        if held and stage == "postponed":
            await store[1].postpone(held, delay_s=0, fault=FAULT)
        job = await store[0].cancel("acme", job_id, keep_s=KEEP_S)
        assert job is not None
        assert (job.state, job.fault) == (JobState.CANCELLED, None)
        assert await claim(store) is None
        if held:
            assert not await finish(store, held, result=SUMMARY)
        assert (await job_of(store, job_id)).state is JobState.CANCELLED

    async def test_what_failed_or_was_cancelled_is_queued_again(self, store: Store) -> None:
        (job_id,) = await submit(store, order())
        late = await claimed(store)
        await store[0].cancel("acme", job_id, keep_s=KEEP_S)
        retried = await store[0].retry(RETRIER, job_id, limit=10)
        assert retried is not None
        assert retried[1]
        assert (retried[0].state, retried[0].end_time, retried[0].expire_time) == (JobState.QUEUED, None, None)
        assert await store[0].retry(RETRIER, job_id, limit=10) == (await job_of(store, job_id), False)
        held = await claimed(store)
        assert (held.attempt, held.tries) == (2, 1)
        assert held.caller == replace(RETRIER, scopes=frozenset(), job=f"jobs/{job_id}", rank=1), (
            "whoever retries it pays"
        )
        assert retried[0].actor == RETRIER.actor
        assert not await finish(store, late)
        assert await finish(store, held)
        assert await store[0].retry(RETRIER, job_id, limit=10) == (await job_of(store, job_id), False)

    async def test_a_full_queue_takes_nothing(self, store: Store) -> None:
        await submit(store, order(documents=3, as_batch=True), limit=4)
        with pytest.raises(ResourceExhausted) as full:
            await submit(store, order(documents=2, as_batch=True), limit=4)
        assert (full.value.reason, full.value.quota and full.value.quota.subject) == ("JOB_QUEUE_FULL", "tenants/acme")
        assert full.value.retry_after_s
        (job_id,) = await submit(store, order(), limit=4)
        await submit(store, order("globex"), limit=1)
        await store[0].cancel("acme", job_id, keep_s=KEEP_S)
        await submit(store, order(), limit=4)
        with pytest.raises(ResourceExhausted):
            await store[0].retry(RETRIER, job_id, limit=4)
        assert (await job_of(store, job_id)).state is JobState.CANCELLED

    async def test_the_same_request_makes_one_job(self, store: Store) -> None:
        request_id = str(uuid.uuid4())
        wanted = order(documents=2, as_batch=True, request_id=request_id)
        ids = await submit(store, wanted)
        again, batch = await store[0].submit(wanted, ids=IDS.many(2), batch="f" * 32, limit=2)
        assert (again.job_id, again.batch) == (ids[0], batch)
        upper, _ = await store[0].submit(
            order(documents=2, as_batch=True, request_id=request_id.upper()), ids=["e" * 32], batch="", limit=2
        )
        assert upper.job_id == ids[0]
        with pytest.raises(AlreadyExists):
            await submit(store, order(documents=1, as_batch=True, request_id=request_id))
        await submit(store, order("globex", request_id=request_id))
        await submit(store, order(actor="apiKeys/bob", request_id=request_id))
        assert len(await store[0].list("acme", Selection(), before="", limit=100)) == 3

    async def test_lists_are_stable_and_filtered(self, store: Store) -> None:
        first = await submit(store, order(documents=5, as_batch=True))
        others = [(await submit(store, order()))[0] for _ in range(2)]
        await submit(store, order("globex"))
        await store[0].cancel("acme", first[1], keep_s=KEEP_S)

        async def listed(limit: int = 100, before: str = "", **chosen: Any) -> list[str]:
            found = await store[0].list("acme", Selection(**chosen), before=before, limit=limit)
            return [job.job_id for job in found]

        everything = await listed()
        assert everything == sorted([*first, *others], reverse=True)
        assert await listed(3) + await listed(before=everything[2]) == everything
        assert await listed(state=JobState.CANCELLED) == [first[1]]
        assert await listed(document=DOCUMENTS[0]) == sorted([first[0], *others], reverse=True)
        batch = (await job_of(store, first[0])).batch
        assert await listed(batch=batch) == first[::-1]
        assert await listed(batch=batch, state=JobState.CANCELLED, document=DOCUMENTS[0]) == []

    async def test_a_batch_counts_and_tells(self, store: Store) -> None:
        ids = await submit(store, order(documents=3, as_batch=True))
        batch_id = (await job_of(store, ids[0])).batch
        held = await claimed(store)
        await store[1].beat(held, lease_s=60, progress=Progress(1, 2, 0, 0))
        await finish(store, held, result=SUMMARY)
        await store[0].cancel("acme", ids[2], keep_s=KEEP_S)
        batch = await store[0].batch("acme", batch_id)
        assert batch is not None
        assert batch.counts == {JobState.SUCCEEDED: 1, JobState.QUEUED: 1, JobState.CANCELLED: 1}
        assert not batch.ended
        events = await store[0].batch_events("acme", batch_id, after=0, limit=100)
        assert [event.batch_sequence for event in events] == [1, 2, 3, 4, 5, 6] == [*range(1, batch.last_sequence + 1)]
        assert [(event.job_id, event.state) for event in events[3:]] == [
            (ids[0], JobState.RUNNING), (ids[0], JobState.SUCCEEDED), (ids[2], JobState.CANCELLED)
        ]  # fmt: skip
        assert [e.batch_sequence for e in await store[0].batch_events("acme", batch_id, after=4, limit=1)] == [5]
        assert await store[0].batch("globex", batch_id) is None

    async def test_another_tenant_has_none_of_it(self, store: Store) -> None:
        ids = await submit(store, order(documents=2, as_batch=True))
        batch = (await job_of(store, ids[0])).batch
        assert await store[0].get("globex", ids[0]) is None
        assert await store[0].cancel("globex", ids[0], keep_s=KEEP_S) is None
        await store[0].cancel("acme", ids[1], keep_s=KEEP_S)
        assert await store[0].retry(replace(RETRIER, tenant="globex"), ids[1], limit=100) is None
        assert await store[0].erase("globex", DOCUMENTS[0], FAULT, keep_s=KEEP_S) == 0
        assert await store[0].list("globex", Selection(batch=batch), before="", limit=100) == []
        assert await store[0].events("globex", ids[0], after=0, limit=100) == []
        assert await store[0].batch_events("globex", batch, after=0, limit=100) == []
        assert (await job_of(store, ids[0])).state is JobState.QUEUED

    async def test_with_its_document_go_its_jobs_and_results(self, store: Store) -> None:
        (done,) = await submit(store, order())
        await finish(store, await claimed(store), result=SUMMARY)
        (running,) = await submit(store, order())
        held = await claimed(store)
        queued, other = await submit(store, order(documents=2, as_batch=True))
        (theirs,) = await submit(store, order("globex"))
        assert await store[0].erase("acme", DOCUMENTS[0], FAULT, keep_s=KEEP_S) == 3
        found = {job.job_id: job for job in [await job_of(store, i) for i in (done, running, queued, other)]}
        assert {i: (job.state, job.fault, job.result) for i, job in found.items()} == {
            done: (JobState.SUCCEEDED, None, None),
            running: (JobState.FAILED, FAULT, None),
            queued: (JobState.FAILED, FAULT, None),
            other: (JobState.QUEUED, None, None),
        }
        assert not await finish(store, held, result=SUMMARY)
        assert (await job_of(store, theirs, "globex")).state is JobState.QUEUED
        assert await store[0].erase("acme", DOCUMENTS[0], FAULT, keep_s=KEEP_S) == 0

    async def test_classes_go_in_the_order_that_is_asked_for(self, store: Store) -> None:
        made = {priority: (await submit(store, order(priority=priority)))[0] for priority in reversed(Priority)}
        assert await claim(store, Priority.URGENT) is not None
        assert await claim(store, Priority.URGENT) is None
        last = await claimed(store, Priority.BATCH, Priority.NORMAL)
        assert (last.job_id, last.caller.rank) == (made[Priority.BATCH], 2)
        assert (await claimed(store)).job_id == made[Priority.NORMAL]

    async def test_tenants_take_turns(self, store: Store) -> None:
        """Whoever has flooded the queue, and however early."""
        await submit(store, order("flood", documents=20, as_batch=True))
        await submit(store, order("acme", documents=2, as_batch=True))
        await submit(store, order("globex", documents=2, as_batch=True))
        served = [(await claimed(store)).caller.tenant for _ in range(7)]
        assert sorted(served[:3]) == sorted(served[3:6]) == ["acme", "flood", "globex"]
        assert served[6] == "flood"

    async def test_a_tenant_has_no_more_running_than_it_may(self, store: Store) -> None:
        await submit(store, order("flood", documents=20, as_batch=True))
        held = [await claim(store, most=2) for _ in range(4)]
        assert [found is not None for found in held] == [True, True, False, False]
        assert held[0] is not None
        await finish(store, held[0])
        assert await claim(store, most=2) is not None

    async def test_many_claims_at_once_give_each_job_once(self, store: Store) -> None:
        ids = await submit(store, order("flood", documents=20, as_batch=True))
        ids += [(await submit(store, order("acme")))[0] for _ in range(5)]
        held = await asyncio.gather(*(claim(store, most=12) for _ in range(40)))
        found = [one.job_id for one in held if one is not None]
        assert len(found) == len(set(found))
        assert sum(one.caller.tenant == "flood" for one in held if one is not None) == 12
        assert set(found) <= set(ids)
        assert len(found) == 17

    async def test_what_waits_is_counted(self, store: Store) -> None:
        await submit(store, order(documents=3, as_batch=True, schedule_time=datetime.now(UTC) - timedelta(minutes=1)))
        await submit(store, order(priority=Priority.BATCH, schedule_time=datetime.now(UTC) + timedelta(hours=1)))
        await claimed(store)
        urgent, normal, batch = await store[1].waiting()
        assert (urgent.queued, urgent.running, urgent.oldest_age_s) == (0, 0, 0)
        assert (normal.queued, normal.running) == (2, 1)
        assert normal.oldest_age_s >= 60
        assert (batch.priority, batch.queued, batch.oldest_age_s) == (Priority.BATCH, 1, 0)

    async def test_what_has_expired_is_forgotten(self, store: Store) -> None:
        request_id = str(uuid.uuid4())
        wanted = order(documents=2, as_batch=True, request_id=request_id)
        ids = await submit(store, wanted)
        batch = (await job_of(store, ids[0])).batch
        (open_job,) = await submit(store, order("globex"))
        await finish(store, await claimed(store))
        later = datetime.now(UTC) + timedelta(seconds=KEEP_S * 2)
        assert (await store[1].forget(datetime.now(UTC), limit=10)).jobs == 0
        first = await store[1].forget(later, limit=10)
        await store[0].cancel("acme", ids[1], keep_s=KEEP_S)
        await store[0].cancel("acme", ids[0], keep_s=KEEP_S)
        second = await store[1].forget(later, limit=10)
        assert (first.jobs + second.jobs, first.batches + second.batches) in ((2, 1), (3, 1))
        assert first.events + second.events >= 5
        assert await store[0].get("acme", ids[0]) is None
        assert await store[0].batch("acme", batch) is None
        assert await store[0].events("acme", ids[0], after=0, limit=10) == []
        made, _ = await store[0].submit(wanted, ids=IDS.many(2), batch="f" * 32, limit=10)
        assert made.job_id not in ids
        del open_job
