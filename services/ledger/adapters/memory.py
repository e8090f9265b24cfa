"""The stores in memory: the same promises as the ones in Postgres, and nothing survives the process."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from services.ledger.adapters import memory_budgets
from services.ledger.domain import refusals
from services.ledger.domain.budgets import Budget, Crossing, Limit
from services.ledger.domain.keys import ApiKey, KeyPlace, StoredKey
from services.ledger.domain.members import Project, User
from services.ledger.domain.plans import UNLIMITED, Plan
from services.ledger.domain.values import Hold, HoldState, Recorded, UsageRecord

Id = tuple[str, UUID]
"""Tenant and the id that is its own."""
AlertKey = tuple[str, str, datetime, Limit, int, int]
"""Tenant, budget, start of the period, kind and amount of the limit, percent."""


@dataclass
class TenantRow:
    """A tenant as it is kept."""

    display_name: str
    create_time: datetime
    active: bool = True
    domain: str = ""
    plan: str = UNLIMITED.plan_id
    update_time: datetime | None = None


@dataclass
class MemoryLedger:
    """What the stores share. Methods do not await between reading and writing, so each is one transaction."""

    tenants: dict[str, TenantRow] = field(default_factory=dict)
    holds: dict[Id, Hold] = field(default_factory=dict)
    usage: dict[Id, UsageRecord] = field(default_factory=dict)
    keys: dict[str, tuple[ApiKey, bytes, bytes | None]] = field(default_factory=dict)
    """Each with the hash of its present secret and of the one before."""
    projects: dict[tuple[str, str], Project] = field(default_factory=dict)
    users: dict[tuple[str, str], User] = field(default_factory=dict)
    plans: dict[str, Plan] = field(
        default_factory=lambda: {
            plan.plan_id: plan
            for plan in (
                Plan("free", 10, 1000, 52_428_800, 1),
                Plan("standard", 600, 60_000, 52_428_800, 10),
                UNLIMITED,
            )
        }
    )
    budgets: dict[tuple[str, str], Budget] = field(default_factory=dict)
    alerts: dict[AlertKey, Crossing] = field(default_factory=dict)

    def check_tenant(self, tenant: str, *, active: bool = False) -> None:
        if tenant not in self.tenants or (active and not self.tenants[tenant].active):
            raise refusals.tenant_unknown()

    def held_micros(self, tenant: str) -> int:
        return sum(h.amount_micros for h in self.holds.values() if h.tenant == tenant and h.state.counts)


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
        memory_budgets.check_room(self._ledger, hold)
        self._ledger.holds[hold.tenant, hold.hold_id] = hold
        memory_budgets.note_crossings(self._ledger, hold.tenant, hold.create_time, hold.create_time)
        return hold

    async def find(self, tenant: str, hold_id: UUID) -> Hold | None:
        return self._ledger.holds.get((tenant, hold_id))

    async def made(self, tenant: str, hold_id: UUID) -> Hold | None:
        return await self.find(tenant, hold_id)

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
        memory_budgets.note_crossings(self._ledger, hold.tenant, hold.create_time, record.record_time)
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

    async def record(self, records: Collection[UsageRecord]) -> Recorded:
        new = []
        for record in records:
            self._ledger.check_tenant(record.tenant)
            known = self._ledger.usage.get((record.tenant, record.event.event_id))
            if known is None:
                new.append(record)
            elif known.event != record.event:
                raise refusals.event_id_reused()
        for record in new:
            self._ledger.usage[record.tenant, record.event.event_id] = record
            memory_budgets.note_crossings(self._ledger, record.tenant, record.record_time, record.record_time)
        return Recorded(len(new), len(records) - len(new))


class MemoryKeys:
    """KeyStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def add(self, key: ApiKey, key_hash: bytes) -> None:
        self._ledger.check_tenant(key.tenant)
        if key.project and (key.tenant, key.project) not in self._ledger.projects:
            raise refusals.project_not_found()
        if key.user and (key.tenant, key.user) not in self._ledger.users:
            raise refusals.user_not_found()
        self._ledger.keys[key.key_id] = (key, key_hash, None)

    async def find(self, key_id: str) -> StoredKey | None:
        if key_id not in self._ledger.keys:
            return None
        key, key_hash, previous_hash = self._ledger.keys[key_id]
        tenant = self._ledger.tenants[key.tenant]
        project = self._ledger.projects.get((key.tenant, key.project))
        user = self._ledger.users.get((key.tenant, key.user))
        return StoredKey(
            key=key,
            key_hash=key_hash,
            tenant_active=tenant.active,
            project_active=project is None or project.active,
            user_active=user is None or user.active,
            role=None if user is None else user.role,
            plan=self._ledger.plans[tenant.plan],
            previous_hash=previous_hash,
        )

    async def list(self, tenant: str, after: KeyPlace | None, limit: int) -> Sequence[ApiKey]:
        keys = [key for key, *_ in self._ledger.keys.values() if key.tenant == tenant]
        keys.sort(key=lambda key: (key.create_time, key.key_id), reverse=True)
        if after is not None:
            keys = [key for key in keys if (key.create_time, key.key_id) < (after.create_time, after.key_id)]
        return keys[:limit]

    async def rotate(self, key: ApiKey, key_hash: bytes) -> ApiKey | None:
        known, present, _ = self._ledger.keys.get(key.key_id, (None, b"", None))
        if known is None or known.tenant != key.tenant or known.revoke_time is not None:
            return None
        rotated = replace(known, rotate_time=key.rotate_time, previous_expire_time=key.previous_expire_time)
        self._ledger.keys[key.key_id] = (rotated, key_hash, present)
        return rotated

    async def revoke(self, tenant: str, key_id: str, now: datetime) -> ApiKey | None:
        key, present, previous = self._ledger.keys.get(key_id, (None, b"", None))
        if key is None or key.tenant != tenant:
            return None
        ended = replace(key, revoke_time=key.revoke_time or now)
        self._ledger.keys[key_id] = (ended, present, previous)
        return ended


class MemoryTenants:
    """TenantStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def ensure(self, tenant: str, display_name: str, now: datetime) -> None:
        self._ledger.tenants.setdefault(tenant, TenantRow(display_name, now))

    async def set_hard_budget(self, tenant: str, hard_micros: int) -> None:
        memory_budgets.set_operator_limit(self._ledger, tenant, hard_micros, datetime.now(UTC))
