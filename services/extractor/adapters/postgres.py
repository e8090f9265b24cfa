"""Documents in Postgres. Every statement names the tenant, and every transaction is bound to one by row security."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import psycopg

from services.audit import outbox
from services.database.pool import Pool, single, translate
from services.extractor.adapters.receipt_events import receipt_event
from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.keeping import Erasing
from services.extractor.domain.media import MediaType
from services.extractor.domain.ports import DocumentRecord
from services.extractor.domain.receipts import Cause, DeletionReceipt, Erased
from services.extractor.domain.retention import Retention, Term

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

COLUMNS = (
    "tenant, sha256, display_name, media_type, size_bytes, create_time, page_count, retention, expire_time,"
    " searchable_pages"
)

# What is behind it is looked at for the tenant that this has just bound the transaction to, so that a read is one
# statement: the row that it makes comes before those that depend on it, and neither is merged into what is around it.
BOUND = "(SELECT set_config('pagemesh.tenant', %(tenant)s, true) AS tenant OFFSET 0) AS bound CROSS JOIN LATERAL"

_FIND = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {COLUMNS} FROM extractor.documents
        WHERE documents.tenant = bound.tenant AND id = %(id)s AND erase_time IS NULL OFFSET 0
    ) AS found
"""  # noqa: S608
_GET = f"SELECT {COLUMNS} FROM extractor.documents WHERE tenant = %s AND id = %s AND erase_time IS NULL"  # noqa: S608
_GET_ERASED = f"""
    SELECT {COLUMNS}, erase_cause, erase_actor, results_deleted
    FROM extractor.documents WHERE tenant = %s AND id = %s AND erase_time <= %s
"""  # noqa: S608
_LIST = f"""
    SELECT {COLUMNS} FROM extractor.documents
    WHERE tenant = %(tenant)s AND erase_time IS NULL
      AND (%(time)s::timestamptz IS NULL OR (create_time, id) < (%(time)s, %(id)s))
    ORDER BY create_time DESC, id DESC
    LIMIT %(limit)s
"""  # noqa: S608
# Waits for whoever works on the same document, whether or not it has a row yet; released with the transaction.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s || '/' || %s, 0))"
# Over a reservation only: what is being erased is to be gone first.
_INSERT = """
    INSERT INTO extractor.documents
        (tenant, id, sha256, display_name, media_type, size_bytes, create_time, page_count, retention, expire_time)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (tenant, id) DO UPDATE SET
        display_name = excluded.display_name, media_type = excluded.media_type, size_bytes = excluded.size_bytes,
        create_time = excluded.create_time, page_count = excluded.page_count, retention = excluded.retention,
        expire_time = excluded.expire_time, process_time = NULL, erase_time = NULL, claim_time = NULL
    WHERE documents.erase_time IS NOT NULL AND documents.erase_cause IS NULL
    RETURNING true
"""
_RESERVE = """
    INSERT INTO extractor.documents
        (tenant, id, sha256, display_name, media_type, size_bytes, create_time, page_count, retention, expire_time,
         erase_time)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (tenant, id) DO UPDATE SET erase_time = greatest(documents.erase_time, excluded.erase_time)
    WHERE documents.erase_time IS NOT NULL AND documents.erase_cause IS NULL
"""
_IS_FREE = """
    SELECT erase_cause IS NULL FROM extractor.documents WHERE tenant = %s AND id = %s AND erase_time IS NOT NULL
"""
_SET_TERM = """
    UPDATE extractor.documents SET retention = %s, expire_time = %s, process_time = NULL
    WHERE tenant = %s AND id = %s AND erase_time IS NULL
    RETURNING true
"""
_MARK_ERASED = """
    UPDATE extractor.documents SET erase_time = %s, erase_cause = %s, erase_actor = %s, claim_time = %s
    WHERE tenant = %s AND id = %s AND erase_time IS NULL
"""
_NOTE_RESULTS = """
    UPDATE extractor.documents SET results_deleted = results_deleted + %s
    WHERE tenant = %s AND id = %s AND erase_cause IS NOT NULL
"""
# The document first, as whoever writes its pages does: nobody then waits for each other.
_LOCK_ROW = "SELECT FROM extractor.documents WHERE tenant = %s AND id = %s FOR UPDATE"
# All of this would go with the document; taken out by hand it can be counted.
_REMOVE_PAGES = """
    WITH key (tenant, id) AS (VALUES (%s, %s)),
    stored AS (
        DELETE FROM extractor.page_segments AS s USING key WHERE s.tenant = key.tenant AND s.document_id = key.id
        RETURNING last_page - first_page + 1 AS pages
    ),
    drawn AS (
        DELETE FROM extractor.drawn_pages AS d USING key WHERE d.tenant = key.tenant AND d.document_id = key.id
        RETURNING 1
    ),
    indexed AS (
        DELETE FROM extractor.page_index AS i USING key WHERE i.tenant = key.tenant AND i.document_id = key.id
        RETURNING 1
    ),
    vectors AS (
        DELETE FROM extractor.page_vectors AS v USING key WHERE v.tenant = key.tenant AND v.document_id = key.id
        RETURNING 1
    )
    SELECT (SELECT coalesce(sum(pages), 0) FROM stored) + (SELECT count(*) FROM drawn),
           (SELECT count(*) FROM indexed) + (SELECT count(*) FROM vectors)
"""
_REMOVE = "DELETE FROM extractor.documents WHERE tenant = %s AND id = %s"
_ADD_RECEIPT = """
    INSERT INTO extractor.deletion_receipts
        (tenant, id, document_id, sha256, size_bytes, objects_deleted, pages_deleted, index_entries_deleted,
         results_deleted, cause, actor, delete_time, digest)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_BIND = "SELECT set_config('pagemesh.tenant', %s, true)"


class PostgresDocuments:
    """Implements the port `DocumentRepository`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """See the port."""
        with translate("get_document"):
            async with single(self._pool) as connection:
                return await _one(connection, _FIND, {"tenant": tenant, "id": document_id})

    async def list(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[Document]:
        """See the port."""
        values = {
            "tenant": tenant,
            "limit": limit,
            "time": after.create_time if after else None,
            "id": after.id if after else None,
        }
        with translate("list_documents"):
            async with bound(self._pool, tenant) as connection:
                rows = await (await connection.execute(_LIST, values)).fetchall()
        return [document_of(row) for row in rows]

    @contextlib.asynccontextmanager
    async def locked(self, tenant: str, document_id: str) -> AsyncIterator[DocumentRecord]:
        """See the port."""
        with translate("change_document"):
            async with bound(self._pool, tenant) as connection:
                await connection.execute(_LOCK, (tenant, document_id))
                yield PostgresRecord(connection, tenant, document_id)


class PostgresRecord:
    """Implements the port `DocumentRecord` within one transaction."""

    def __init__(self, connection: Connection, tenant: str, document_id: str) -> None:
        self._connection = connection
        self._key = (tenant, document_id)

    async def read(self) -> Document | None:
        """See the port."""
        return await _one(self._connection, _GET, self._key)

    async def read_erased(self, *, by: dt.datetime) -> Erasing | None:
        """See the port."""
        row = await (await self._connection.execute(_GET_ERASED, (*self._key, by))).fetchone()
        if row is None:
            return None
        *columns, cause, actor, results = row
        return Erasing(document_of(tuple(columns)), Cause(cause) if cause else None, actor or "", results)

    async def reserve(self, document: Document, *, until: dt.datetime) -> bool:
        """See the port."""
        await self._connection.execute(_RESERVE, (*_values(document), until))
        row = await (await self._connection.execute(_IS_FREE, self._key)).fetchone()
        # Without a row that is hidden there is one that is alive.
        return row is None or bool(row[0])

    async def insert(self, document: Document) -> bool:
        """See the port."""
        return await (await self._connection.execute(_INSERT, _values(document))).fetchone() is not None

    async def set_term(self, term: Term) -> bool:
        """See the port."""
        values = (term.retention.name, term.expire_time, *self._key)
        return await (await self._connection.execute(_SET_TERM, values)).fetchone() is not None

    async def mark_erased(self, at: dt.datetime, *, cause: Cause, actor: str, until: dt.datetime) -> None:
        """See the port."""
        await self._connection.execute(_MARK_ERASED, (at, cause.value, actor, until, *self._key))

    async def note_results(self, count: int) -> None:
        """See the port."""
        await self._connection.execute(_NOTE_RESULTS, (count, *self._key))

    async def remove(self) -> Erased:
        """See the port."""
        await self._connection.execute(_LOCK_ROW, self._key)
        row = await (await self._connection.execute(_REMOVE_PAGES, self._key)).fetchone()
        await self._connection.execute(_REMOVE, self._key)
        assert row is not None
        return Erased(pages=int(row[0]), index_entries=row[1])

    async def add_receipt(self, receipt: DeletionReceipt) -> None:
        """See the port."""
        values = (
            receipt.tenant,
            receipt.id,
            receipt.document_id,
            receipt.sha256,
            receipt.size_bytes,
            receipt.objects_deleted,
            receipt.pages_deleted,
            receipt.index_entries_deleted,
            receipt.results_deleted,
            receipt.cause.value,
            receipt.actor,
            receipt.delete_time,
            receipt.digest,
        )
        await self._connection.execute(_ADD_RECEIPT, values)
        # In the same transaction: there is no receipt that the audit trail does not come to tell of.
        await outbox.add(self._connection, "extractor", receipt_event(receipt))


@contextlib.asynccontextmanager
async def bound(pool: Pool, tenant: str) -> AsyncIterator[Connection]:
    """A transaction in which row security lets this tenant's rows through.

    Statements travel together: the server is waited for when a result is, and at the end.
    """
    async with pool.connection() as connection, connection.pipeline():
        await connection.execute(_BIND, (tenant,))
        yield connection


async def _one(connection: Connection, statement: str, values: tuple[Any, ...] | Mapping[str, Any]) -> Document | None:
    row = await (await connection.execute(statement, values)).fetchone()
    return None if row is None else document_of(row)


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
        document.term.retention.name,
        document.term.expire_time,
    )


def document_of(row: tuple[Any, ...]) -> Document:
    """The document in a row of COLUMNS."""
    (
        tenant,
        sha256,
        display_name,
        media_type,
        size_bytes,
        create_time,
        page_count,
        retention,
        expire_time,
        searchable,
    ) = row
    return Document(
        tenant=tenant,
        sha256=sha256,
        display_name=display_name,
        media_type=MediaType(media_type),
        size_bytes=size_bytes,
        create_time=create_time.astimezone(dt.UTC),
        page_count=page_count,
        term=Term(Retention[retention], expire_time.astimezone(dt.UTC)),
        searchable_pages=searchable,
    )
