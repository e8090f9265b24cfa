"""Documents in Postgres. Every statement names the tenant, and every transaction is bound to one by row security."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg

from services.database.pool import Pool, translate
from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.media import MediaType
from services.extractor.domain.ports import DocumentRecord, Erasure

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_COLUMNS = "tenant, sha256, display_name, media_type, size_bytes, create_time, page_count"

_GET = f"SELECT {_COLUMNS} FROM extractor.documents WHERE tenant = %s AND id = %s AND erase_time IS NULL"  # noqa: S608
_GET_ERASED = f"SELECT {_COLUMNS} FROM extractor.documents WHERE tenant = %s AND id = %s AND erase_time <= %s"  # noqa: S608
_LIST = f"""
    SELECT {_COLUMNS} FROM extractor.documents
    WHERE tenant = %(tenant)s AND erase_time IS NULL
      AND (%(time)s::timestamptz IS NULL OR (create_time, id) < (%(time)s, %(id)s))
    ORDER BY create_time DESC, id DESC
    LIMIT %(limit)s
"""  # noqa: S608
_SET_PAGE_COUNT = "UPDATE extractor.documents SET page_count = %s WHERE tenant = %s AND id = %s AND erase_time IS NULL"
# Waits for whoever works on the same document, whether or not it has a row yet; released with the transaction.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s || '/' || %s, 0))"
_INSERT = """
    INSERT INTO extractor.documents
        (tenant, id, sha256, display_name, media_type, size_bytes, create_time, page_count)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (tenant, id) DO UPDATE SET
        display_name = excluded.display_name, media_type = excluded.media_type, size_bytes = excluded.size_bytes,
        create_time = excluded.create_time, page_count = excluded.page_count, erase_time = NULL
    WHERE documents.erase_time IS NOT NULL
"""
_RESERVE = """
    INSERT INTO extractor.documents
        (tenant, id, sha256, display_name, media_type, size_bytes, create_time, page_count, erase_time)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (tenant, id) DO NOTHING
"""
_MARK_ERASED = "UPDATE extractor.documents SET erase_time = %s WHERE tenant = %s AND id = %s AND erase_time IS NULL"
_REMOVE = "DELETE FROM extractor.documents WHERE tenant = %s AND id = %s"
_BIND = "SELECT set_config('pagemesh.tenant', %s, true)"
_BIND_SWEEP = "SELECT set_config('pagemesh.sweep', 'on', true)"
# The only statement over all tenants: it completes what each of them has asked for.
_ERASURES = """
    SELECT tenant, id FROM extractor.documents WHERE erase_time < %s ORDER BY erase_time LIMIT %s
"""


class PostgresDocuments:
    """Implements the port `DocumentRepository`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """See the port."""
        with translate("get_document"):
            async with self._bound(tenant) as connection:
                return await _one(connection, _GET, (tenant, document_id))

    async def list(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[Document]:
        """See the port."""
        values = {
            "tenant": tenant,
            "limit": limit,
            "time": after.create_time if after else None,
            "id": after.id if after else None,
        }
        with translate("list_documents"):
            async with self._bound(tenant) as connection:
                rows = await (await connection.execute(_LIST, values)).fetchall()
        return [_document(row) for row in rows]

    async def set_page_count(self, tenant: str, document_id: str, page_count: int) -> None:
        """See the port."""
        with translate("set_page_count"):
            async with self._bound(tenant) as connection:
                await connection.execute(_SET_PAGE_COUNT, (page_count, tenant, document_id))

    @contextlib.asynccontextmanager
    async def locked(self, tenant: str, document_id: str) -> AsyncIterator[DocumentRecord]:
        """See the port."""
        with translate("change_document"):
            async with self._bound(tenant) as connection:
                await connection.execute(_LOCK, (tenant, document_id))
                yield PostgresRecord(connection, tenant, document_id)

    async def erasures(self, *, before: dt.datetime, limit: int) -> Sequence[Erasure]:
        """See the port."""
        with translate("list_erasures"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_BIND_SWEEP)
                rows = await (await connection.execute(_ERASURES, (before, limit))).fetchall()
        return [Erasure(tenant, bare_id) for tenant, bare_id in rows]

    @contextlib.asynccontextmanager
    async def _bound(self, tenant: str) -> AsyncIterator[Connection]:
        """A transaction in which row security lets this tenant's rows through.

        Statements travel together: the server is waited for when a result is, and at the end.
        """
        async with self._pool.connection() as connection, connection.pipeline():
            await connection.execute(_BIND, (tenant,))
            yield connection


class PostgresRecord:
    """Implements the port `DocumentRecord` within one transaction."""

    def __init__(self, connection: Connection, tenant: str, document_id: str) -> None:
        self._connection = connection
        self._key = (tenant, document_id)

    async def read(self) -> Document | None:
        """See the port."""
        return await _one(self._connection, _GET, self._key)

    async def read_erased(self, *, by: dt.datetime) -> Document | None:
        """See the port."""
        return await _one(self._connection, _GET_ERASED, (*self._key, by))

    async def reserve(self, document: Document, *, until: dt.datetime) -> None:
        """See the port."""
        await self._connection.execute(_RESERVE, (*_values(document), until))

    async def insert(self, document: Document) -> None:
        """See the port."""
        await self._connection.execute(_INSERT, _values(document))

    async def mark_erased(self, at: dt.datetime) -> None:
        """See the port."""
        await self._connection.execute(_MARK_ERASED, (at, *self._key))

    async def remove(self) -> None:
        """See the port."""
        await self._connection.execute(_REMOVE, self._key)


async def _one(connection: Connection, statement: str, values: tuple[Any, ...]) -> Document | None:
    row = await (await connection.execute(statement, values)).fetchone()
    return None if row is None else _document(row)


def _values(document: Document) -> tuple[Any, ...]:
    return (
        document.tenant,
        document.id,
        document.sha256,
        document.display_name,
        document.media_type,
        document.size_bytes,
        document.create_time,
        document.page_count,
    )


def _document(row: tuple[Any, ...]) -> Document:
    tenant, sha256, display_name, media_type, size_bytes, create_time, page_count = row
    return Document(
        tenant=tenant,
        sha256=sha256,
        display_name=display_name,
        media_type=MediaType(media_type),
        size_bytes=size_bytes,
        create_time=create_time.astimezone(dt.UTC),
        page_count=page_count,
    )
