"""The ledger hears of everything in the end, for every tenant, and nothing leaves the outbox before."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from services.runtime.call import current_identity
from services.runtime.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    NotFound,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import HoldState, MemoryBooks, MemoryStore
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.domain import outbox_feeder
from services.summarizer.domain.outbox_feeder import FIRST_DELAY_S, MAX_DELAY_S, FeederSignals, OutboxFeeder
from services.summarizer.domain.ports import Backlog, Books
from services.summarizer.domain.values import Caller, Delivery, Money, TokenCount, UsageEvent
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, PRICES, STRANGER, Clock, until

MOST = TokenCount(100, 100)


class Watch:
    """What the feeder told of itself."""

    def __init__(self) -> None:
        self.delivered = 0
        self.refused: list[str] = []
        self.parked: list[str] = []
        self.broken: list[Exception] = []
        self.backlog = Backlog(0, 0, 0)

    def signals(self) -> FeederSignals:
        return FeederSignals(
            delivered=self._deliver,
            refused=lambda _, error: self.refused.append(error.reason),
            parked=lambda _, error: self.parked.append(error.reason),
            broken=self.broken.append,
            backlog=self._backlog,
        )

    def _deliver(self) -> None:
        self.delivered += 1

    def _backlog(self, backlog: Backlog) -> None:
        self.backlog = backlog


class Flaky(MemoryBooks):
    """Books that are away now and then."""

    down = False
    settles = 0

    async def settle(self, hold_id: str, event: UsageEvent) -> Money:
        self._check()
        self.settles += 1
        return await super().settle(hold_id, event)

    async def release(self, hold_id: str) -> None:
        self._check()
        await super().release(hold_id)

    def _check(self) -> None:
        if self.down:
            raise Unavailable("LEDGER_UNAVAILABLE", "down")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock, grace_s=0)


@pytest.fixture
def books() -> Flaky:
    return Flaky(PRICES)


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    assert watch.broken == []


def feeder(store: MemoryStore, books: Books, watch: Watch) -> OutboxFeeder:
    spending = MemoryJobs(lambda: datetime.now(UTC))
    return OutboxFeeder(
        outbox=store, books=books, spending=spending, act_as=act_as, jitter=lambda: 1.0, signals=watch.signals()
    )


def settlement(number: int, caller: Caller) -> Delivery:
    hold_id = f"00000000-0000-4000-8000-{number:012d}"
    event = UsageEvent(hold_id, MODEL, TokenCount(3, 4), "summarize.map", DOCUMENT, caller.request_id, 1_700_000_000.25)
    return Delivery(hold_id, caller, event)


async def hold(books: MemoryBooks, delivery: Delivery) -> None:
    with act_as(delivery.caller):
        await books.reserve(delivery.hold_id, MODEL, MOST, 60)


async def test_it_delivers_for_every_tenant(store: MemoryStore, books: Flaky, watch: Watch) -> None:
    for delivery in (settlement(1, ALICE), settlement(2, STRANGER)):
        await hold(books, delivery)
        await store.add(delivery)
    assert await feeder(store, books, watch).feed_once() == 2
    assert {tenant for tenant, _ in books.events} == {ALICE.tenant, STRANGER.tenant}
    assert (await store.backlog()).depth == 0
    assert watch.delivered == 2
    with pytest.raises(PagemeshError):
        current_identity()


async def test_a_ledger_that_is_away_is_asked_again_ever_later(
    store: MemoryStore, books: Flaky, watch: Watch, clock: Clock
) -> None:
    delivery = settlement(1, ALICE)
    await hold(books, delivery)
    await store.add(delivery)
    books.down = True
    feed = feeder(store, books, watch)
    for attempt in range(12):
        assert await feed.feed_once() == 1
        delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2**attempt)
        clock.now_s += delay_s - 0.001
        assert await feed.feed_once() == 0
        clock.now_s += 0.001
    books.down = False
    assert await feed.feed_once() == 1
    assert (await store.backlog()).depth == 0
    assert watch.refused == ["LEDGER_UNAVAILABLE"] * 12


async def test_a_delivery_that_was_not_marked_is_made_again_and_counts_once(
    store: MemoryStore, books: Flaky, watch: Watch, clock: Clock
) -> None:
    delivery = settlement(1, ALICE)
    await hold(books, delivery)
    with act_as(ALICE):
        assert delivery.event is not None
        await books.settle(delivery.hold_id, delivery.event)
    await store.add(delivery)
    await feeder(store, books, watch).feed_once()
    assert books.settles == 2
    assert len(books.events) == 1
    assert (await store.backlog()).depth == 0


async def test_a_release_frees_the_hold_or_finds_none(store: MemoryStore, books: Flaky, watch: Watch) -> None:
    made, never_made = settlement(1, ALICE), settlement(2, ALICE)
    await hold(books, made)
    for delivery in (made, never_made):
        await store.add(Delivery(delivery.hold_id, ALICE, None))
    await feeder(store, books, watch).feed_once()
    assert books.holds[made.hold_id].state is HoldState.RELEASED
    assert (await store.backlog()).depth == 0


async def test_a_settlement_without_a_hold_is_parked(
    store: MemoryStore, books: Flaky, watch: Watch, clock: Clock
) -> None:
    await store.add(settlement(1, ALICE))
    feed = feeder(store, books, watch)
    await feed.feed_once()
    clock.now_s += 1e9
    assert await feed.feed_once() == 0
    backlog = await store.backlog()
    assert (backlog.depth, backlog.oldest_age_s, backlog.parked) == (0, 0, 1)
    assert (watch.parked, watch.refused) == (["HOLD_NOT_FOUND"], [])


@pytest.mark.parametrize(
    ("refusal", "is_for_good"),
    [
        (InvalidArgument, True),
        (NotFound, True),
        (FailedPrecondition, True),
        (AlreadyExists, True),
        (Unavailable, False),
        (DeadlineExceeded, False),
        (ResourceExhausted, False),
        (InternalError, False),
    ],
)
async def test_only_what_is_refused_for_good_is_parked(
    store: MemoryStore, books: Flaky, watch: Watch, refusal: type[PagemeshError], is_for_good: bool
) -> None:
    class Refusing(MemoryBooks):
        async def settle(self, hold_id: str, event: UsageEvent) -> Money:
            raise refusal("REFUSED", "no")

    await store.add(settlement(1, ALICE))
    await feeder(store, Refusing(PRICES), watch).feed_once()
    assert (await store.backlog()).parked == is_for_good
    assert len(watch.parked) == is_for_good
    assert len(watch.refused) == (not is_for_good)


async def test_a_round_ends_before_its_leases_do(clock: Clock, books: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(MemoryStore):
        async def done(self, hold_id: str) -> None:
            await asyncio.Event().wait()

    assert outbox_feeder.ROUND_S < outbox_feeder.LEASE_S
    monkeypatch.setattr(outbox_feeder, "ROUND_S", 0.01)
    store, watch = Hanging(clock, grace_s=0), Watch()
    delivery = settlement(1, ALICE)
    await hold(books, delivery)
    await store.add(delivery)
    with pytest.raises(TimeoutError):
        await feeder(store, books, watch).feed_once()
    clock.now_s += outbox_feeder.LEASE_S
    assert len(await store.take(1, 1)) == 1


async def test_a_broken_round_does_not_end_the_feeding(store: MemoryStore, books: Flaky, clock: Clock) -> None:
    class Broken(MemoryStore):
        fails = True

        async def backlog(self) -> Backlog:
            if self.fails:
                self.fails = False
                raise RuntimeError("a mistake of ours")
            return await super().backlog()

    broken, watch = Broken(clock, grace_s=0), Watch()
    task = asyncio.create_task(feeder(broken, books, watch).run())
    await until(lambda: len(watch.broken) == 1)
    delivery = settlement(1, ALICE)
    await hold(books, delivery)
    await broken.add(delivery)
    async with asyncio.timeout(5):
        while watch.delivered == 0:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
