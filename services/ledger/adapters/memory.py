"""The stores in memory: the same promises as the ones in Postgres, and nothing survives the process."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from services.ledger.domain import refusals
from services.ledger.domain.keys import ApiKey, StoredKey
from services.ledger.domain.pricing import PriceBook
from services.ledger.domain.values import Hold, HoldState, Recorded, UsageRecord

Id = tuple[str, UUID]
"""Tenant and the id that is its own."""


@dataclass
class _Tenant:
    display_name: str
    create_time: datetime
    active: bool = True
    hard_micros: int | None = None


@dataclass
class MemoryLedger:
    """What the stores share. Methods do not await between reading and writing, so each is one transaction."""

    tenants: dict[str, _Tenant] = field(default_factory=dict)
    holds: dict[Id, Hold] = field(default_factory=dict)
    usage: dict[Id, UsageRecord] = field(default_factory=dict)
    keys: dict[str, tuple[ApiKey, bytes]] = field(default_factory=dict)
    users: dict[tuple[str, str], str] = field(default_factory=dict)
    """The user, `users/…`, of the tenant's key, `apiKeys/…`."""

    def check_tenant(self, tenant: str, *, active: bool = False) -> None:
        if tenant not in self.tenants or (active and not self.tenants[tenant].active):
            raise refusals.tenant_unknown()

    def held_micros(self, tenant: str) -> int:
        return sum(h.amount_micros for h in self.holds.values() if h.tenant == tenant and h.state.counts)

    def settled_micros(self, tenant: str) -> int:
        return sum(r.cost_micros for r in self.usage.values() if r.tenant == tenant)


class MemoryHolds:
    """HoldStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def reserve(self, hold: Hold) -> Hold:
        await asyncio.sleep(0)
        known = self._ledger.holds.get((hold.tenant, hold.hold_id))
        if known is not None:
            return known
        self._ledger.check_tenant(hold.tenant, active=True)
        hard = self._ledger.tenants[hold.tenant].hard_micros
        if hard is not None:
            settled, held = self._ledger.settled_micros(hold.tenant), self._ledger.held_micros(hold.tenant)
            if settled + held + hold.amount_micros > hard:
                raise refusals.budget_exceeded(hold, hard_micros=hard, settled_micros=settled, held_micros=held)
        self._ledger.holds[hold.tenant, hold.hold_id] = hold
        return hold

    async def find(self, tenant: str, hold_id: UUID) -> Hold | None:
        return self._ledger.holds.get((tenant, hold_id))

    async def settle(self, hold: Hold, record: UsageRecord) -> UsageRecord:
        await asyncio.sleep(0)
        state = self._ledger.holds[hold.tenant, hold.hold_id].state
        if state is HoldState.SETTLED:
            return next(r for r in self._ledger.usage.values() if (r.tenant, r.hold_id) == (hold.tenant, hold.hold_id))
        if state is HoldState.RELEASED:
            raise refusals.hold_released()
        event = (record.tenant, record.event.event_id)
        if event in self._ledger.usage:
            raise refusals.event_id_reused()
        self._ledger.usage[event] = record
        self._ledger.holds[hold.tenant, hold.hold_id] = replace(hold, state=HoldState.SETTLED)
        return record

    async def release(self, tenant: str, hold_id: UUID) -> Hold | None:
        hold = self._ledger.holds.get((tenant, hold_id))
        if hold is None or not hold.state.counts:
            return hold
        self._ledger.holds[tenant, hold_id] = released = replace(hold, state=HoldState.RELEASED)
        return released

    async def expire(self, now: datetime, limit: int) -> int:
        due = [h for h in self._ledger.holds.values() if h.state is HoldState.HELD and h.expire_time <= now][:limit]
        for hold in due:
            self._ledger.holds[hold.tenant, hold.hold_id] = replace(hold, state=HoldState.UNKNOWN)
        return len(due)

    async def unknown(self, tenant: str | None, limit: int) -> Sequence[Hold]:
        found = [h for h in self._ledger.holds.values() if h.state is HoldState.UNKNOWN and tenant in (None, h.tenant)]
        return sorted(found, key=lambda h: (h.create_time, h.tenant, h.hold_id.bytes))[:limit]

    async def held_micros(self) -> int:
        return sum(self._ledger.held_micros(tenant) for tenant in self._ledger.tenants)


class MemoryUsage:
    """UsageStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def record(self, records: Sequence[UsageRecord]) -> Recorded:
        new = []
        for record in records:
            self._ledger.check_tenant(record.tenant)
            known = self._ledger.usage.get((record.tenant, record.event.event_id))
            if known is None:
                new.append(record)
            elif known.event != record.event:
                raise refusals.event_id_reused()
        self._ledger.usage.update({(r.tenant, r.event.event_id): r for r in new})
        return Recorded(len(new), len(records) - len(new))


class MemoryPrices:
    """PriceBooks; the newest is current."""

    def __init__(self, books: Mapping[int, PriceBook]) -> None:
        self._books = books

    async def current(self) -> PriceBook:
        return self._books[max(self._books)]

    async def version(self, version: int) -> PriceBook:
        return self._books[version]


class MemoryKeys:
    """KeyStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def add(self, key: ApiKey, key_hash: bytes) -> None:
        self._ledger.check_tenant(key.tenant)
        self._ledger.keys[key.key_id] = (key, key_hash)

    async def find(self, key_id: str) -> StoredKey | None:
        if key_id not in self._ledger.keys:
            return None
        key, key_hash = self._ledger.keys[key_id]
        return StoredKey(key, key_hash, self._ledger.tenants[key.tenant].active)

    async def revoke(self, tenant: str, key_id: str, now: datetime) -> ApiKey | None:
        key, key_hash = self._ledger.keys.get(key_id, (None, b""))
        if key is None or key.tenant != tenant:
            return None
        ended = replace(key, revoke_time=key.revoke_time or now)
        self._ledger.keys[key_id] = (ended, key_hash)
        return ended


class MemoryTenants:
    """TenantStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def ensure(self, tenant: str, display_name: str, now: datetime) -> None:
        self._ledger.tenants.setdefault(tenant, _Tenant(display_name, now))

    async def set_hard_budget(self, tenant: str, hard_micros: int) -> None:
        self._ledger.check_tenant(tenant)
        self._ledger.tenants[tenant].hard_micros = hard_micros
