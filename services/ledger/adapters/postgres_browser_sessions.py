"""Browser sessions in Postgres."""

from collections.abc import Sequence
from typing import Any

from psycopg.errors import ForeignKeyViolation

from services.database.pool import Pool, single, translate
from services.ledger.adapters.postgres_rows import ACROSS_CREDENTIALS, BIND_TENANT, BOUND, WORK_ACROSS
from services.ledger.domain import refusals
from services.ledger.domain.browser_sessions import MOST_OF_ONE_ACTOR, BrowserSession

_COLUMNS = "id, tenant, actor, coalesce(provider, ''), scopes, create_time, expire_time, secret_hash"
_ADD = """
    INSERT INTO ledger.browser_sessions
        (id, tenant, actor, provider, scopes, create_time, expire_time, secret_hash)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_END_OLDEST = """
    DELETE FROM ledger.browser_sessions WHERE tenant = %(tenant)s AND id IN (
        SELECT id FROM ledger.browser_sessions WHERE tenant = %(tenant)s AND actor = %(actor)s
        ORDER BY create_time DESC, id DESC OFFSET %(most)s
    )
"""
_GET = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {_COLUMNS} FROM ledger.browser_sessions WHERE tenant = bound.tenant AND id = %(id)s
    ) AS found
"""  # noqa: S608
_FIND = f"""
    SELECT found.* FROM {ACROSS_CREDENTIALS} (
        SELECT {_COLUMNS} FROM ledger.browser_sessions WHERE id = %(id)s
    ) AS found
"""  # noqa: S608
_LIST = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {_COLUMNS} FROM ledger.browser_sessions
        WHERE tenant = bound.tenant AND id > %(after)s AND expire_time > now() ORDER BY id LIMIT %(limit)s
    ) AS found
"""  # noqa: S608
_LIST_OF_ACTOR = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {_COLUMNS} FROM ledger.browser_sessions
        WHERE tenant = bound.tenant AND actor = %(actor)s AND id > %(after)s AND expire_time > now()
        ORDER BY id LIMIT %(limit)s
    ) AS found
"""  # noqa: S608
_DELETE = "DELETE FROM ledger.browser_sessions WHERE tenant = %s AND id = %s"
_FORGET = """
    DELETE FROM ledger.browser_sessions WHERE id IN (
        SELECT id FROM ledger.browser_sessions WHERE expire_time <= now()
        ORDER BY expire_time LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""


class PostgresBrowserSessions:
    """BrowserSessionStore. Replicas are told by a trigger; see PostgresAccessChanges."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, session: BrowserSession) -> None:
        values = (
            session.session_id,
            session.tenant,
            session.actor,
            session.provider or None,
            sorted(session.scopes),
            session.create_time,
            session.expire_time,
            session.secret_hash,
        )
        bound = {"tenant": session.tenant, "actor": session.actor, "most": MOST_OF_ONE_ACTOR}
        with translate("add_browser_session"):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(BIND_TENANT, (session.tenant,))
                    await connection.execute(_ADD, values)
                    await connection.execute(_END_OLDEST, bound)
            except ForeignKeyViolation as exc:
                raise refusals.tenant_unknown() from exc

    async def get(self, tenant: str, session_id: str) -> BrowserSession | None:
        return next(iter(await self._read(_GET, {"tenant": tenant, "id": session_id})), None)

    async def find(self, session_id: str) -> BrowserSession | None:
        return next(iter(await self._read(_FIND, {"id": session_id})), None)

    async def list(self, tenant: str, actor: str, after: str, limit: int) -> Sequence[BrowserSession]:
        values = {"tenant": tenant, "actor": actor, "after": after, "limit": limit}
        return await self._read(_LIST_OF_ACTOR if actor else _LIST, values)

    async def delete(self, tenant: str, session_id: str) -> None:
        with translate("delete_browser_session"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                await connection.execute(_DELETE, (tenant, session_id))

    async def forget(self, limit: int) -> int:
        with translate("forget_browser_sessions"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(WORK_ACROSS, ("expiry",))
                cursor = await connection.execute(_FORGET, (limit,))
                return cursor.rowcount

    async def _read(self, statement: str, values: dict[str, Any]) -> Sequence[BrowserSession]:
        with translate("read_browser_sessions"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(statement.encode(), values)
                rows = await cursor.fetchall()
        return [
            BrowserSession(ident, tenant, actor, provider, frozenset(scopes), created, expires, bytes(hashed))
            for ident, tenant, actor, provider, scopes, created, expires, hashed in rows
        ]
