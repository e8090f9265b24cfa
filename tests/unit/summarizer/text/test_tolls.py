"""Limits by the minute around a provider: who waits, who is told to come back, and what is put back."""

import asyncio
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
