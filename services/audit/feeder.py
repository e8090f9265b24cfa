"""Brings events from the outbox into the chains of the ledger, until it has acknowledged them."""

import asyncio
import random
from collections.abc import Sequence

import structlog
from prometheus_client import Counter, Gauge

from pagemesh.ledger.v1 import audit_service_pb2 as pb
from pagemesh.ledger.v1.audit_service_pb2_grpc import AuditServiceStub
from services.audit.outbox import AuditOutbox, Feeding, Told
from services.runtime.clients import MeshClient
from services.runtime.errors import InvalidArgument, PagemeshError

BATCH = 500
POLL_S = 0.5
MAX_DELAY_S = 10.0
CAP_S = 10.0
"""Longest time for one call of the ledger; the transaction around it may idle for three times that."""
ROUND_S = 60.0

_FED = Counter("pagemesh_audit_events_fed", "Audit events that the ledger has acknowledged.")
_DEPTH = Gauge("pagemesh_audit_outbox_depth", "Audit events that the ledger has not acknowledged.")
_AGE = Gauge("pagemesh_audit_outbox_oldest_seconds", "Age of the oldest of them.")
_PARKED = Gauge("pagemesh_audit_outbox_parked", "Audit events that the ledger refused for good; not in the depth.")

log = structlog.get_logger()


class AuditFeeder:
    """One replica feeds at a time and the others stand by, so that events reach the ledger in their order."""

    def __init__(self, outbox: AuditOutbox, ledger: MeshClient) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._stub = AuditServiceStub(ledger.channel)

    async def run(self) -> None:
        """Feeds until cancelled. An event that was fed and not struck out is fed again, which the ledger takes for the
        same."""
        failures = 0
        while True:
            fed = 0
            try:
                async with asyncio.timeout(ROUND_S):
                    fed = await self.feed_once()
                failures = 0
            except Exception as exc:  # a round that fails must not end the feeding
                known = isinstance(exc, PagemeshError | TimeoutError)
                reason = getattr(exc, "reason", type(exc).__name__)
                log.warning("audit_feed_failed", reason=reason, exc_info=None if known else exc)
                failures += 1
            if fed < BATCH:
                pause_s = min(MAX_DELAY_S, POLL_S * 2.0 ** min(failures, 10))
                await asyncio.sleep(pause_s * (0.5 + random.random() / 2))  # spreads replicas, no secret

    async def feed_once(self) -> int:
        """One batch; answers how many events left the outbox. Raises what the database and the ledger raise."""
        async with self._outbox.feeding() as feeding:
            if feeding is None:
                return 0
            rows = await feeding.take(BATCH)
            if rows:
                await self._deliver(feeding, rows)
            backlog = await feeding.backlog()
        _FED.inc(len(rows))
        _DEPTH.set(backlog.waiting)
        _AGE.set(backlog.oldest_age_s)
        _PARKED.set(backlog.parked)
        return len(rows)

    async def _deliver(self, feeding: Feeding, rows: Sequence[Told]) -> None:
        try:
            await self._tell(rows)
        except InvalidArgument as exc:
            if len(rows) > 1:  # one of them: in halves it is found in nine steps, and the order stays
                middle = len(rows) // 2
                await self._deliver(feeding, rows[:middle])
                await self._deliver(feeding, rows[middle:])
                return
            log.error("audit_event_parked", event_id=rows[0].event.event_id, reason=exc.reason)
            await feeding.park(rows[0], f"{exc.reason}: {exc.message}")
            return
        await feeding.done(rows)

    async def _tell(self, rows: Sequence[Told]) -> None:
        request = pb.RecordEventsRequest(events=[row.event for row in rows])
        await self._ledger.unary(self._stub.RecordEvents, request, cap_s=CAP_S)
