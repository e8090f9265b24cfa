"""Limits by the minute around a provider: who waits, who is told to come back, and what is put back."""

import asyncio
import heapq
import itertools
from contextlib import aclosing

import pytest

from services.runtime.errors import PagemeshError, ResourceExhausted, Unavailable
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.memory_rates import MemoryRates
from services.summarizer.adapters.tolls import LONGEST_WAIT_S, Tolls
from services.summarizer.domain.rates import Rate
from services.summarizer.domain.values import Answer, TokenCount
from tests.unit.summarizer.text.test_guarded import NO_CONNECTION, PROMPT, RATE_LIMITED, Scripted

RATE = Rate(tokens_per_minute=60, requests_per_minute=0)
"""A token each second. Scripted counts 15 for a call, and 2 are used."""


class World:
    """A provider behind its toll, in a time that passes by sleeping alone."""

    def __init__(self, provider: Scripted, rate: Rate = RATE, *, remaining_s: float | None = None) -> None:
        self.now_s, self.slept = 1000.0, list[float]()
        self.remaining_s = remaining_s
        self.rates = MemoryRates(lambda: self.now_s * 1000)
        tolls = Tolls(
            self.rates, lambda _: rate, lambda name: name, remaining_s=lambda: self.remaining_s, sleep=self.sleep
        )
        self.guarded = GuardedProvider(
            provider,
            remaining_s=lambda: self.remaining_s,
            tenant=lambda: "acme",
            tolls=tolls,
            sleep=self.sleep,
            jitter=lambda: 0.0,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    async def left(self) -> float:
        """Tokens that can be had at once."""
        for tokens in range(60, -60, -1):
            taken = await self.rates.take("scripted/lexrank", RATE, tokens=tokens, most_wait_s=0)
            if taken.reserved:
                await self.rates.give_back("scripted/lexrank", RATE, tokens=tokens)
                return tokens
        raise AssertionError("it is far below nothing")


async def test_what_was_estimated_and_not_used_is_put_back() -> None:
    world = World(Scripted())
    await world.guarded.complete(PROMPT)
    assert await world.left() == 58
    async with aclosing(world.guarded.stream(PROMPT)) as items:
        assert isinstance([item async for item in items][-1], Answer)
    assert await world.left() == 56
    assert world.slept == []


async def test_who_comes_when_it_is_used_up_waits_for_more() -> None:
    provider = Scripted()
    world = World(provider)
    await world.rates.take("scripted/lexrank", RATE, tokens=60, most_wait_s=0)
    await world.guarded.complete(PROMPT)
    assert world.slept == [pytest.approx(15)]
    assert provider.calls == 1


@pytest.mark.parametrize("remaining_s", [10.0, None], ids=["deadline", "nobody waits"])
async def test_without_the_time_to_wait_it_is_told_when_to_come_back_and_nothing_was_sent(
    remaining_s: float | None,
) -> None:
    provider = Scripted()
    world = World(provider, remaining_s=remaining_s)
    await world.rates.take("scripted/lexrank", RATE, tokens=110, most_wait_s=0)
    with pytest.raises(ResourceExhausted) as refused:
        await world.guarded.complete(PROMPT)
    assert refused.value.reason == "PROVIDER_RATE_LIMITED"
    assert refused.value.retry_after_s == pytest.approx(65)
    assert refused.value.metadata["sent"] == "no"
    assert (provider.calls, world.slept) == (0, [])
    assert LONGEST_WAIT_S < 65


async def test_a_429_closes_it_for_everybody_and_costs_no_tokens() -> None:
    provider = Scripted(RATE_LIMITED, RATE_LIMITED, RATE_LIMITED, RATE_LIMITED)
    world = World(provider)
    with pytest.raises(ResourceExhausted):
        await world.guarded.complete(PROMPT)
    assert world.slept == [3.0, 3.0, 3.0], "until then, and each time once"
    taken = await world.rates.take("scripted/lexrank", RATE, tokens=60, most_wait_s=0)
    assert not taken.reserved
    assert taken.wait_s == pytest.approx(3)


async def test_a_429_closes_also_what_nobody_bounds() -> None:
    world = World(Scripted(RATE_LIMITED), Rate(), remaining_s=2.0)
    for _ in range(2):
        with pytest.raises(ResourceExhausted, match="PROVIDER_RATE_LIMITED"):
            await world.guarded.complete(PROMPT)
    world.now_s += 3
    await world.guarded.complete(PROMPT)


@pytest.mark.parametrize(
    ("error", "left"), [(NO_CONNECTION, 60), (Unavailable("PROVIDER_UNAVAILABLE", "It broke off."), 45)]
)
async def test_a_call_that_may_have_been_made_keeps_what_it_took(error: PagemeshError, left: int) -> None:
    world = World(Scripted())
    world.guarded = GuardedProvider(
        Scripted(error),
        remaining_s=lambda: 0.1,
        tenant=lambda: "acme",
        tolls=Tolls(world.rates, lambda _: RATE, lambda name: name, remaining_s=lambda: 0.1, sleep=world.sleep),
        retries=0,
    )
    with pytest.raises(Unavailable):
        await world.guarded.complete(PROMPT)
    assert await world.left() == left


async def test_who_gives_up_while_waiting_leaves_it_to_the_others() -> None:
    world = World(Scripted())
    await world.rates.take("scripted/lexrank", RATE, tokens=60, most_wait_s=0)
    never = asyncio.Event()

    async def sleep(_: float) -> None:
        await never.wait()

    world.guarded = GuardedProvider(
        Scripted(),
        remaining_s=lambda: None,
        tenant=lambda: "acme",
        tolls=Tolls(world.rates, lambda _: RATE, lambda name: name, remaining_s=lambda: None, sleep=sleep),
    )
    waiting = asyncio.create_task(world.guarded.complete(PROMPT))
    while (await world.rates.take("scripted/lexrank", RATE, tokens=0, most_wait_s=0)).reserved:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await world.left() == 0


async def test_a_wrong_usage_number_of_the_provider_can_owe_but_not_give_more_than_full() -> None:
    class Lies(Scripted):
        async def complete(self, prompt: object) -> Answer:
            return Answer((), TokenCount(100, 0))

    world = World(Lies())
    await world.guarded.complete(PROMPT)
    taken = await world.rates.take("scripted/lexrank", RATE, tokens=1, most_wait_s=100)
    assert taken.wait_s == pytest.approx(41)


class Clock:
    """Time that passes when everybody sleeps: several calls side by side."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        rung = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now_s + seconds, next(self._numbers), rung))
        await rung.wait()

    async def pass_until(self, end_s: float) -> None:
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            if not self._sleepers or self._sleepers[0][0] > end_s:
                self.now_s = end_s
                return
            self.now_s, _, rung = heapq.heappop(self._sleepers)
            rung.set()


class Counter:
    """Calls of a model that takes one each second, by the rank of the caller."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.rates = MemoryRates(lambda: self.clock.now_s * 1000)
        self.passed: list[tuple[int, float]] = []
        """Rank, and how long it took."""
        self.refused: list[int] = []
        self.rate = Rate(requests_per_minute=60)
        self.callers: list[asyncio.Task[None]] = []

    def call(self, rank: int, *, again: bool = False) -> None:
        self.callers.append(asyncio.create_task(self._call(rank, again=again)))

    async def _call(self, rank: int, *, again: bool) -> None:
        tolls = Tolls(
            self.rates, lambda _: self.rate, lambda name: name, remaining_s=lambda: None, rank=lambda: rank,
            sleep=self.clock.sleep,
        )  # fmt: skip
        while True:
            begin_s = self.clock.now_s
            try:
                async with tolls.passing("m/x", lambda: TokenCount(0, 0)):
                    self.passed.append((rank, self.clock.now_s - begin_s))
            except ResourceExhausted:
                self.refused.append(rank)
                await self.clock.sleep(1)
            if not again:
                return

    async def begin(self, *ranks: int) -> None:
        """Callers that come again and again; the minute's worth is used up."""
        await self.rates.take("m/x", self.rate, tokens=0, most_wait_s=0)
        for _ in range(59):
            await self.rates.take("m/x", self.rate, tokens=0, most_wait_s=60)
        for rank in ranks:
            self.call(rank, again=True)

    def close(self) -> None:
        for caller in self.callers:
            caller.cancel()


@pytest.mark.parametrize(("rank", "most_s"), [(0, 6.0), (1, 9.0)])
async def test_who_is_more_urgent_does_not_wait_for_what_the_others_reserved(rank: int, most_s: float) -> None:
    counter = Counter()
    await counter.begin(*[2] * 9)
    await counter.clock.pass_until(60)
    assert max(wait_s for _, wait_s in counter.passed) >= 9, "each waits for all others of its rank"
    counter.call(rank)
    await counter.clock.pass_until(90)
    ((_, waited_s),) = [found for found in counter.passed if found[0] == rank]
    assert waited_s <= most_s
    counter.close()


async def test_who_is_not_urgent_does_not_wait_for_ever_and_nothing_is_left_unused() -> None:
    counter = Counter()
    await counter.begin(*[0] * 12, *[2] * 3)
    await counter.clock.pass_until(600)
    found = [rank for rank, _ in counter.passed]
    assert counter.refused == []
    assert 30 <= found.count(2) < found.count(0)
    assert len(found) >= 590
    counter.close()
