"""The audit chains in memory: the same promises as the ones in Postgres, and nothing survives the process."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services.ledger.domain.audit import Appended, AuditCursor, AuditEvent, AuditRecord, AuditSelection, ChainHead
from services.ledger.domain.audit_chain import extend, genesis


class MemoryAudit:
    """AuditStore and AuditPartitions. Methods do not await between reading and writing."""

    def __init__(self) -> None:
        self.chains: dict[str, list[AuditRecord]] = {}
        self.beginnings: dict[str, ChainHead] = {}
        self._known: set[tuple[str, UUID]] = set()
        self._heads: dict[str, ChainHead] = {}

    async def append(self, tenant: str, events: Sequence[AuditEvent], now: datetime) -> Appended:
        await asyncio.sleep(0)
        fresh = []
        for event in events:
            if (tenant, event.event_id) not in self._known:
                self._known.add((tenant, event.event_id))
                fresh.append(event)
        records = extend(self._heads.get(tenant, genesis(tenant)), fresh, now)
        self.chains.setdefault(tenant, []).extend(records)
        if records:
            self._heads[tenant] = records[-1].head
        return Appended(len(records), len(events) - len(records))

    async def head(self, tenant: str) -> ChainHead:
        return self._heads.get(tenant, genesis(tenant))

    async def beginning(self, tenant: str) -> ChainHead:
        chain = self.chains.get(tenant)
        if chain and chain[0].sequence == 1:
            return genesis(tenant)
        return self.beginnings.get(tenant, genesis(tenant))

    async def list(self, selection: AuditSelection, after: AuditCursor | None, limit: int) -> Sequence[AuditRecord]:
        chosen = [record for record in self.chains.get(selection.tenant, ()) if _matches(record, selection)]
        chosen.sort(key=_order, reverse=True)
        rest = [r for r in chosen if after is None or _order(r) < (after.occur_time, after.sequence)]
        return rest[:limit]

    async def read(self, tenant: str, after: int, until: int, limit: int) -> Sequence[AuditRecord]:
        return [r for r in self.chains.get(tenant, ()) if after < r.sequence <= until][:limit]

    async def prepare(self, at: datetime) -> None:
        """There is nothing to make."""

    async def expired(self, before: datetime) -> Sequence[datetime]:
        firsts = {_month(r.record_time) for chain in self.chains.values() for r in chain}
        return sorted(month for month in firsts if _month_after(month) <= before)

    async def last_records(self, month: datetime, after_tenant: str, limit: int) -> Sequence[tuple[str, ChainHead]]:
        found = []
        for tenant in sorted(self.chains):
            places = [r.head for r in self.chains[tenant] if _month(r.record_time) == month]
            if tenant > after_tenant and places:
                found.append((tenant, places[-1]))
        return found[:limit]

    async def keep_beginning(self, tenant: str, beginning: ChainHead) -> None:
        self.beginnings[tenant] = beginning

    async def drop(self, month: datetime) -> None:
        for tenant, chain in self.chains.items():
            self.chains[tenant] = [r for r in chain if _month(r.record_time) != month]


def _order(record: AuditRecord) -> tuple[datetime, int]:
    return record.event.occur_time, record.sequence


def _month(time: datetime) -> datetime:
    return time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _month_after(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def _matches(record: AuditRecord, selection: AuditSelection) -> bool:
    event = record.event
    return (
        (selection.start is None or event.occur_time >= selection.start)
        and (selection.end is None or event.occur_time < selection.end)
        and selection.actor in ("", event.actor)
        and selection.action in ("", event.action)
        and selection.resource in ("", event.resource)
        and (selection.failed is None or selection.failed == (event.code != 0))
        and selection.code in (0, event.code)
    )
