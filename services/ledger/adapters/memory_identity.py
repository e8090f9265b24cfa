"""Tenants, projects, users and quotas in memory: the same promises as the ones in Postgres."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from services.ledger.adapters.memory import MemoryLedger, TenantRow
from services.ledger.domain import refusals
from services.ledger.domain.identity_ports import Lease
from services.ledger.domain.members import Changes, Project, Tenant, User
from services.ledger.domain.plans import Kind, Plan
from services.ledger.domain.roles import Role


class MemoryTenantDirectory:
    """TenantDirectory."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def add(self, tenant: Tenant) -> None:
        await asyncio.sleep(0)
        if tenant.tenant_id in self._ledger.tenants:
            raise refusals.tenant_exists()
        self._check(tenant.tenant_id, tenant.domain, tenant.plan)
        self._ledger.tenants[tenant.tenant_id] = TenantRow(
            tenant.display_name,
            tenant.create_time,
            active=tenant.active,
            domain=tenant.domain,
            plan=tenant.plan,
            update_time=tenant.update_time,
        )

    async def find(self, tenant_id: str) -> Tenant | None:
        row = self._ledger.tenants.get(tenant_id)
        return None if row is None else _tenant(tenant_id, row)

    async def list(self, after: str, limit: int) -> Sequence[Tenant]:
        chosen = sorted(tenant_id for tenant_id in self._ledger.tenants if tenant_id > after)
        return [_tenant(tenant_id, self._ledger.tenants[tenant_id]) for tenant_id in chosen[:limit]]

    async def update(self, tenant_id: str, changes: Changes, now: datetime) -> Tenant | None:
        row = self._ledger.tenants.get(tenant_id)
        if row is None:
            return None
        self._check(tenant_id, changes.domain or "", changes.plan or row.plan)
        row.display_name = row.display_name if changes.display_name is None else changes.display_name
        row.domain = row.domain if changes.domain is None else changes.domain
        row.active = row.active if changes.active is None else changes.active
        row.plan = row.plan if changes.plan is None else changes.plan
        row.update_time = now
        return _tenant(tenant_id, row)

    async def plans(self) -> Sequence[Plan]:
        return [self._ledger.plans[plan_id] for plan_id in sorted(self._ledger.plans)]

    def _check(self, tenant_id: str, domain: str, plan: str) -> None:
        others = [row.domain for other, row in self._ledger.tenants.items() if other != tenant_id]
        if domain and domain in others:
            raise refusals.domain_taken()
        if plan not in self._ledger.plans:
            raise refusals.plan_not_found()


class MemoryProjects:
    """ProjectStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def add(self, project: Project) -> None:
        self._ledger.check_tenant(project.tenant)
        if (project.tenant, project.project_id) in self._ledger.projects:
            raise refusals.project_exists()
        self._ledger.projects[project.tenant, project.project_id] = project

    async def find(self, tenant: str, project_id: str) -> Project | None:
        return self._ledger.projects.get((tenant, project_id))

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[Project]:
        found = [p for p in self._ledger.projects.values() if p.tenant == tenant and p.project_id > after]
        return sorted(found, key=lambda project: project.project_id)[:limit]

    async def update(self, tenant: str, project_id: str, changes: Changes, now: datetime) -> Project | None:
        known = self._ledger.projects.get((tenant, project_id))
        if known is None:
            return None
        changed = replace(
            known,
            display_name=known.display_name if changes.display_name is None else changes.display_name,
            active=known.active if changes.active is None else changes.active,
            update_time=now,
        )
        self._ledger.projects[tenant, project_id] = changed
        return changed


class MemoryUsers:
    """UserStore."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    async def add(self, user: User) -> None:
        self._ledger.check_tenant(user.tenant)
        if await self.with_email(user.tenant, user.email) is not None:
            raise refusals.user_exists()
        self._ledger.users[user.tenant, user.user_id] = user

    async def find(self, tenant: str, user_id: str) -> User | None:
        return self._ledger.users.get((tenant, user_id))

    async def with_email(self, tenant: str, email: str) -> User | None:
        return next((u for u in self._ledger.users.values() if (u.tenant, u.email) == (tenant, email)), None)

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[User]:
        found = [u for u in self._ledger.users.values() if u.tenant == tenant and u.email > after]
        return sorted(found, key=lambda user: user.email)[:limit]

    async def update(self, tenant: str, user_id: str, changes: Changes, now: datetime) -> User | None:
        known = self._ledger.users.get((tenant, user_id))
        if known is None:
            return None
        changed = replace(
            known,
            display_name=known.display_name if changes.display_name is None else changes.display_name,
            role=known.role if changes.role is None else changes.role,
            active=known.active if changes.active is None else changes.active,
            update_time=now,
        )
        others = [u for u in self._ledger.users.values() if u.tenant == tenant and u.user_id != user_id]
        if _administers(known) and not _administers(changed) and not any(map(_administers, others)):
            raise refusals.last_admin()
        self._ledger.users[tenant, user_id] = changed
        return changed


class MemoryQuotas:
    """QuotaStore. `lasts_s` tells how long the hour still is, `hour` which one it is."""

    def __init__(self, *, hour: Callable[[], int] = lambda: 0, lasts_s: Callable[[], float] = lambda: 3600.0) -> None:
        self._hour = hour
        self._lasts_s = lasts_s
        self._used: dict[tuple[str, Kind, int], int] = {}

    async def lease(self, tenant: str, kind: Kind, *, quota: int, wanted: int, returned: int = 0) -> Lease:
        place = (tenant, kind, self._hour())
        used = max(0, self._used.get(place, 0) - returned)
        granted = max(0, min(wanted, quota - used))
        self._used[place] = used + granted
        return Lease(granted, self._lasts_s())


def _administers(user: User) -> bool:
    return user.active and user.role is Role.ADMIN


def _tenant(tenant_id: str, row: TenantRow) -> Tenant:
    return Tenant(
        tenant_id,
        row.display_name,
        row.domain,
        row.active,
        row.plan,
        row.create_time,
        row.update_time or row.create_time,
    )
