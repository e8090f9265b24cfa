"""Public keys of signed requests, and their nonces, in Postgres."""

from datetime import datetime

from services.database.pool import Pool, single, translate
from services.ledger.adapters.postgres_rows import BIND_TENANT, BOUND, WORK_ACROSS

_SET = """
    INSERT INTO ledger.request_keys (tenant, id, public_key, create_time) VALUES (%s, %s, %s, %s)
    ON CONFLICT (tenant, id) DO UPDATE SET public_key = excluded.public_key, create_time = excluded.create_time
"""
_DROP = "DELETE FROM ledger.request_keys WHERE tenant = %s AND id = %s"
_GET = f"""
    SELECT found.* FROM {BOUND} (
        SELECT public_key FROM ledger.request_keys WHERE tenant = bound.tenant AND id = %(id)s
    ) AS found
"""  # noqa: S608
_USE = """
    INSERT INTO ledger.request_nonces (tenant, key_id, nonce, forget_time) VALUES (%s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_FORGET = """
    DELETE FROM ledger.request_nonces WHERE (tenant, key_id, nonce) IN (
        SELECT tenant, key_id, nonce FROM ledger.request_nonces WHERE forget_time <= now()
        ORDER BY forget_time LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""


class PostgresRequestKeys:
    """RequestKeyStore. Replicas are told by triggers; see PostgresAccessChanges."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def set(self, tenant: str, key_id: str, public_key: bytes | None, now: datetime) -> None:
        with translate("set_request_key"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                if public_key is None:
                    await connection.execute(_DROP, (tenant, key_id))
                else:
                    await connection.execute(_SET, (tenant, key_id, public_key, now))

    async def get(self, tenant: str, key_id: str) -> bytes | None:
        with translate("find_request_key"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_GET.encode(), {"tenant": tenant, "id": key_id})
                row = await cursor.fetchone()
        return None if row is None else row[0]

    async def use(self, tenant: str, key_id: str, nonce: bytes, forget_time: datetime) -> bool:
        with translate("use_nonce"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(_USE, (tenant, key_id, nonce, forget_time))
                return cursor.rowcount == 1

    async def forget(self, limit: int) -> int:
        with translate("forget_nonces"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(WORK_ACROSS, ("expiry",))
                cursor = await connection.execute(_FORGET, (limit,))
                return cursor.rowcount
