"""Drawn pages in Postgres, beside the documents that they go with."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import psycopg

from services.database.pool import Pool, translate
from services.extractor.domain.drawn import MAX_TENANT_BYTES, MIN_WEIGHT_BYTES, DrawnKey
from services.extractor.domain.pages import Picture

_KEY = """
    tenant = %(tenant)s AND document_id = %(document_id)s AND page = %(page)s AND dpi = %(dpi)s
    AND format = %(format)s AND jpeg_quality = %(jpeg_quality)s
"""
_GET = f"SELECT width_px, height_px, content FROM extractor.drawn_pages WHERE {_KEY}"  # noqa: S608
# FOR KEY SHARE: whoever removes the document at the moment is waited for, and it is gone then; whoever comes after this
# waits, and removes the picture too.
_KEEP = """
    INSERT INTO extractor.drawn_pages
        (tenant, document_id, page, dpi, format, jpeg_quality, width_px, height_px, size_bytes, create_time, content)
    SELECT tenant, id, %(page)s, %(dpi)s, %(format)s, %(jpeg_quality)s, %(width_px)s, %(height_px)s, %(size_bytes)s,
           %(now)s, %(content)b
    FROM extractor.documents
    WHERE tenant = %(tenant)s AND id = %(document_id)s AND erase_time IS NULL
    FOR KEY SHARE
    ON CONFLICT (tenant, document_id, page, dpi, format, jpeg_quality) DO UPDATE SET
        width_px = excluded.width_px, height_px = excluded.height_px, size_bytes = excluded.size_bytes,
        create_time = excluded.create_time, content = excluded.content
"""
# SKIP LOCKED: what somebody else removes at the moment is gone without us.
_TRIM = """
    DELETE FROM extractor.drawn_pages WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM extractor.drawn_pages WHERE ctid = ANY (ARRAY(
            SELECT place FROM (
                SELECT ctid AS place,
                       sum(greatest(size_bytes, %(least)s)) OVER (ORDER BY create_time DESC, ctid) AS total
                FROM extractor.drawn_pages WHERE tenant = %(tenant)s
            ) AS newest_first
            WHERE total > %(most)s
        ))
        FOR UPDATE SKIP LOCKED
    ))
"""
_EXPIRE = """
    DELETE FROM extractor.drawn_pages WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM extractor.drawn_pages WHERE create_time <= %(now)s::timestamptz - interval '1 day'
        ORDER BY create_time LIMIT %(limit)s
    ))
"""
_BIND = "SELECT set_config('pagemesh.tenant', %s, true)"
# Row security shows a transaction that says the time what is old enough by then, of all tenants, and nothing else.
_ACT_AT = "SELECT set_config('pagemesh.lifecycle_time', %s, true)"


class PostgresDrawnPages:
    """Implements the port `DrawnPages`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, key: DrawnKey) -> Picture | None:
        """See the port."""
        with translate("get_drawn_page"):
            # In binary: as text the picture would be twice as long.
            async with self._transaction(_BIND, key.tenant) as connection, connection.cursor(binary=True) as cursor:
                row = await (await cursor.execute(_GET, _values(key))).fetchone()
        return None if row is None else Picture(key.format, *row)

    async def keep(self, key: DrawnKey, picture: Picture, *, now: dt.datetime) -> None:
        """See the port."""
        values = {
            **_values(key),
            "width_px": picture.width_px,
            "height_px": picture.height_px,
            "size_bytes": len(picture.content),
            "now": now,
            "content": picture.content,
        }
        with translate("keep_drawn_page"):
            async with self._transaction(_BIND, key.tenant) as connection:
                await connection.execute(_KEEP, values)
                limits = {"tenant": key.tenant, "least": MIN_WEIGHT_BYTES, "most": MAX_TENANT_BYTES}
                await connection.execute(_TRIM, limits)

    async def expire(self, *, now: dt.datetime, limit: int) -> int:
        """See the port."""
        with translate("expire_drawn_pages"):
            async with self._transaction(_ACT_AT, now.isoformat()) as connection:
                return (await connection.execute(_EXPIRE, {"now": now, "limit": limit})).rowcount

    @contextlib.asynccontextmanager
    async def _transaction(self, bind: str, to: str) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(bind, (to,))
            yield connection


def _values(key: DrawnKey) -> dict[str, Any]:
    return {
        "tenant": key.tenant,
        "document_id": key.document_id,
        "page": key.page,
        "dpi": key.dpi,
        "format": key.format.name,
        "jpeg_quality": key.jpeg_quality,
    }
