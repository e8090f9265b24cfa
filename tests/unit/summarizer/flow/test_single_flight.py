"""Many listeners, one run; the run lives exactly as long as somebody listens."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.runtime.errors import ResourceExhausted, Unavailable
from services.summarizer.domain.ports import Deadline, no_deadline
from services.summarizer.domain.single_flight import Emit, Seat, SingleFlight
from tests.unit.summarizer.flow.parts import until


class Runs:
    """A run that emits 1, waits to be let on, and emits 2."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.deadline: Deadline = no_deadline

    async def __call__(self, emit: Emit[int], deadline: Deadline) -> None:
        self.deadline = deadline
        self.begun += 1
        emit(1)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        emit(2)


async def hear(seat: Seat[int]) -> list[int]:
    with seat:
        return [event async for event in seat]


@pytest.fixture
async def joins() -> list[None]:
    return []


@pytest.fixture
async def flights(joins: list[None]) -> AsyncIterator[SingleFlight[str, int]]:
    flights: SingleFlight[str, int] = SingleFlight(joined=lambda: joins.append(None))
    yield flights
    await flights.close()


async def test_a_hundred_listeners_make_one_run_and_hear_all_of_it(
    flights: SingleFlight[str, int], joins: list[None]
) -> None:
    run = Runs()
    seats = [flights.join("key", run) for _ in range(100)]
    listeners = [asyncio.create_task(hear(seat)) for seat in seats]
    await until(lambda: run.begun == 1)
    run.go_on.set()
    assert await asyncio.gather(*listeners) == [[1, 2]] * 100
    assert run.begun == 1
    assert [seat.leads for seat in seats] == [True] + [False] * 99
    assert len(joins) == 99


async def test_who_comes_late_hears_it_from_the_beginning(flights: SingleFlight[str, int]) -> None:
    run = Runs()
    first = asyncio.create_task(hear(flights.join("key", run)))
    await until(lambda: run.begun == 1)
    second = asyncio.create_task(hear(flights.join("key", run)))
    run.go_on.set()
    assert list(await asyncio.gather(first, second)) == [[1, 2], [1, 2]]


async def test_other_keys_are_other_runs(flights: SingleFlight[str, int]) -> None:
    run = Runs()
    run.go_on.set()
    await asyncio.gather(hear(flights.join("a", run)), hear(flights.join("b", run)))
    assert run.begun == 2


async def test_the_run_goes_on_until_its_last_listener_leaves(flights: SingleFlight[str, int]) -> None:
    run = Runs()
    listeners = [asyncio.create_task(hear(flights.join("key", run))) for _ in range(3)]
    await until(lambda: run.begun == 1)
    for listener in listeners[:2]:
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener
    assert run.cancelled == 0
    listeners[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await listeners[2]
    await until(lambda: run.cancelled == 1)


async def test_nobody_is_seated_in_a_run_that_is_being_cancelled(flights: SingleFlight[str, int]) -> None:
    dying, fresh = Runs(), Runs()
    flights.join("key", dying).leave()
    fresh.go_on.set()
    assert await hear(flights.join("key", fresh)) == [1, 2]
    assert fresh.begun == 1


async def test_leaving_twice_counts_once(flights: SingleFlight[str, int]) -> None:
    run = Runs()
    stays, goes = flights.join("key", run), flights.join("key", run)
    goes.leave()
    goes.leave()
    run.go_on.set()
    assert await hear(stays) == [1, 2]


async def test_an_error_is_told_to_everyone_and_kept_for_nobody_later(
    flights: SingleFlight[str, int],
) -> None:
    run = Runs()
    run.error = ResourceExhausted("BUDGET_EXCEEDED", "no room")
    listeners = [asyncio.create_task(hear(flights.join("key", run))) for _ in range(3)]
    run.go_on.set()
    for listener in listeners:
        with pytest.raises(ResourceExhausted) as caught:
            await listener
        assert caught.value is run.error
    run.error = None
    assert await hear(flights.join("key", run)) == [1, 2]


async def test_closing_cancels_the_runs_and_tells_the_listeners(flights: SingleFlight[str, int]) -> None:
    run, unborn = Runs(), Runs()
    listener = asyncio.create_task(hear(flights.join("key", run)))
    await until(lambda: run.begun == 1)
    waiting = asyncio.create_task(hear(flights.join("other", unborn)))
    await flights.close()
    for task in (listener, waiting):
        with pytest.raises(Unavailable) as caught:
            await task
        assert caught.value.reason == "SHUTTING_DOWN"
    assert run.cancelled == 1


async def test_the_run_goes_by_its_most_patient_listener(flights: SingleFlight[str, int]) -> None:
    run = Runs()
    short = flights.join("key", run, deadline=10.0)
    await until(lambda: run.begun == 1)
    assert run.deadline() == 10.0
    long = flights.join("key", run, deadline=20.0)
    assert run.deadline() == 20.0
    endless = flights.join("key", run)
    assert run.deadline() is None
    endless.leave()
    long.leave()
    assert run.deadline() == 10.0
    short.leave()
    assert run.deadline() is None
