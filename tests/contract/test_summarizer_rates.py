"""Rates: in memory and in Valkey, and what only the shared ones can promise. Time is the test's."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import redis.asyncio as redis

from services.runtime.breaker import Breaker
from services.summarizer.adapters.memory_rates import MemoryRates
from services.summarizer.adapters.redis_cache import connect
from services.summarizer.adapters.redis_rates import RedisRates
from services.summarizer.domain.rates import MAX_CLOSED_S, Rate, Rates

RATE = Rate(tokens_per_minute=6_000, requests_per_minute=60)
"""A hundred tokens and a request each second."""


@dataclass
class Clock:
    now_ms: float = 1_800_000_000_000.0

    def __call__(self) -> float:
        return self.now_ms


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator["redis.Redis"]:
    client = connect(valkey_url)
    yield client
    await client.aclose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def model() -> str:
    return f"scripted/{uuid.uuid4().hex}"


def shared(client: "redis.Redis", clock: Clock | None) -> RedisRates:
    # Longer than in earnest: a busy machine is not what is tested here.
    return RedisRates(client, breaker=Breaker("rates-contract"), timeout_s=10, now_ms=clock)


@pytest.fixture(params=["memory", "redis"])
def rates(request: pytest.FixtureRequest, clock: Clock) -> Rates:
    return MemoryRates(clock) if request.param == "memory" else shared(request.getfixturevalue("client"), clock)


async def wait(rates: Rates, model: str, tokens: int, *, rate: Rate = RATE, most_wait_s: float = 1000) -> float:
    """The wait in seconds; less than nothing where it was refused."""
    taken = await rates.take(model, rate, tokens=tokens, most_wait_s=most_wait_s)
    return taken.wait_s if taken.reserved else -taken.wait_s


class TestEveryRates:
    async def test_a_minutes_worth_goes_at_once_and_the_rest_as_it_comes_in(
        self, rates: Rates, clock: Clock, model: str
    ) -> None:
        assert await wait(rates, model, 5_000) == 0
        assert await wait(rates, model, 1_000) == 0
        assert await wait(rates, model, 500) == pytest.approx(5, abs=0.01)
        assert await wait(rates, model, 500) == pytest.approx(10, abs=0.01), "behind whoever came before"
        clock.now_ms += 20_000
        assert await wait(rates, model, 1_000) == 0
        assert await wait(rates, f"{model}-2", 6_000) == 0, "each model has its own"

    async def test_so_many_requests(self, rates: Rates, clock: Clock, model: str) -> None:
        assert [await wait(rates, model, 1) for _ in range(60)] == [0] * 60
        assert await wait(rates, model, 1) == pytest.approx(1, abs=0.01)
        clock.now_ms += 120_000
        assert await wait(rates, model, 1) == 0

    async def test_who_will_not_wait_so_long_takes_nothing(self, rates: Rates, model: str) -> None:
        assert await wait(rates, model, 6_000) == 0
        for _ in range(3):
            assert await wait(rates, model, 1_000, most_wait_s=9) == pytest.approx(-10, abs=0.01)
        assert await wait(rates, model, 1_000, most_wait_s=11) == pytest.approx(10, abs=0.01)

    async def test_what_was_not_used_is_there_again_and_what_was_used_beyond_is_owed(
        self, rates: Rates, model: str
    ) -> None:
        assert await wait(rates, model, 6_000) == 0
        await rates.give_back(model, RATE, tokens=5_500)
        assert await wait(rates, model, 5_500) == 0
        await rates.give_back(model, RATE, tokens=-100)
        assert await wait(rates, model, 100) == pytest.approx(2, abs=0.01)
        await rates.give_back(model, RATE, tokens=1_000_000, requests=1_000)
        assert await wait(rates, model, 6_000) == 0
        assert await wait(rates, model, 100) == pytest.approx(1, abs=0.01), "never more than full"

    async def test_what_is_larger_than_a_minutes_worth_waits_for_a_full_bucket(
        self, rates: Rates, clock: Clock, model: str
    ) -> None:
        assert await wait(rates, model, 12_000) == 0
        assert await wait(rates, model, 100) == pytest.approx(61, abs=0.01)
        clock.now_ms += 61_000
        assert await wait(rates, model, 12_000) == pytest.approx(60, abs=0.01)

    async def test_nobody_is_let_through_while_it_is_closed(self, rates: Rates, clock: Clock, model: str) -> None:
        for rate in (RATE, Rate()):
            name = f"{model}-{rate.tokens_per_minute}"
            await rates.close(name, rate, for_s=7)
            await rates.close(name, rate, for_s=3)
            assert await wait(rates, name, 1, rate=rate) == pytest.approx(7, abs=0.01)
            clock.now_ms += 7_000
            assert await wait(rates, name, 1, rate=rate) == 0
        await rates.close(model, RATE, for_s=1e9)
        assert await wait(rates, model, 1) == pytest.approx(MAX_CLOSED_S, abs=0.01)

    async def test_without_limits_nobody_waits(self, rates: Rates, model: str) -> None:
        assert [await wait(rates, model, 10**9, rate=Rate()) for _ in range(3)] == [0, 0, 0]

    async def test_a_clock_that_is_set_back_gives_and_takes_nothing(
        self, rates: Rates, clock: Clock, model: str
    ) -> None:
        assert await wait(rates, model, 6_000) == 0
        clock.now_ms -= 3_600_000
        assert await wait(rates, model, 100) == pytest.approx(1, abs=0.01)


class TestRedis:
    async def test_replicas_share_one_bucket_and_no_token_is_given_twice(
        self, client: "redis.Redis", clock: Clock, model: str
    ) -> None:
        replicas = [shared(client, clock) for _ in range(3)]
        waits = await asyncio.gather(*(wait(replicas[number % 3], model, 300) for number in range(30)))
        assert sorted(round(one, 1) for one in waits) == [0] * 20 + [3.0 * number for number in range(1, 11)]

    async def test_its_own_clock_counts_and_what_is_full_is_forgotten(self, client: "redis.Redis", model: str) -> None:
        assert await wait(shared(client, None), model, 6_000) == 0
        assert 0 < await client.pttl(f"pagemesh:rates:1:{model}") <= 61_000
        assert await wait(shared(client, None), model, 600_000) > 0

    async def test_while_it_is_away_the_process_has_a_bucket_of_its_own(self, clock: Clock, model: str) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            client = connect(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
            rates = RedisRates(client, breaker=Breaker("rates-away"), timeout_s=0.2, now_ms=clock)
            assert await wait(rates, model, 6_000) == 0
            assert await wait(rates, model, 100) == pytest.approx(1, abs=0.01)
            await rates.give_back(model, RATE, tokens=100, requests=1)
            await rates.close(model, RATE, for_s=9)
            assert await wait(rates, model, 100) == pytest.approx(9, abs=0.01)
            await client.aclose()
