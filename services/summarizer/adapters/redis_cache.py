"""Summaries in Redis. Whatever Redis does, the service goes on without it."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import redis.asyncio as redis
from prometheus_client import Counter, Gauge
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.runtime.breaker import Breaker
from services.runtime.errors import PagemeshError
from services.summarizer.adapters.encoding import VERSION, Undecodable, decode_summary, encode_summary
from services.summarizer.adapters.guarded_redis import GuardedRedis
from services.summarizer.domain.values import Summary

TIMEOUT_S = 0.05
MAX_CONNECTIONS = 20
MAX_VALUE_BYTES = 4 * 1024 * 1024
"""A larger summary is not kept: reading it would take longer than the time-out allows."""

_LOOKUPS = Counter("pagemesh_summarizer_cache", "Lookups of summaries, by outcome.", ["outcome"])
_MEMORY = Gauge("pagemesh_redis_memory_bytes", "Memory that Redis uses, as it says itself; 0 where it does not say.")
_PURGE_TIMES = 20
"""Nobody's summary waits for a purge, and it has much to remove: so many times the usual time-out."""


def connect(url: str) -> "redis.Redis":
    """A client that never tries twice: the caller is waiting."""
    # With all connections busy a command waits for one, within its time.
    pool = redis.BlockingConnectionPool.from_url(
        url,
        timeout=None,
        # Each command as a whole is timed, see below: one timer is enough.
        socket_timeout=None,
        socket_connect_timeout=None,
        max_connections=MAX_CONNECTIONS,
        retry=Retry(NoBackoff(), 0),
        protocol=3,
    )
    return redis.Redis.from_pool(pool)


class RedisSummaryCache:
    """SummaryCache on Redis: one key for each summary, forgotten after `ttl_s`."""

    def __init__(self, client: "redis.Redis", *, ttl_s: int, breaker: Breaker, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._guarded = GuardedRedis(breaker, timeout_s)

    async def get(self, tenant: str, key: bytes) -> Summary | None:
        """The summary, or None where there is none, it cannot be read, or Redis does not answer in time."""
        try:
            data = await self._guarded(lambda: self._client.get(_name(tenant, key)))
            summary = decode_summary(tenant, key, data) if isinstance(data, bytes) else None
        except PagemeshError:
            _LOOKUPS.labels("unavailable").inc()
            return None
        except Undecodable:
            _LOOKUPS.labels("unreadable").inc()
            return None
        _LOOKUPS.labels("miss" if summary is None else "hit").inc()
        return summary

    async def put(self, tenant: str, key: bytes, summary: Summary) -> None:
        """Keeps it, if Redis answers in time."""
        data = encode_summary(tenant, key, summary)
        if len(data) > MAX_VALUE_BYTES:
            return
        try:
            await self._guarded(lambda: self._put(_name(tenant, key), _names(tenant, summary.document), data))
        except PagemeshError:
            _LOOKUPS.labels("put_failed").inc()

    async def purge(self, tenant: str, document: str) -> int:
        """Forgets every summary of the document. Raises Unavailable where Redis does not answer."""
        names = _names(tenant, document)
        return await self._guarded(lambda: self._purge(names), times=_PURGE_TIMES)

    async def _put(self, name: str, names: str, data: bytes) -> None:
        async with self._client.pipeline(transaction=True) as together:
            together.set(name, data, ex=self._ttl_s)
            # It outlives all whose names it holds.
            together.sadd(names, name)
            together.expire(names, self._ttl_s)
            await together.execute()

    async def _purge(self, names: str) -> int:
        found = await cast("Awaitable[set[bytes]]", self._client.smembers(names))
        if not found:
            return 0
        async with self._client.pipeline(transaction=True) as together:
            together.unlink(*found)
            # Not as a whole: what was put meanwhile is for whoever put it to take back.
            together.srem(names, *found)
            removed, _ = await together.execute()
        return int(removed)

    async def ping(self) -> None:
        """Raises where Redis does not answer in time."""
        await self._guarded(self._client.ping)
        try:
            async with asyncio.timeout(self._timeout_s):
                told = await self._client.info("memory")
            _MEMORY.set(float(told["used_memory"]))
        except (redis.RedisError, OSError, TimeoutError, KeyError, ValueError):
            # Not everybody may ask for it, and nothing depends on it.
            _MEMORY.set(0)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def _name(tenant: str, key: bytes) -> str:
    return f"pagemesh:summary:{VERSION}:{tenant}:{key.hex()}"


def _names(tenant: str, document: str) -> str:
    """The set of names of a document's summaries."""
    return f"pagemesh:summaries:{VERSION}:{tenant}:{document}"
