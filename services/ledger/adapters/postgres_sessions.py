"""Signing keys and ended sessions in Postgres."""

from collections.abc import Sequence
from datetime import datetime

from services.database.pool import Pool, single, translate
from services.ledger.adapters.postgres_rows import BIND_TENANT, BOUND, WORK_ACROSS
from services.ledger.domain.signing_keys import Plan, StoredSigningKey

_COLUMNS = "id, public_key, sealed_private_key, create_time, sign_from, sign_until, verify_until"
_ALONE = "SELECT pg_advisory_xact_lock(7102)"
"""One replica plans at a time; the next one sees what it made. 7102 is the lock's own number in this database."""
_READ_KEYS = f"SELECT {_COLUMNS} FROM ledger.signing_keys ORDER BY sign_from DESC LIMIT 2000"  # noqa: S608
_ADD_KEY = f"INSERT INTO ledger.signing_keys ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s)"  # noqa: S608
_DROP_KEYS = "DELETE FROM ledger.signing_keys WHERE verify_until <= %s"

_IS_REVOKED = f"""
    SELECT 1 FROM {BOUND} (
        SELECT 1 FROM ledger.revoked_sessions WHERE tenant = bound.tenant AND id = %(id)s
    ) AS found
"""  # noqa: S608
_REVOKE = """
    INSERT INTO ledger.revoked_sessions (tenant, id, revoke_time, forget_time) VALUES (%s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_FORGET = """
    DELETE FROM ledger.revoked_sessions WHERE (tenant, id) IN (
        SELECT tenant, id FROM ledger.revoked_sessions WHERE forget_time <= now()
        ORDER BY forget_time LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""


class PostgresSigningKeys:
    """SigningKeyStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def agree(self, now: datetime, plan: Plan) -> Sequence[StoredSigningKey]:
        with translate("agree_on_signing_keys"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_ALONE)
                await connection.execute(_DROP_KEYS, (now,))
                cursor = await connection.execute(_READ_KEYS.encode())
                kept = [StoredSigningKey(*row) for row in reversed(await cursor.fetchall())]
                wanted = plan(kept)
                if wanted is None:
                    return kept
                await connection.execute(
                    _ADD_KEY.encode(),
                    (
                        wanted.kid,
                        wanted.public_key,
                        wanted.sealed_private_key,
                        wanted.create_time,
                        wanted.sign_from,
                        wanted.sign_until,
                        wanted.verify_until,
                    ),
                )
                return [*kept, wanted]

    async def all(self) -> Sequence[StoredSigningKey]:
        with translate("read_signing_keys"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_READ_KEYS.encode())
                return [StoredSigningKey(*row) for row in reversed(await cursor.fetchall())]


class PostgresRevokedSessions:
    """RevokedSessions. Replicas are told by a trigger; see PostgresAccessChanges."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, tenant: str, session_id: str, now: datetime, forget_time: datetime) -> None:
        with translate("revoke_session"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                await connection.execute(_REVOKE, (tenant, session_id, now, forget_time))

    async def has(self, tenant: str, session_id: str) -> bool:
        with translate("find_revoked_session"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_IS_REVOKED.encode(), {"tenant": tenant, "id": session_id})
                return await cursor.fetchone() is not None

    async def forget(self, limit: int) -> int:
        with translate("forget_sessions"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(WORK_ACROSS, ("expiry",))
                cursor = await connection.execute(_FORGET, (limit,))
                return cursor.rowcount
