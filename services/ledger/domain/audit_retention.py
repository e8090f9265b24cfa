"""How long the beginning of a chain is kept, and how its end is told."""

import uuid
from datetime import datetime, timedelta

from services.ledger.domain.audit import RETENTION_ACTION, AuditEvent, ChainHead
from services.ledger.domain.audit_ports import AuditPartitions, AuditStore
from services.ledger.domain.ports import Clock

TENANTS = 200
MAX_ROUNDS = 10_000
_IDS = uuid.UUID("5a0c7c1e-6f0a-4c3a-9a57-6d1f1f1c8f02")


class AuditRetention:
    """Drops whole months. Several replicas may do so at once, and any step may be broken off and done again.

    Before a month goes, each chain says in an event of its own what it loses, and the place is written down: a proof
    then knows a chain that begins late by right from one whose beginning was taken away.
    """

    def __init__(self, *, store: AuditStore, partitions: AuditPartitions, clock: Clock, keep: timedelta) -> None:
        self._store = store
        self._partitions = partitions
        self._clock = clock
        self._keep = keep

    async def round(self) -> int:
        """Makes the months ahead and drops those past their time; answers how many."""
        now = self._clock()
        await self._partitions.prepare(now)
        months = await self._partitions.expired(now - self._keep)
        for month in months:
            await self._tell(month, now)
            await self._partitions.drop(month)
        return len(months)

    async def _tell(self, month: datetime, now: datetime) -> None:
        tenant = ""
        for _ in range(MAX_ROUNDS):
            last = await self._partitions.last_records(month, tenant, TENANTS)
            for tenant, place in last:
                await self._store.append(tenant, [_dropped(tenant, month, place, now)], now)
                await self._partitions.keep_beginning(tenant, place)
            if len(last) < TENANTS:
                return


def _dropped(tenant: str, month: datetime, place: ChainHead, now: datetime) -> AuditEvent:
    return AuditEvent(
        # The same however often it is told.
        event_id=uuid.uuid5(_IDS, f"{tenant}/{month:%Y-%m}"),
        tenant=tenant,
        occur_time=now,
        action=RETENTION_ACTION,
        actor="system/retention",
        details={"month": f"{month:%Y-%m}", "last_sequence": str(place.sequence), "last_hash": place.hash.hex()},
    )
