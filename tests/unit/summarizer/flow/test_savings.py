"""Free answers are recorded in batches, and nobody waits for it."""

import asyncio

import pytest

from services.runtime.errors import Unavailable
from services.summarizer.adapters.memory import MemoryBooks
from services.summarizer.domain import savings as module
from services.summarizer.domain.savings import CAPACITY, free_event
from services.summarizer.domain.values import Caller, Money, TokenCount, UsageEvent
from tests.unit.summarizer.flow.parts import ALICE, BOB, DOCUMENT, MODEL, PRICES, STRANGER, Flow, until


class Recorder(MemoryBooks):
    """Books that remember the batches and fail the first `failures` of them."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(PRICES)
        self.batches: list[tuple[UsageEvent, ...]] = []
        self.failures = failures

    async def record(self, events: tuple[UsageEvent, ...]) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("LEDGER_UNAVAILABLE", "down")
        await super().record(events)
        self.batches.append(events)


def event(number: int, caller: Caller = ALICE) -> UsageEvent:
    return free_event(
        event_id=f"00000000-0000-4000-8000-{number:012d}",
        model=MODEL,
        document=DOCUMENT,
        caller=caller,
        now_s=1_700_000_000.0,
        source="cache",
        saved=Money("USD", 1234),
    )


def test_an_event_is_free_and_says_what_it_saved() -> None:
    made = event(1)
    assert made.tokens == TokenCount(0, 0)
    assert made.operation == "summarize.cache"
    assert made.tags == {"saved_micros": "1234", "saved_currency": "USD"}


async def test_events_are_recorded_together_by_who_would_have_paid() -> None:
    books, flow = Recorder(), Flow()
    savings = flow.savings(books=books)
    for number in range(10):
        savings.add(ALICE, event(number))
    savings.add(BOB, event(10, BOB))
    savings.add(STRANGER, event(11, STRANGER))
    task = asyncio.create_task(savings.run())
    async with asyncio.timeout(5):
        while len(books.events) < 12:
            await asyncio.sleep(0.01)
    task.cancel()
    assert sorted(map(len, books.batches)) == [1, 1, 10]
    assert sum(tenant == STRANGER.tenant for tenant, _ in books.events) == 1
    assert flow.dropped == []


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    flow = Flow()
    savings = flow.savings()
    for number in range(CAPACITY + 5):
        savings.add(ALICE, event(number))
    assert sum(flow.dropped) == 5


async def test_a_ledger_that_is_briefly_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    books, flow = Recorder(failures=module.ATTEMPTS - 1), Flow()
    savings = flow.savings(books=books)
    task = asyncio.create_task(savings.run())
    savings.add(ALICE, event(1))
    await until(lambda: len(books.events) == 1)
    books.failures = module.ATTEMPTS
    savings.add(ALICE, event(2))
    await until(lambda: flow.dropped == [1])
    savings.add(ALICE, event(3))
    await until(lambda: len(books.events) == 2)
    task.cancel()


async def test_what_is_left_at_the_end_is_recorded() -> None:
    books, flow = Recorder(), Flow()
    savings = flow.savings(books=books)
    for number in range(CAPACITY):
        savings.add(ALICE, event(number))
    await savings.flush(5)
    assert len(books.events) == CAPACITY
    assert max(map(len, books.batches)) <= 500


async def test_the_end_does_not_wait_for_a_ledger_that_hangs() -> None:
    class Hanging(Recorder):
        async def record(self, events: tuple[UsageEvent, ...]) -> None:
            await asyncio.Event().wait()

    flow = Flow()
    savings = flow.savings(books=Hanging())
    for number in range(600):
        savings.add(ALICE, event(number))
    await savings.flush(0.01)
    assert sum(flow.dropped) == 600


async def test_what_was_in_hand_at_the_stop_is_recorded() -> None:
    books, flow = Recorder(), Flow()
    savings = flow.savings(books=books)
    task = asyncio.create_task(savings.run())
    savings.add(ALICE, event(1))
    for _ in range(5):
        await asyncio.sleep(0)  # it has taken the first event and gathers company for it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await savings.flush(5)
    assert len(books.events) == 1
    assert flow.dropped == []


async def test_what_was_being_recorded_at_the_stop_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.0)
    stuck = asyncio.Event()

    class Stuck(Recorder):
        async def record(self, events: tuple[UsageEvent, ...]) -> None:
            if len(self.batches) == 1 and not stuck.is_set():
                stuck.set()
                await asyncio.Event().wait()
            await super().record(events)

    books, flow = Stuck(), Flow()
    savings = flow.savings(books=books)
    task = asyncio.create_task(savings.run())
    for number, caller in enumerate((ALICE, BOB, STRANGER)):
        savings.add(caller, event(number, caller))
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await savings.flush(5)
    assert len(books.events) == 3
    assert len(books.batches) == 3, "what was recorded before the stop is not sent again"
    assert flow.dropped == []
