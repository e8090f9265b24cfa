"""Tenants, their budgets and API keys in Postgres."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_acting import acting_for
from services.ledger.adapters.postgres_budgets import set_operator_limit
from services.ledger.adapters.postgres_rows import Row, key_of, statement
from services.ledger.domain import refusals
from services.ledger.domain.keys import ApiKey, KeyPlace, StoredKey
from services.ledger.domain.plans import Plan
from services.ledger.domain.roles import Role

_MISSING = {
    "api_keys_project_fkey": refusals.project_not_found,
    "api_keys_user_id_fkey": refusals.user_not_found,
}

_INSERT_KEY = statement("""
    INSERT INTO ledger.api_keys ({key}, key_hash) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
""")
# The presented key alone is seen at first; it says for which tenant the rest of the transaction acts.
_PRESENT_KEY = "SELECT set_config('pagemesh.key', %(id)s, true)"
_ACT_AS_ITS_TENANT = """
    SELECT set_config('pagemesh.tenant', coalesce((SELECT tenant FROM ledger.api_keys WHERE id = %(id)s), ''), true)
"""
_FIND_KEY = """
    SELECT k.id, k.tenant, k.display_name, k.scopes, k.create_time, k.expire_time, k.revoke_time, k.project, k.user_id,
           k.rotate_time, k.previous_expire_time, k.key_hash, k.previous_hash, t.active, p.active, u.active, u.role,
           q.id, q.uploads_per_hour, q.calls_per_hour, q.max_upload_bytes, q.max_concurrent_jobs
    FROM ledger.api_keys k JOIN ledger.tenants t ON t.id = k.tenant JOIN ledger.plans q ON q.id = t.plan
    LEFT JOIN ledger.projects p ON p.tenant = k.tenant AND p.id = k.project
    LEFT JOIN ledger.users u ON u.tenant = k.tenant AND u.id = k.user_id
    WHERE k.id = %(id)s
"""
LIST_KEYS = statement("""
    SELECT {key} FROM ledger.api_keys
    WHERE tenant = %(tenant)s AND (create_time, id) < (%(after_time)s, %(after_id)s)
    ORDER BY create_time DESC, id DESC LIMIT %(limit)s
""")
_ROTATE_KEY = statement("""
    UPDATE ledger.api_keys
    SET previous_hash = key_hash, key_hash = %(hash)s, rotate_time = %(now)s, previous_expire_time = %(until)s
    WHERE id = %(id)s AND tenant = %(tenant)s AND revoke_time IS NULL
    RETURNING {key}
""")
_REVOKE_KEY = statement("""
    UPDATE ledger.api_keys SET revoke_time = coalesce(revoke_time, %s) WHERE id = %s AND tenant = %s
    RETURNING {key}
""")
_INSERT_TENANT = """
    INSERT INTO ledger.tenants (id, display_name, create_time, update_time) VALUES (%s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""


class PostgresKeys:
    """KeyStore. Changes are told to all services by triggers; see PostgresAccessChanges."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, key: ApiKey, key_hash: bytes) -> None:
        values: tuple[Any, ...] = (
            key.key_id,
            key.tenant,
            key.display_name,
            sorted(key.scopes),
            key.create_time,
            key.expire_time,
            key.revoke_time,
            key.project or None,
            key.user or None,
            key.rotate_time,
            key.previous_expire_time,
            key_hash,
        )
        with translate("add_key"):
            try:
                async with acting_for(self._pool, key.tenant) as connection:
                    await connection.execute(_INSERT_KEY, values)
            except ForeignKeyViolation as exc:
                raise _MISSING.get(exc.diag.constraint_name or "", refusals.tenant_unknown)() from exc

    async def find(self, key_id: str) -> StoredKey | None:
        given = {"id": key_id}
        with translate("find_key"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(_PRESENT_KEY, given)
                await connection.execute(_ACT_AS_ITS_TENANT, given)
                cursor = await connection.execute(_FIND_KEY, given)
                row = await cursor.fetchone()
        return None if row is None else _stored(row)

    async def list(self, tenant: str, after: KeyPlace | None, limit: int) -> Sequence[ApiKey]:
        values = {
            "tenant": tenant,
            "after_time": datetime.max.replace(tzinfo=UTC) if after is None else after.create_time,
            "after_id": "" if after is None else after.key_id,
            "limit": limit,
        }
        with translate("list_keys"):
            async with acting_for(self._pool, tenant) as connection:
                cursor = await connection.execute(LIST_KEYS, values)
                return [key_of(row) for row in await cursor.fetchall()]

    async def rotate(self, key: ApiKey, key_hash: bytes) -> ApiKey | None:
        values = {
            "id": key.key_id,
            "tenant": key.tenant,
            "hash": key_hash,
            "now": key.rotate_time,
            "until": key.previous_expire_time,
        }
        with translate("rotate_key"):
            async with acting_for(self._pool, key.tenant) as connection:
                cursor = await connection.execute(_ROTATE_KEY, values)
                row = await cursor.fetchone()
        return None if row is None else key_of(row)

    async def revoke(self, tenant: str, key_id: str, now: datetime) -> ApiKey | None:
        with translate("revoke_key"):
            async with acting_for(self._pool, tenant) as connection:
                cursor = await connection.execute(_REVOKE_KEY, (now, key_id, tenant))
                row = await cursor.fetchone()
        return None if row is None else key_of(row)


def _stored(row: Row) -> StoredKey:
    """A row of _FIND_KEY."""
    key_hash, previous_hash, tenant_active, project_active, user_active, role = row[11:17]
    return StoredKey(
        key=key_of(row[:11]),
        key_hash=key_hash,
        tenant_active=tenant_active,
        project_active=project_active is not False,
        user_active=user_active is not False,
        role=None if role is None else Role(role),
        plan=Plan(*row[17:]),
        previous_hash=previous_hash,
    )


class PostgresTenants:
    """TenantStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def ensure(self, tenant: str, display_name: str, now: datetime) -> None:
        with translate("ensure_tenant"):
            async with acting_for(self._pool, tenant) as connection:
                await connection.execute(_INSERT_TENANT, (tenant, display_name, now, now))

    async def set_hard_budget(self, tenant: str, hard_micros: int) -> None:
        await set_operator_limit(self._pool, tenant, hard_micros, datetime.now(UTC))
