"""Buckets that all replicas share, in Redis: one hash for each model, changed by one script."""

import math
from collections.abc import Awaitable, Callable
from typing import cast

import redis.asyncio as redis
from prometheus_client import Counter

from services.runtime.breaker import Breaker
from services.runtime.errors import PagemeshError
from services.summarizer.adapters.guarded_redis import GuardedRedis
from services.summarizer.adapters.memory_rates import MemoryRates
from services.summarizer.adapters.redis_cache import TIMEOUT_S
from services.summarizer.domain.rates import MAX_CLOSED_S, Rate, Taken

VERSION = 1
_UNSHARED = Counter(
    "pagemesh_summarizer_rates_unshared", "Times that the bucket of this process counted, since Redis was away."
)
# The arithmetic of domain/rates.py, by Redis' own clock: replicas need not agree on the time. A take has
# `most` >= 0; what is given back is taken with a negative number.
_SCRIPT = """
local tpm, rpm, tokens, requests = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local most, close = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(ARGV[7])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + time[2] / 1000
end
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'requests', 'at', 'closed')
local at = tonumber(kept[3]) or now
local passed = math.max(0, now - at)
local function level(stored, minute)
  if minute == 0 then return 0 end
  return math.min(minute, (tonumber(stored) or minute) + passed * minute / 60000)
end
local has_tokens, has_requests = level(kept[1], tpm), level(kept[2], rpm)
local closed = math.min(tonumber(kept[4]) or 0, now + tonumber(ARGV[8]))
if close > 0 then closed = math.max(closed, now + close) end
local wait = 0
if most >= 0 then
  wait = math.max(0, closed - now)
  if tpm > 0 then wait = math.max(wait, (math.min(tokens, tpm) - has_tokens) * 60000 / tpm) end
  if rpm > 0 then wait = math.max(wait, (math.min(requests, rpm) - has_requests) * 60000 / rpm) end
  if wait > most then return {0, math.ceil(wait)} end
end
if tpm > 0 then has_tokens = math.min(tpm, has_tokens - tokens) end
if rpm > 0 then has_requests = math.min(rpm, has_requests - requests) end
local lasts = math.max(closed - now, 60000)
if tpm > 0 then lasts = math.max(lasts, (tpm - has_tokens) * 60000 / tpm) end
if rpm > 0 then lasts = math.max(lasts, (rpm - has_requests) * 60000 / rpm) end
local function text(number) return string.format('%.3f', number) end
redis.call('HSET', KEYS[1], 'tokens', text(has_tokens), 'requests', text(has_requests),
  'at', text(now), 'closed', text(closed))
redis.call('PEXPIRE', KEYS[1], math.ceil(lasts))
return {1, math.ceil(wait)}
"""


class RedisRates:
    """Rates on Redis, or in the process while Redis does not answer in time. `client` is shared and not closed here;
    `now_ms` is for tests, Redis' own clock otherwise."""

    def __init__(
        self,
        client: "redis.Redis",
        *,
        breaker: Breaker,
        timeout_s: float = TIMEOUT_S,
        now_ms: Callable[[], float] | None = None,
    ) -> None:
        self._script = client.register_script(_SCRIPT)
        self._guarded = GuardedRedis(breaker, timeout_s)
        self._now_ms = now_ms
        self._own = MemoryRates() if now_ms is None else MemoryRates(now_ms)

    async def take(self, model: str, rate: Rate, *, tokens: int, most_wait_s: float) -> Taken:
        """Reserves it, or says how long it would take."""
        try:
            reserved, wait = await self._run(model, rate, tokens, 1, most_ms=math.floor(most_wait_s * 1000))
        except PagemeshError:
            _UNSHARED.inc()
            return await self._own.take(model, rate, tokens=tokens, most_wait_s=most_wait_s)
        return Taken(reserved=bool(reserved), wait_s=wait / 1000)

    async def give_back(self, model: str, rate: Rate, *, tokens: int, requests: int = 0) -> None:
        """Puts it back, where it was taken last."""
        try:
            await self._run(model, rate, -tokens, -requests)
        except PagemeshError:
            _UNSHARED.inc()
            await self._own.give_back(model, rate, tokens=tokens, requests=requests)

    async def close(self, model: str, rate: Rate, *, for_s: float) -> None:
        """Lets nobody through, here and wherever it is heard."""
        await self._own.close(model, rate, for_s=for_s)
        try:
            await self._run(model, rate, 0, 0, close_ms=math.ceil(1000 * min(for_s, MAX_CLOSED_S)))
        except PagemeshError:
            _UNSHARED.inc()

    async def _run(
        self, model: str, rate: Rate, tokens: int, requests: int, *, most_ms: int = -1, close_ms: int = 0
    ) -> tuple[int, int]:
        now = "" if self._now_ms is None else self._now_ms()
        limits = [rate.tokens_per_minute, rate.requests_per_minute]
        arguments = [*limits, tokens, requests, most_ms, close_ms, now, math.ceil(1000 * MAX_CLOSED_S)]
        run = lambda: cast("Awaitable[list[int]]", self._script(keys=[_key(model)], args=arguments))  # noqa: E731
        reserved, wait = await self._guarded(run)
        return reserved, wait


def _key(model: str) -> str:
    return f"pagemesh:rates:{VERSION}:{model}"
