"""Tenants and plans in Postgres, as their operator knows them."""

from collections.abc import Sequence
from datetime import datetime

from psycopg.errors import ForeignKeyViolation, UniqueViolation

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_acting import acting_for, acting_for_operator
from services.ledger.adapters.postgres_rows import Row
from services.ledger.domain import refusals
from services.ledger.domain.members import Changes, Tenant
from services.ledger.domain.plans import Plan

_INSERT = """
    INSERT INTO ledger.tenants (id, display_name, domain, active, plan, create_time, update_time)
    VALUES (%s, %s, nullif(%s, ''), %s, %s, %s, %s)
"""
_FIND = """
    SELECT id, display_name, coalesce(domain, ''), active, plan, create_time, coalesce(update_time, create_time)
    FROM ledger.tenants WHERE id = %s
"""
LIST_TENANTS = """
    SELECT id, display_name, coalesce(domain, ''), active, plan, create_time, coalesce(update_time, create_time)
    FROM ledger.tenants WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
"""
_UPDATE = """
    UPDATE ledger.tenants SET
        display_name = coalesce(%(display_name)s, display_name),
        domain = CASE WHEN %(domain)s::text IS NULL THEN domain ELSE nullif(%(domain)s, '') END,
        active = coalesce(%(active)s, active),
        plan = coalesce(%(plan)s, plan),
        update_time = %(now)s
    WHERE id = %(id)s
    RETURNING id, display_name, coalesce(domain, ''), active, plan, create_time, coalesce(update_time, create_time)
"""
_PLANS = """
    SELECT id, uploads_per_hour, calls_per_hour, max_upload_bytes, max_concurrent_jobs
    FROM ledger.plans ORDER BY id LIMIT 100
"""


class PostgresTenantDirectory:
    """TenantDirectory."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, tenant: Tenant) -> None:
        values = (
            tenant.tenant_id,
            tenant.display_name,
            tenant.domain,
            tenant.active,
            tenant.plan,
            tenant.create_time,
            tenant.update_time,
        )
        with translate("add_tenant"):
            try:
                async with acting_for(self._pool, tenant.tenant_id) as connection:
                    await connection.execute(_INSERT, values)
            except UniqueViolation as exc:
                taken = exc.diag.constraint_name == "tenants_domain_key"
                raise (refusals.domain_taken() if taken else refusals.tenant_exists()) from exc
            except ForeignKeyViolation as exc:
                raise refusals.plan_not_found() from exc

    async def find(self, tenant_id: str) -> Tenant | None:
        with translate("find_tenant"):
            async with acting_for(self._pool, tenant_id) as connection:
                cursor = await connection.execute(_FIND, (tenant_id,))
                row = await cursor.fetchone()
        return None if row is None else _tenant(row)

    async def list(self, after: str, limit: int) -> Sequence[Tenant]:
        with translate("list_tenants"):
            async with acting_for_operator(self._pool) as connection:
                cursor = await connection.execute(LIST_TENANTS, {"after": after, "limit": limit})
                return [_tenant(row) for row in await cursor.fetchall()]

    async def update(self, tenant_id: str, changes: Changes, now: datetime) -> Tenant | None:
        values = {
            "id": tenant_id,
            "display_name": changes.display_name,
            "domain": changes.domain,
            "active": changes.active,
            "plan": changes.plan,
            "now": now,
        }
        with translate("update_tenant"):
            try:
                async with acting_for(self._pool, tenant_id) as connection:
                    cursor = await connection.execute(_UPDATE, values)
                    row = await cursor.fetchone()
            except UniqueViolation as exc:
                raise refusals.domain_taken() from exc
            except ForeignKeyViolation as exc:
                raise refusals.plan_not_found() from exc
        return None if row is None else _tenant(row)

    async def plans(self) -> Sequence[Plan]:
        with translate("list_plans"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_PLANS)
                return [Plan(*row) for row in await cursor.fetchall()]


def _tenant(row: Row) -> Tenant:
    return Tenant(*row)
