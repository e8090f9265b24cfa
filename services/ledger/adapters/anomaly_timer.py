"""Looks for days that cost far more than usual, again and again."""

import asyncio

import structlog
from prometheus_client import Counter

from services.ledger.domain.cost_anomalies import AnomalyWatch
from services.runtime.errors import PagemeshError

ROUND_TIMEOUT_S = 60.0

_ANOMALIES = Counter("pagemesh_ledger_cost_anomalies", "Days of tenants that cost far more than usual.")

log = structlog.get_logger()


class AnomalyTimer:
    """One round every `interval_s`. Replicas may do so at the same time: each anomaly is told by one of them."""

    def __init__(self, watch: AnomalyWatch, *, interval_s: float) -> None:
        self._watch = watch
        self._interval_s = interval_s

    async def run(self) -> None:
        """Works until cancelled; a round that fails is tried again at the next."""
        while True:
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    await self._round()
            except (PagemeshError, TimeoutError) as exc:
                log.warning("cost_anomalies_failed", error=getattr(exc, "reason", type(exc).__name__))
            await asyncio.sleep(self._interval_s)

    async def _round(self) -> None:
        async for anomaly in self._watch.look():
            _ANOMALIES.inc()
            log.warning(
                "cost_anomaly",
                tenant=anomaly.tenant,
                day=anomaly.day.date().isoformat(),
                cost_micros=anomaly.cost_micros,
                usual_micros=anomaly.usual_micros,
            )
