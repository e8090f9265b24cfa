"""Tenants, their budgets and API keys in Postgres."""

from datetime import UTC, datetime
from typing import Any

from psycopg.errors import ForeignKeyViolation

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_budgets import set_operator_limit
from services.ledger.adapters.postgres_rows import key_of, statement
from services.ledger.domain import refusals
from services.ledger.domain.keys import ApiKey, StoredKey

_INSERT_KEY = statement("INSERT INTO ledger.api_keys ({key}, key_hash) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)")
_FIND_KEY = """
    SELECT k.id, k.tenant, k.display_name, k.scopes, k.create_time, k.expire_time, k.revoke_time, k.key_hash, t.active
    FROM ledger.api_keys k JOIN ledger.tenants t ON t.id = k.tenant WHERE k.id = %s
"""
_REVOKE_KEY = statement("""
    UPDATE ledger.api_keys SET revoke_time = coalesce(revoke_time, %s) WHERE id = %s AND tenant = %s
    RETURNING {key}
""")
_INSERT_TENANT = """
    INSERT INTO ledger.tenants (id, display_name, create_time) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING
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
            key_hash,
        )
        with translate("add_key"):
            try:
                async with self._pool.connection() as connection:
                    await connection.execute(_INSERT_KEY, values)
            except ForeignKeyViolation as exc:
                raise refusals.tenant_unknown() from exc

    async def find(self, key_id: str) -> StoredKey | None:
        with translate("find_key"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_FIND_KEY, (key_id,))
                row = await cursor.fetchone()
        return None if row is None else StoredKey(key_of(row[:7]), row[7], row[8])

    async def revoke(self, tenant: str, key_id: str, now: datetime) -> ApiKey | None:
        with translate("revoke_key"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_REVOKE_KEY, (now, key_id, tenant))
                row = await cursor.fetchone()
        return None if row is None else key_of(row)


class PostgresTenants:
    """TenantStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def ensure(self, tenant: str, display_name: str, now: datetime) -> None:
        with translate("ensure_tenant"):
            async with self._pool.connection() as connection:
                await connection.execute(_INSERT_TENANT, (tenant, display_name, now))

    async def set_hard_budget(self, tenant: str, hard_micros: int) -> None:
        await set_operator_limit(self._pool, tenant, hard_micros, datetime.now(UTC))
