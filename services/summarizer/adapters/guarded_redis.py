"""Redis that never keeps anybody waiting: a short time for each command, and a rest where it keeps failing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from services.runtime.breaker import Breaker
from services.runtime.errors import Unavailable

T = TypeVar("T")


class GuardedRedis:
    """Commands of one cache."""

    def __init__(self, breaker: Breaker, timeout_s: float) -> None:
        self._breaker = breaker
        self._timeout_s = timeout_s

    async def __call__(self, command: Callable[[], Awaitable[T]], *, times: float = 1.0) -> T:
        """What the command answers within so many times the usual. Raises Unavailable."""
        async with self._breaker.guard():
            try:
                async with asyncio.timeout(self._timeout_s * times):
                    return await command()
            except (RedisError, OSError, TimeoutError) as exc:
                raise Unavailable("CACHE_UNAVAILABLE", "The cache does not answer.") from exc
