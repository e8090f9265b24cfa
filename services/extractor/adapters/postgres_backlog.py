"""Documents that are still to be read for the search index, in Postgres."""

import datetime as dt

from services.database.pool import Pool, translate
from services.extractor.domain.documents import document_id
from services.extractor.domain.indexer import MAX_ATTEMPTS, Unread

_BIND = "SELECT set_config('pagemesh.tenant', %s, true)"
_BIND_INDEXER = "SELECT set_config('pagemesh.indexer', 'on', true)"
# Over all tenants; row security shows what is due, and nothing is changed here.
_DUE = """
    SELECT tenant, id FROM extractor.documents
    WHERE index_due_time <= %s AND erase_time IS NULL AND retention <> 'EPHEMERAL'
    ORDER BY index_due_time LIMIT 20
"""
_SIZE = """
    SELECT count(*) FROM (
        SELECT FROM extractor.documents
        WHERE index_due_time <= %s AND erase_time IS NULL AND retention <> 'EPHEMERAL' LIMIT 10000
    ) AS due
"""
# Whoever comes second finds it not due any more.
_TAKE = """
    UPDATE extractor.documents SET
        index_due_time =
            CASE WHEN searchable_pages >= page_count OR index_attempts >= %(attempts)s THEN NULL
                 ELSE %(until)s::timestamptz END,
        index_attempts = least(index_attempts + 1, %(attempts)s)
    WHERE tenant = %(tenant)s AND id = %(id)s AND index_due_time <= %(now)s AND erase_time IS NULL
    RETURNING index_due_time IS NOT NULL
"""
_PUT_BACK = """
    UPDATE extractor.documents SET index_due_time = %s, index_attempts = greatest(index_attempts - %s, 0)
    WHERE tenant = %s AND id = %s
"""
_STRIKE_OFF = "UPDATE extractor.documents SET index_due_time = NULL WHERE tenant = %s AND id = %s"


class PostgresBacklog:
    """Implements the port `IndexBacklog`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def take(self, *, now: dt.datetime, until: dt.datetime) -> Unread | None:
        """See the port."""
        with translate("take_unread"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_BIND_INDEXER)
                due = await (await connection.execute(_DUE, (now,))).fetchall()
            for tenant, bare_id in due:
                values = {"tenant": tenant, "id": bare_id, "now": now, "until": until, "attempts": MAX_ATTEMPTS}
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(_BIND, (tenant,))
                    row = await (await connection.execute(_TAKE, values)).fetchone()
                if row is not None and row[0]:
                    return Unread(tenant, f"documents/{bare_id}")
        return None

    async def put_back(self, document: Unread, *, due: dt.datetime, counts: bool) -> None:
        """See the port."""
        await self._change(document, _PUT_BACK, due, 0 if counts else 1)

    async def strike_off(self, document: Unread) -> None:
        """See the port."""
        await self._change(document, _STRIKE_OFF)

    async def size(self, *, now: dt.datetime) -> int:
        """See the port."""
        with translate("count_unread"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_BIND_INDEXER)
                row = await (await connection.execute(_SIZE, (now,))).fetchone()
        return int(row[0]) if row else 0

    async def _change(self, document: Unread, statement: str, *values: object) -> None:
        with translate("settle_unread"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_BIND, (document.tenant,))
                await connection.execute(statement, (*values, document.tenant, document_id(document.name)))
