"""Vectors of pages in Postgres, by pgvector.

A search compares the query with every passage of the tenant (and of the documents that are asked for): exact, whatever
the tenant's share of the table is. An approximate index over all tenants would find other tenants' passages first,
which row security then takes away.
"""

from collections.abc import Sequence

import psycopg

from services.database.pool import Pool, translate
from services.extractor.domain.documents import not_found
from services.extractor.domain.hybrid import Passage, Vector
from services.extractor.domain.search import Filters, FoundPage
from services.runtime.errors import DeadlineExceeded

_BIND = """
    SELECT set_config('pagemesh.tenant', %s, true), set_config('statement_timeout', %s, true),
           set_config('enable_seqscan', 'off', true)
"""
_WRITE_TIMEOUT_S = 15.0
# The lock that a new page takes, too: an erasure waits for it, and takes what was written with the document.
_LOCK = "SELECT FROM extractor.documents WHERE tenant = %s AND id = %s AND erase_time IS NULL FOR KEY SHARE"
_CLEAR = """
    DELETE FROM extractor.page_vectors
    WHERE tenant = %s AND document_id = %s AND (model <> %s OR page = ANY(%s))
"""
_ADD = """
    INSERT INTO extractor.page_vectors (tenant, document_id, page, part, model, embedding)
    SELECT %s, %s, page, part, %s, numbers::vectors.halfvec
    FROM unnest(%s::int[], %s::int[], %s::text[]) AS given (page, part, numbers)
    ON CONFLICT (tenant, document_id, page, part)
    DO UPDATE SET model = excluded.model, embedding = excluded.embedding
"""
_HAS_ANY = "SELECT EXISTS (SELECT FROM extractor.page_vectors WHERE tenant = %s AND model = %s)"
_NEAREST = """
    WITH near AS (
        SELECT document_id, page, min(embedding OPERATOR(vectors.<=>) %(vector)s::vectors.halfvec) AS distance
        FROM extractor.page_vectors
        WHERE tenant = %(tenant)s AND model = %(model)s
          AND vectors.vector_dims(embedding) = %(dimensions)s
          AND (%(documents)s::text[] = '{}' OR document_id = ANY(%(documents)s))
        GROUP BY document_id, page
    )
    SELECT near.document_id, display_name, near.page, coalesce(language, ''), greatest(1 - distance, 0)::real
    FROM near JOIN extractor.documents ON documents.tenant = %(tenant)s AND documents.id = near.document_id
    LEFT JOIN extractor.page_index ON page_index.tenant = %(tenant)s
        AND page_index.document_id = near.document_id AND page_index.page = near.page
    WHERE documents.erase_time IS NULL
      AND (%(languages)s::text[] = '{}' OR language = ANY(%(languages)s))
      AND (%(stored_after)s::timestamptz IS NULL OR documents.create_time >= %(stored_after)s)
      AND (%(stored_before)s::timestamptz IS NULL OR documents.create_time < %(stored_before)s)
    ORDER BY distance, near.document_id, near.page
    LIMIT %(limit)s
"""


class PostgresVectors:
    """Implements the port `VectorIndex`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(self, tenant: str, document_id: str, passages: Sequence[Passage]) -> None:
        """See the port."""
        numbers = [_text(passage.vector) for passage in passages]
        model = passages[0].vector.model
        pages = [passage.page for passage in passages]
        with translate("store_vectors"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_BIND, (tenant, _milliseconds(_WRITE_TIMEOUT_S)))
                if await (await connection.execute(_LOCK, (tenant, document_id))).fetchone() is None:
                    raise not_found(f"documents/{document_id}")
                await connection.execute(_CLEAR, (tenant, document_id, model, sorted(set(pages))))
                parts = [passage.part for passage in passages]
                await connection.execute(_ADD, (tenant, document_id, model, pages, parts, numbers))

    async def has_any(self, tenant: str, model: str) -> bool:
        """See the port."""
        with translate("find_vectors"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_BIND, (tenant, _milliseconds(_WRITE_TIMEOUT_S)))
                row = await (await connection.execute(_HAS_ANY, (tenant, model))).fetchone()
        assert row is not None
        return bool(row[0])

    async def nearest(
        self, tenant: str, vector: Vector, filters: Filters, *, limit: int, timeout_s: float
    ) -> Sequence[FoundPage]:
        """See the port."""
        values = {
            "tenant": tenant,
            "model": vector.model,
            "vector": _text(vector),
            "dimensions": len(vector.numbers),
            "documents": list(filters.documents),
            "languages": list(filters.languages),
            "stored_after": filters.stored_after,
            "stored_before": filters.stored_before,
            "limit": limit,
        }
        with translate("search_vectors"):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(_BIND, (tenant, _milliseconds(timeout_s)))
                    rows = await (await connection.execute(_NEAREST, values, prepare=False)).fetchall()
            except psycopg.errors.QueryCanceled as exc:
                raise DeadlineExceeded(
                    "SEARCH_TIMEOUT", "The search takes too long. Name the documents to search, or search by words."
                ) from exc
        return [FoundPage(*row) for row in rows]


def _text(vector: Vector) -> str:
    return "[" + ",".join(map(repr, vector.numbers)) + "]"


def _milliseconds(seconds: float) -> str:
    return str(max(int(seconds * 1000), 1))
