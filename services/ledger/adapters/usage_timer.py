"""Keeps the usage records in order, again and again: sums, coming months, months that are over."""

import asyncio

import structlog
from prometheus_client import Counter

from services.ledger.domain.usage_upkeep import UsageUpkeep
from services.runtime.errors import PagemeshError

ROUND_TIMEOUT_S = 30.0
MONTHS_EVERY_S = 600.0

_FOLDED = Counter("pagemesh_ledger_folded_usage_sums", "Queued sums of usage that were added to the rollups.")
_DROPPED = Counter("pagemesh_ledger_dropped_usage_partitions", "Months of usage records removed after their retention.")

log = structlog.get_logger()


class UsageTimer:
    """Sums every `interval_s`, months every MONTHS_EVERY_S. Replicas may do so at the same time."""

    def __init__(self, upkeep: UsageUpkeep, *, interval_s: float) -> None:
        self._upkeep = upkeep
        self._interval_s = interval_s

    async def run(self) -> None:
        """Works until cancelled; a round that fails is tried again at the next."""
        loop = asyncio.get_running_loop()
        months_due = loop.time()
        while True:
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    _FOLDED.inc(await self._upkeep.fold())
                    if loop.time() >= months_due:
                        await self._months()
                        months_due = loop.time() + MONTHS_EVERY_S
            except (PagemeshError, TimeoutError) as exc:
                log.warning("usage_upkeep_failed", error=getattr(exc, "reason", type(exc).__name__))
            await asyncio.sleep(self._interval_s)

    async def _months(self) -> None:
        made = await self._upkeep.prepare_months()
        gone = await self._upkeep.drop_months()
        _DROPPED.inc(gone)
        if made or gone:
            log.info("usage_months", made=made, dropped=gone)
