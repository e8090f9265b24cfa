"""Makes and drops the months of the audit chains, again and again."""

import asyncio

import structlog
from prometheus_client import Counter

from services.ledger.domain.audit_retention import AuditRetention
from services.runtime.errors import PagemeshError

EVERY_S = 3600.0
AGAIN_S = 60.0
"""After a round that failed."""
ROUND_TIMEOUT_S = 300.0

_DROPPED = Counter("pagemesh_ledger_audit_months_dropped", "Months of audit records that were dropped.")

log = structlog.get_logger()


class AuditTimer:
    """One round an hour. Replicas may do so at the same time."""

    def __init__(self, retention: AuditRetention) -> None:
        self._retention = retention

    async def run(self) -> None:
        """Works until cancelled; a round that fails is tried again in a minute."""
        while True:
            pause_s = EVERY_S
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    dropped = await self._retention.round()
                if dropped:
                    _DROPPED.inc(dropped)
                    log.info("audit_months_dropped", count=dropped)
            except Exception as exc:  # what breaks a round must not end the keeping of months
                known = isinstance(exc, PagemeshError | TimeoutError)
                log.warning("audit_months_failed", error=type(exc).__name__, exc_info=None if known else exc)
                pause_s = AGAIN_S
            await asyncio.sleep(pause_s)
