"""Workers over jobs in memory: what becomes of each job, whoever dies, stops, or wakes up too late."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.adapters.memory_schemas import MemorySchemaCache, MemorySchemas
from services.summarizer.domain import job_desk
from services.summarizer.domain.events import Progress
from services.summarizer.domain.job_desk import JobDesk, JobLimits, Silence
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.job_work import Doer, Told
from services.summarizer.domain.job_worker import JobWorker, WorkerLimits, WorkerSignals
from services.summarizer.domain.jobs import (
    Batch,
    Claim,
    EventKind,
    Extracted,
    ExtractWork,
    Job,
    JobEvent,
    JobState,
    Order,
    Priority,
    Result,
    Selection,
)
from services.summarizer.domain.models import Models
from services.summarizer.domain.schema_book import SchemaBook
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, STRANGER, Flow, page

DONE = Extracted(1, 1, (), 3)


@dataclass
class Shop:
    """Jobs in memory, a desk, and workers that do what a test says."""

    store: MemoryJobs
    desk: JobDesk
    ended: list[tuple[str, str]] = field(default_factory=list)
    """Job and outcome of each attempt."""
    faults: list[Exception] = field(default_factory=list)
    stops: list[asyncio.Event] = field(default_factory=list)
    running: list["asyncio.Task[None]"] = field(default_factory=list)

    def worker(self, do: Doer, *, queue: MemoryJobs | None = None, **changes: float) -> asyncio.Event:
        """Starts one; answers what stops it."""
        limits = {
            "places": 2, "most_of_tenant": 100, "lease_s": 5, "progress_s": 0.01, "attempt_s": 60, "grace_s": 0.05,
            "keep_s": 1000, **changes,
        }  # fmt: skip
        signals = WorkerSignals(
            started=lambda _: None,
            ended=lambda claim, outcome, _: self.ended.append((claim.job_id, outcome)),
            recovered=lambda _: None,
            forgotten=lambda _: None,
            waiting=lambda _: None,
            broken=lambda _, error: self.faults.append(error),
        )
        worker = JobWorker(
            queue=queue or self.store,
            bell=self.store.bells,
            do=do,
            limits=WorkerLimits(**limits),  # type: ignore[arg-type]  # whole numbers are whole
            signals=signals,
            name="w",
            now=lambda: datetime.now(UTC),
            jitter=lambda: 0.0,
        )
        self.stops.append(asyncio.Event())
        self.running.append(asyncio.create_task(worker.run(self.stops[-1])))
        return self.stops[-1]

    async def submit(self, count: int = 1, **changes: object) -> list[str]:
        documents = tuple(f"documents/{number:032x}" for number in range(count))
        values: dict[str, object] = {"work": ExtractWork(), "priority": Priority.NORMAL, "max_attempts": 3, **changes}
        order = Order(values.pop("caller", ALICE), documents, **values)  # type: ignore[arg-type]
        batch = await self.desk.create_batch(order)
        jobs, _ = await self.desk.list(
            order.caller.tenant, Selection(batch=batch.batch_id), page_size=1000, page_token=""
        )
        return [job.job_id for job in jobs][::-1]

    async def job(self, job_id: str) -> Job:
        return await self.desk.get("acme", job_id)

    async def until(self, job_id: str, *states: JobState) -> Job:
        async with asyncio.timeout(30):
            while (job := await self.job(job_id)).state not in states:
                await asyncio.sleep(0.005)
        return job

    async def kinds(self, job_id: str) -> list[EventKind]:
        return [event.kind for event in await self.store.events("acme", job_id, after=0, limit=10_000)]


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
async def shop(flow: Flow) -> AsyncIterator[Shop]:
    flow.pages.put("acme", DOCUMENT, page(1, "One two three."))
    store = MemoryJobs(lambda: datetime.now(UTC))
    desk = JobDesk(
        store=store,
        bell=store.bells,
        orders=Orders(
            models=Models({"scripted": flow.provider}, default="scripted/writer"),
            schemas=SchemaBook(store=MemorySchemas(), cache=MemorySchemaCache(), counted=lambda _: None),
        ),
        pages=flow.pages,
        act_as=act_as,
        limits=JobLimits(most_waiting=1000, max_attempts=3, keep_s=1000),
        now=lambda: datetime.now(UTC),
    )
    shop = Shop(store, desk)
    yield shop
    for stop in shop.stops:
        stop.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*shop.running)


async def at_once(claim: Claim, told: Told) -> Result:
    told(Progress(1, 1, 0, 0))
    return DONE


class Gate:
    """Work that goes on when a test says so."""

    def __init__(self) -> None:
        self.begun: list[Claim] = []
        self.cancelled = 0
        self.open = asyncio.Event()

    async def __call__(self, claim: Claim, told: Told) -> Result:
        self.begun.append(claim)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return DONE

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.begun) < count:
                await asyncio.sleep(0.005)


def failing(*errors: Exception) -> Doer:
    left = list(errors)

    async def do(claim: Claim, told: Told) -> Result:
        if left:
            raise left.pop(0)
        return DONE

    return do


async def test_each_job_is_done_once(shop: Shop) -> None:
    ids = await shop.submit(20)
    for _ in range(3):
        shop.worker(at_once)
    for job_id in ids:
        assert (await shop.until(job_id, JobState.SUCCEEDED)).result == DONE
    assert sorted(shop.ended) == sorted((job_id, "SUCCEEDED") for job_id in ids)


async def test_what_fails_for_good_is_a_dead_letter_with_its_reason(shop: Shop) -> None:
    (job_id,) = await shop.submit()
    shop.worker(failing(FailedPrecondition("DOCUMENT_HAS_NO_TEXT", "It is a scan.")))
    job = await shop.until(job_id, JobState.FAILED)
    assert job.fault is not None
    assert (job.fault.reason, job.attempts) == ("DOCUMENT_HAS_NO_TEXT", 1)
    await shop.desk.retry(ALICE, job_id)
    assert (await shop.until(job_id, JobState.SUCCEEDED)).fault is None


async def test_what_may_pass_is_tried_again(shop: Shop) -> None:
    (job_id,) = await shop.submit()
    shop.worker(failing(Unavailable("PEER_DOWN", "down"), RuntimeError("ours")))
    job = await shop.until(job_id, JobState.SUCCEEDED)
    assert job.attempts == 3
    assert (await shop.kinds(job_id)).count(EventKind.POSTPONED) == 2
    assert [type(error) for error in shop.faults] == [RuntimeError]


async def test_an_attempt_has_an_end(shop: Shop) -> None:
    (job_id,) = await shop.submit(max_attempts=1)
    shop.worker(Gate(), attempt_s=0.05)
    job = await shop.until(job_id, JobState.FAILED)
    assert job.fault is not None
    assert job.fault.reason == "JOB_TIMEOUT"


async def test_a_cancelled_job_stops_and_stays_cancelled(shop: Shop) -> None:
    gate = Gate()
    (job_id,) = await shop.submit()
    shop.worker(gate, lease_s=0.1)
    await gate.until(1)
    assert (await shop.desk.cancel("acme", job_id)).state is JobState.CANCELLED
    async with asyncio.timeout(30):
        while not gate.cancelled:
            await asyncio.sleep(0.005)
    assert (await shop.job(job_id)).state is JobState.CANCELLED
    assert shop.ended in ([], [(job_id, "FENCED_OFF")])


class Deaf(MemoryJobs):
    """The store as a worker sees it that sleeps: its heartbeats do not arrive."""

    async def beat(self, claim: Claim, *, lease_s: float, progress: Progress | None) -> bool:
        raise Unavailable("DATABASE_UNAVAILABLE", "paused")


async def test_a_worker_that_slept_ends_nothing_twice(shop: Shop) -> None:
    slow, fast = Gate(), Gate()
    (job_id,) = await shop.submit()
    asleep = Deaf(**{name: getattr(shop.store, name) for name in MemoryJobs.__dataclass_fields__})
    shop.worker(slow, queue=asleep, lease_s=0.05, grace_s=30)
    await slow.until(1)
    shop.stops[0].set()
    shop.worker(fast)
    await fast.until(1)
    assert (slow.begun[0].attempt, fast.begun[0].attempt) == (1, 2)
    slow.open.set()
    async with asyncio.timeout(30):
        while shop.ended != [(job_id, "FENCED_OFF")]:
            await asyncio.sleep(0.005)
    assert (await shop.job(job_id)).state is JobState.RUNNING, "the other one is still at it"
    fast.open.set()
    await shop.until(job_id, JobState.SUCCEEDED)
    assert (await shop.kinds(job_id)).count(EventKind.ENDED) == 1


async def test_a_worker_that_stops_lets_jobs_end_or_hands_them_back(shop: Shop) -> None:
    patient, gate = Gate(), Gate()
    (job_id,) = await shop.submit()
    stop = shop.worker(patient, grace_s=30)
    await patient.until(1)
    stop.set()
    patient.open.set()
    await shop.until(job_id, JobState.SUCCEEDED)
    ids = await shop.submit(2)
    stop = shop.worker(gate)
    await gate.until(2)
    stop.set()
    await asyncio.wait_for(shop.running[-1], 30)
    for one in ids:
        assert (await shop.job(one)).state is JobState.QUEUED
        assert (await shop.kinds(one))[-1] is EventKind.HANDED_BACK
        assert shop.store.places["acme", one].tries == 0, "this was no failed attempt"
    shop.worker(at_once)
    for one in ids:
        await shop.until(one, JobState.SUCCEEDED)


async def test_an_urgent_job_starts_although_all_places_are_taken(shop: Shop) -> None:
    gate = Gate()
    await shop.submit(50)
    shop.worker(gate)
    await gate.until(2)
    (urgent,) = await shop.submit(caller=STRANGER, priority=Priority.URGENT)
    await gate.until(3)
    assert gate.begun[-1].job_id == urgent
    gate.open.set()


async def test_progress_is_told_now_and_then_and_the_newest_is_never_lost(shop: Shop) -> None:
    told_all = asyncio.Event()

    async def do(claim: Claim, told: Told) -> Result:
        for number in range(1, 10_001):
            told(Progress(number, 10_000, 0, 0))
            if number % 1000 == 0:
                await asyncio.sleep(0.01)
        told_all.set()
        async with asyncio.timeout(30):
            while (await shop.job(claim.job_id)).progress.pages_read < 10_000:
                await asyncio.sleep(0.005)
        return DONE

    (job_id,) = await shop.submit()
    shop.worker(do)
    await shop.until(job_id, JobState.SUCCEEDED)
    assert 1 <= (await shop.kinds(job_id)).count(EventKind.PROGRESS) <= 12


async def watched(shop: Shop, job_id: str, after: int, most: int = 10_000) -> list[JobEvent]:
    events: list[JobEvent] = []
    async with contextlib.aclosing(shop.desk.watch("acme", job_id, after=after)) as stream:
        async for item in stream:
            if isinstance(item, JobEvent):
                events.append(item)
                if len(events) == most:
                    break
    return events


async def test_a_watcher_goes_on_after_any_number(shop: Shop) -> None:
    go: asyncio.Queue[int] = asyncio.Queue()

    async def do(claim: Claim, told: Told) -> Result:
        for number in range(5):
            told(Progress(number, 5, 0, 0))
            await go.get()
        return DONE

    (job_id,) = await shop.submit()
    whole = asyncio.create_task(watched(shop, job_id, 0))
    shop.worker(do)
    cut: list[JobEvent] = []
    async with asyncio.timeout(30):
        while not cut or cut[-1].state is not JobState.SUCCEEDED:
            cut += await watched(shop, job_id, cut[-1].sequence if cut else 0, most=1)
            if cut[-1].kind is EventKind.PROGRESS:
                go.put_nowait(1)
        events = await whole
    assert cut == events
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    for after in range(len(events) + 1):
        assert await watched(shop, job_id, after) == events[after:]


async def test_a_batch_is_watched_to_its_end(shop: Shop) -> None:
    ids = await shop.submit(5)
    batch = (await shop.job(ids[0])).batch
    items: list[JobEvent | Silence | Batch] = []

    async def watch() -> None:
        async for item in shop.desk.watch_batch("acme", batch, after=5):
            items.append(item)

    watching = asyncio.create_task(watch())
    shop.worker(at_once)
    await asyncio.wait_for(watching, 30)
    events = [item for item in items if isinstance(item, JobEvent)]
    assert [event.batch_sequence for event in events] == list(range(6, 16))
    counts = [item.counts for item in items if isinstance(item, Batch)]
    assert counts[-1] == {JobState.SUCCEEDED: 5}


async def test_silence_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_desk, "HEARTBEAT_S", 0.01)
    (job_id,) = await shop.submit()
    async with contextlib.aclosing(shop.desk.watch("acme", job_id, after=1)) as stream:
        assert await anext(stream) == Silence(1)


async def test_what_cannot_be_is_told_at_the_desk(shop: Shop, flow: Flow) -> None:
    async def refused(call: Awaitable[object], kind: type[Exception], reason: str) -> None:
        with pytest.raises(kind, match=reason):
            await call

    one = Order(ALICE, ("documents/" + "f" * 32,), ExtractWork(), Priority.NORMAL, 0)
    await refused(shop.desk.create(one), NotFound, "DOCUMENT_NOT_FOUND")
    await refused(shop.desk.get("acme", "0" * 32), NotFound, "JOB_NOT_FOUND")
    await refused(shop.desk.cancel("acme", "0" * 32), NotFound, "JOB_NOT_FOUND")
    await refused(shop.desk.retry(ALICE, "0" * 32), NotFound, "JOB_NOT_FOUND")
    await refused(shop.desk.batch("acme", "0" * 32), NotFound, "BATCH_NOT_FOUND")
    (job_id,) = await shop.submit()
    await refused(shop.desk.retry(ALICE, job_id), FailedPrecondition, "JOB_NOT_RETRYABLE")
    await refused(shop.submit(1001), ResourceExhausted, "JOB_QUEUE_FULL")
    for token in ("x", "a" * 32, "ä", job_id):
        listing = shop.desk.list("acme", Selection(), page_size=1, page_token=token)
        await refused(listing, InvalidArgument, "INVALID_PAGE_TOKEN")


async def test_pages_of_a_list_follow_each_other(shop: Shop) -> None:
    ids = await shop.submit(5)
    found, token = [], ""
    while True:
        jobs, token = await shop.desk.list("acme", Selection(), page_size=2, page_token=token)
        found += [job.job_id for job in jobs]
        if not token:
            break
        await shop.submit()
    assert found == ids[::-1]
