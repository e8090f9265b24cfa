"""Looks for holds past their time, again and again."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter, Gauge

from services.ledger.domain.books import Books
from services.runtime.errors import PagemeshError

ROUND_TIMEOUT_S = 30.0

_EXPIRED = Counter("pagemesh_ledger_expired_holds", "Holds that ran out and became UNKNOWN.")
_HELD = Gauge("pagemesh_ledger_held_micros", "What open holds of all tenants set aside, in micro-units.")

log = structlog.get_logger()


class ExpiryTimer:
    """One round every `interval_s`, which ends with `also`. Replicas may do so at the same time."""

    def __init__(self, books: Books, *, interval_s: float, also: Callable[[], Awaitable[None]]) -> None:
        self._books = books
        self._interval_s = interval_s
        self._also = also

    async def run(self) -> None:
        """Works until cancelled; a round that fails is tried again at the next."""
        while True:
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    await self._round()
            except (PagemeshError, TimeoutError) as exc:
                log.warning("expiry_failed", error=getattr(exc, "reason", type(exc).__name__))
            await asyncio.sleep(self._interval_s)

    async def _round(self) -> None:
        expired = await self._books.expire()
        if expired:
            _EXPIRED.inc(expired)
            log.info("holds_expired", count=expired)
        _HELD.set(await self._books.held_micros())
        await self._also()
