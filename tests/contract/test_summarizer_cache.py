"""SummaryCache: in memory and on a real Valkey, and what a Valkey that is away or slow does to it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis
from prometheus_client import REGISTRY

from services.runtime.breaker import Breaker
from services.runtime.errors import Unavailable
from services.summarizer.adapters.encoding import encode_summary
from services.summarizer.adapters.memory import MemoryCache
from services.summarizer.adapters.redis_cache import MAX_CONNECTIONS, RedisSummaryCache, connect
from services.summarizer.domain.ports import SummaryCache
from services.summarizer.domain.values import (
    Box,
    Citation,
    Consumption,
    Money,
    Sentence,
    Summary,
    TokenCount,
)
from tests.integration.summarizer.tcp_proxy import TcpProxy

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
TTL_S = 100
SUMMARY = Summary(
    document="documents/" + "a" * 32,
    text='Grüße, "Welt" \x00\ud800. Zweiter Satz.',
    sentences=(
        Sentence('Grüße, "Welt" \x00\ud800.', (Citation(3, "Grüße Welt", (Box(1.5, 2.25, 3.1, 4), Box(0, 0, 1, 1))),)),
        Sentence("Zweiter Satz.", ()),
    ),
    model="mistral/mistral-small-latest",
    extractive=False,
    cached=False,
    failed_pages=(2, 7),
    consumption=Consumption(
        TokenCount(1000, 50), 2, Money("USD", 1234), settled=True, usage_event_ids=("id-1", "id-2")
    ),
)


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator["redis.Redis"]:
    """Sees what is really stored."""
    client = redis.Redis.from_url(valkey_url)
    yield client
    await client.aclose()


@pytest.fixture
async def redis_cache(valkey_url: str) -> AsyncIterator[RedisSummaryCache]:
    breaker = Breaker("redis-contract")
    # Longer than in earnest: a busy machine is not what is tested here.
    cache = RedisSummaryCache(connect(valkey_url), ttl_s=TTL_S, breaker=breaker, timeout_s=10)
    yield cache
    await cache.close()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> SummaryCache:
    if request.param == "memory":
        return MemoryCache()
    found: RedisSummaryCache = request.getfixturevalue("redis_cache")
    return found


class TestEveryCache:
    async def test_what_was_put_comes_back_as_it_was(self, cache: SummaryCache) -> None:
        await cache.put("acme", KEY, SUMMARY)
        assert await cache.get("acme", KEY) == SUMMARY

    async def test_what_was_not_put_is_not_there(self, cache: SummaryCache) -> None:
        await cache.put("acme", KEY, SUMMARY)
        assert await cache.get("acme", OTHER_KEY) is None

    async def test_another_tenant_sees_nothing_of_it(self, cache: SummaryCache) -> None:
        await cache.put("acme", KEY, SUMMARY)
        assert await cache.get("globex", KEY) is None

    async def test_the_last_one_that_was_put_counts(self, cache: SummaryCache) -> None:
        await cache.put("acme", KEY, SUMMARY)
        await cache.put("acme", KEY, replace(SUMMARY, text="newer"))
        assert await cache.get("acme", KEY) == replace(SUMMARY, text="newer")

    async def test_a_purge_forgets_the_summaries_of_one_document(self, cache: SummaryCache) -> None:
        other = replace(SUMMARY, document="documents/" + "b" * 32)
        await cache.put("acme", KEY, SUMMARY)
        await cache.put("acme", b"2" * 32, SUMMARY)
        await cache.put("acme", OTHER_KEY, other)
        await cache.put("globex", KEY, SUMMARY)
        assert await cache.purge("acme", SUMMARY.document) == 2
        assert await cache.get("acme", KEY) is None
        assert await cache.get("acme", b"2" * 32) is None
        assert await cache.get("acme", OTHER_KEY) == other
        assert await cache.get("globex", KEY) == SUMMARY
        assert await cache.purge("acme", SUMMARY.document) == 0


async def test_a_purge_leaves_nothing_behind(redis_cache: RedisSummaryCache, client: "redis.Redis") -> None:
    for number in range(50):
        await redis_cache.put("acme", bytes([number]) * 32, SUMMARY)
    assert await redis_cache.purge("acme", SUMMARY.document) == 50
    assert await client.keys("*") == []


async def test_a_purge_that_is_not_certain_says_so() -> None:
    cache = RedisSummaryCache(connect("redis://127.0.0.1:1/0"), ttl_s=TTL_S, breaker=Breaker("redis-purge"))
    with pytest.raises(Unavailable) as told:
        await cache.purge("acme", SUMMARY.document)
    assert told.value.reason == "CACHE_UNAVAILABLE"
    await cache.close()


async def test_it_is_forgotten_after_its_time(redis_cache: RedisSummaryCache, client: "redis.Redis") -> None:
    await redis_cache.put("acme", KEY, SUMMARY)
    (name,) = await client.keys("pagemesh:summary:*")
    assert TTL_S - 5 < await client.ttl(name) <= TTL_S
    await client.delete(name)
    assert await redis_cache.get("acme", KEY) is None


@pytest.mark.parametrize(
    "planted",
    [
        b"",
        b"nonsense",
        b"[2]",
        b"[1,2,3]",
        b"{}",
        b'[1,"acme"]',
        encode_summary("globex", KEY, SUMMARY),
        encode_summary("acme", OTHER_KEY, SUMMARY),
    ],
    ids=["empty", "no json", "other version", "too short", "no list", "cut", "another tenant's", "another key's"],
)
async def test_what_cannot_be_read_is_not_there(
    redis_cache: RedisSummaryCache, client: "redis.Redis", planted: bytes
) -> None:
    await redis_cache.put("acme", KEY, SUMMARY)
    (name,) = await client.keys("pagemesh:summary:*")
    await client.set(name, planted)
    assert await redis_cache.get("acme", KEY) is None


async def test_many_at_once_share_the_connections(redis_cache: RedisSummaryCache) -> None:
    await redis_cache.put("acme", KEY, SUMMARY)
    found = await asyncio.gather(*(redis_cache.get("acme", KEY) for _ in range(2 * MAX_CONNECTIONS)))
    assert found == [SUMMARY] * (2 * MAX_CONNECTIONS)


async def test_an_answer_that_comes_too_late_is_not_given_to_the_next_one(valkey_url: str) -> None:
    parts = urlsplit(valkey_url)
    async with TcpProxy(parts.hostname or "", parts.port or 0).running() as wire:
        late = valkey_url.replace(f":{parts.port}", f":{wire.port}")
        cache = RedisSummaryCache(connect(late), ttl_s=TTL_S, breaker=Breaker("redis-late"), timeout_s=1)
        await cache.put("acme", KEY, SUMMARY)
        await cache.put("acme", OTHER_KEY, replace(SUMMARY, text="the other one"))
        wire.freeze(requests=False)
        assert await cache.get("acme", KEY) is None
        wire.mend()
        found = await cache.get("acme", OTHER_KEY)
        assert found == replace(SUMMARY, text="the other one")
        await cache.close()


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A server that takes connections and never says a word."""
    hold = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    hold.set()
    server.close()
    await server.wait_closed()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(params=["silent_port", "closed_port"])
def away(request: pytest.FixtureRequest) -> RedisSummaryCache:
    """A cache whose server does not answer; its breaker opens after three failures."""
    port = request.getfixturevalue(request.param)
    breaker = Breaker(f"redis-{request.param}", fail_max=3)
    return RedisSummaryCache(connect(f"redis://127.0.0.1:{port}/0"), ttl_s=TTL_S, breaker=breaker)


async def test_a_server_that_is_away_is_an_empty_cache_and_soon_left_alone(away: RedisSummaryCache) -> None:
    for _ in range(3):
        assert await away.get("acme", KEY) is None
    with pytest.raises(Unavailable) as caught:
        await away.ping()
    assert caught.value.reason == "BREAKER_OPEN"
    await away.put("acme", KEY, SUMMARY)
    await away.close()


async def test_who_asks_whether_it_is_there_learns_how_much_memory_it_uses(valkey_url: str) -> None:
    cache = RedisSummaryCache(
        connect(valkey_url), ttl_s=TTL_S, breaker=Breaker("redis-memory", fail_max=3), timeout_s=10
    )
    await cache.ping()
    assert (REGISTRY.get_sample_value("pagemesh_redis_memory_bytes") or 0) > 0
    await cache.close()
