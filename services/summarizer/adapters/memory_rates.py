"""Buckets of one process: for tests, and for a replica that cannot reach those that all share."""

import time
from collections.abc import Callable
from dataclasses import replace

from services.summarizer.domain.rates import MAX_CLOSED_S, Bucket, Rate, Taken, less, now_at, wait_ms


class MemoryRates:
    """Rates in one process; there are no more buckets than models."""

    def __init__(self, now_ms: Callable[[], float] = lambda: time.monotonic() * 1000) -> None:
        self._now_ms = now_ms
        self._buckets: dict[str, Bucket] = {}

    async def take(self, model: str, rate: Rate, *, tokens: int, most_wait_s: float) -> Taken:
        """Reserves it, or says how long it would take."""
        bucket = now_at(self._buckets.get(model), rate, self._now_ms())
        wait = wait_ms(bucket, rate, tokens, 1)
        if wait > most_wait_s * 1000:
            return Taken(reserved=False, wait_s=wait / 1000)
        self._buckets[model] = less(bucket, rate, tokens, 1)
        return Taken(reserved=True, wait_s=wait / 1000)

    async def give_back(self, model: str, rate: Rate, *, tokens: int, requests: int = 0) -> None:
        """Puts it back."""
        bucket = now_at(self._buckets.get(model), rate, self._now_ms())
        self._buckets[model] = less(bucket, rate, -tokens, -requests)

    async def close(self, model: str, rate: Rate, *, for_s: float) -> None:
        """Lets nobody through."""
        bucket = now_at(self._buckets.get(model), rate, self._now_ms())
        closed_ms = max(bucket.closed_ms, bucket.at_ms + 1000 * min(for_s, MAX_CLOSED_S))
        self._buckets[model] = replace(bucket, closed_ms=closed_ms)
