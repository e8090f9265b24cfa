"""The way of events to where they are safe: order, waiting, a full queue, and a store that fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from prometheus_client import REGISTRY

from services.audit.event import Event
from services.audit.trail import BATCH, Trail
from services.runtime.errors import Unavailable


def an_event(name: str = "") -> Event:
    return Event(tenant="acme", action="x.Y/Z", actor=name)


class Store:
    """What events are kept in; it fails, or is slow, as a test says."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failures = 0
        self.open = asyncio.Event()
        self.open.set()

    async def keep(self, events: Sequence[Event]) -> None:
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("DATABASE_UNAVAILABLE", "away")
        self.batches.append([event.actor for event in events])

    @property
    def kept(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # what is waited for has no event
            await asyncio.sleep(0.005)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Trail], Trail]]:
    tasks = []

    def run(trail: Trail) -> Trail:
        tasks.append(asyncio.create_task(trail.run()))
        return trail

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"pagemesh_audit_{name}_total") or 0.0


async def test_what_is_waited_for_is_safe(store: Store, running: Callable[[Trail], Trail]) -> None:
    trail = running(Trail(store.keep))
    for n in range(3):
        await trail.record(an_event(str(n)), durable=True)
        assert store.kept == [str(m) for m in range(n + 1)]


async def test_calls_share_a_write_and_keep_their_order(store: Store, running: Callable[[Trail], Trail]) -> None:
    trail = running(Trail(store.keep))
    await asyncio.gather(*(trail.record(an_event(str(n)), durable=n % 3 == 0) for n in range(200)))
    await until(lambda: len(store.kept) == 200)
    assert store.kept == [str(n) for n in range(200)]
    assert len(store.batches) < 20


async def test_a_read_does_not_wait_and_is_written(store: Store, running: Callable[[Trail], Trail]) -> None:
    store.open.clear()
    trail = running(Trail(store.keep))
    async with asyncio.timeout(30):
        await trail.record(an_event("read"), durable=False)
    assert store.kept == []
    store.open.set()
    await until(lambda: store.kept == ["read"])


async def test_a_store_that_fails_gets_the_same_again(store: Store, running: Callable[[Trail], Trail]) -> None:
    store.failures = 3
    trail = running(Trail(store.keep, wait_s=60))
    await asyncio.gather(*(trail.record(an_event(str(n)), durable=True) for n in range(5)))
    assert store.kept == [str(n) for n in range(5)]


async def test_a_call_whose_event_is_not_safe_in_time_is_refused_and_its_event_kept(
    store: Store, running: Callable[[Trail], Trail]
) -> None:
    store.open.clear()
    trail = running(Trail(store.keep, wait_s=0.01))
    refused = counted("calls_refused")
    with pytest.raises(Unavailable, match="AUDIT_UNAVAILABLE"):
        await trail.record(an_event("late"), durable=True)
    assert counted("calls_refused") == refused + 1
    store.open.set()
    await until(lambda: store.kept == ["late"])


async def test_a_full_queue_makes_calls_wait_and_loses_nothing(store: Store, running: Callable[[Trail], Trail]) -> None:
    store.open.clear()
    trail = running(Trail(store.keep, max_waiting=5, wait_s=60))
    full = counted("queue_full")
    calls = [asyncio.create_task(trail.record(an_event(str(n)), durable=False)) for n in range(20)]
    await until(lambda: counted("queue_full") >= full + 15)
    assert sum(call.done() for call in calls) == 5
    store.open.set()
    await asyncio.gather(*calls)
    await until(lambda: len(store.kept) == 20)
    assert sorted(store.kept, key=int) == [str(n) for n in range(20)]


async def test_a_full_queue_refuses_in_the_end(store: Store) -> None:
    trail = Trail(store.keep, max_waiting=1, wait_s=0.01)
    await trail.record(an_event("first"), durable=False)
    with pytest.raises(Unavailable, match="AUDIT_UNAVAILABLE"):
        await trail.record(an_event("second"), durable=False)


async def test_the_end_writes_what_is_left(store: Store) -> None:
    trail = Trail(store.keep)
    for n in range(BATCH + 10):
        await trail.record(an_event(str(n)), durable=False)
    await trail.close(60)
    assert store.kept == [str(n) for n in range(BATCH + 10)]


async def test_what_cannot_be_written_at_the_end_is_told(store: Store) -> None:
    store.failures = 1000
    trail = Trail(store.keep)
    await trail.record(an_event(), durable=False)
    lost = counted("events_lost")
    await trail.close(0.2)
    assert counted("events_lost") == lost + 1


async def test_a_writer_that_is_stopped_midway_loses_nothing(store: Store) -> None:
    store.open.clear()
    trail = Trail(store.keep)
    task = asyncio.create_task(trail.run())
    await trail.record(an_event("kept"), durable=False)
    await until(trail._writing.locked)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store.open.set()
    await trail.close(60)
    assert store.kept == ["kept"]


def test_an_event_fits_the_contract_whatever_it_was_made_of() -> None:
    event = Event(tenant="acme", action="a" * 500, actor="\0" + "b" * 500, request_id="r" * 500, duration_micros=-1)
    message = event.to_message()
    assert (len(message.action), message.actor, len(message.request_id)) == (200, "b" * 199, 128)
    assert message.duration_micros == 0
