"""Stored pages in Postgres: a row for each segment, written together with the index of its pages."""

import asyncio
import functools
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import psycopg
import structlog

from pagemesh.common.v1 import page_pb2
from services.database.pool import Pool, single, translate
from services.extractor.adapters import page_codec
from services.extractor.adapters.postgres import BOUND, COLUMNS, document_of
from services.extractor.adapters.postgres_index import IndexablePage, index_pages
from services.extractor.domain.pages import DocumentFlag, FailedPage, Page, Part
from services.extractor.domain.stored_pages import (
    Facts,
    Finding,
    Looked,
    Segment,
    Source,
    Span,
    StoredDocument,
)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_PART_BITS = {
    Part.TEXT: 1,
    Part.BLOCKS: 2,
    Part.WORDS: 4,
    Part.MARKDOWN: 8,
    Part.TABLES: 16,
    Part.IMAGES: 32,
    Part.LINKS: 64,
    Part.LANGUAGE: 128,
    Part.FLAGS: 256,
    Part.METADATA: 512,
    Part.OUTLINE: 1024,
}
_FLAG_BITS = {DocumentFlag.REPAIRED: 1, DocumentFlag.ENCRYPTED: 2}
_IN_A_THREAD_BYTES = 64 * 1024
"""More than so many compressed bytes take longer than the event loop should wait."""

# What the document says of itself comes once, however many segments there are: it may be two megabytes. Whether it is
# being erased is asked of the row that was found: said where it is looked for, an index of all that are not would do,
# which Postgres takes for no worse as long as it has not counted the rows, and reads from end to end.
_LOOK = f"""
    SELECT found.* FROM {BOUND} (
        SELECT {COLUMNS}, flags, info, info_parts, spans.*, begin.*
        FROM (
            SELECT * FROM extractor.documents WHERE documents.tenant = bound.tenant AND id = %(document)s OFFSET 0
        ) AS documents
        CROSS JOIN LATERAL (
            SELECT array_agg(s.source), array_agg(s.parts), array_agg(s.first_page), array_agg(s.last_page)
            FROM extractor.page_segments AS s
            WHERE s.tenant = documents.tenant AND s.document_id = documents.id
        ) AS spans
        LEFT JOIN LATERAL (
            SELECT s.format, s.payload, s.source, s.parts, s.first_page, s.last_page
            FROM extractor.page_segments AS s
            WHERE s.tenant = documents.tenant AND s.document_id = documents.id AND s.source = {int(Source.PARSED)}
              AND s.parts & %(parts)s = %(parts)s AND %(page)s BETWEEN s.first_page AND s.last_page
            ORDER BY s.last_page DESC LIMIT 1
        ) AS begin ON true
        WHERE erase_time IS NULL OFFSET 0
    ) AS found
"""  # noqa: S608
_DOCUMENT_COLUMNS = len(COLUMNS.split(","))
_FIND = f"""
    SELECT found.* FROM {BOUND} (
        WITH alive AS MATERIALIZED (
            SELECT documents.tenant, id, page_count, flags, info, info_parts FROM extractor.documents
            WHERE documents.tenant = bound.tenant AND id = %(document)s AND erase_time IS NULL
        )
        SELECT page_count, flags, info, info_parts, NULL::smallint, NULL::smallint, NULL::int, NULL::int FROM alive
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, source, parts, first_page, last_page
        FROM extractor.page_segments JOIN alive ON page_segments.tenant = alive.tenant AND document_id = id
    ) AS found
"""  # noqa: S608
_READ = f"""
    SELECT found.* FROM {BOUND} (
        SELECT format, payload, page_segments.source, page_segments.parts, page_segments.first_page, last_page
        FROM extractor.page_segments
        JOIN unnest(%(sources)s::smallint[], %(parts)s::smallint[], %(pages)s::int[])
            AS asked (source, parts, first_page) USING (source, parts, first_page)
        WHERE page_segments.tenant = bound.tenant AND document_id = %(document)s
        ORDER BY first_page
    ) AS found
"""  # noqa: S608
_BIND = "SELECT set_config('pagemesh.tenant', %s, true)"
# Documents are locked in order, so that nobody erases one meanwhile and no two writers wait for each other. A segment
# that is there already gives way to one that reaches further.
_WRITE = """
    WITH alive AS MATERIALIZED (
        SELECT id FROM extractor.documents
        WHERE tenant = %(tenant)s AND id = ANY(%(documents)s::text[]) AND erase_time IS NULL
        ORDER BY id FOR NO KEY UPDATE
    ), noted AS (
        UPDATE extractor.documents
        SET page_count = given.page_count, flags = given.flags,
            info = CASE WHEN given.info_parts > 0 THEN given.info ELSE documents.info END,
            info_parts = CASE WHEN given.info_parts > 0 THEN given.info_parts ELSE documents.info_parts END
        FROM unnest(%(noted)s::text[], %(counts)s::int[], %(flags)s::smallint[], %(infos)b::bytea[],
                    %(info_parts)s::smallint[]) AS given (id, page_count, flags, info, info_parts), alive
        WHERE documents.tenant = %(tenant)s AND documents.id = given.id AND alive.id = given.id
    )
    INSERT INTO extractor.page_segments
        (tenant, document_id, source, parts, first_page, last_page, format, payload)
    SELECT %(tenant)s, given.document_id, given.source, given.parts, given.first_page, given.last_page, %(format)s,
           given.payload
    FROM unnest(%(documents)s::text[], %(sources)s::smallint[], %(parts)s::smallint[], %(firsts)s::int[],
                %(lasts)s::int[], %(payloads)b::bytea[])
        AS given (document_id, source, parts, first_page, last_page, payload)
    JOIN alive ON alive.id = given.document_id
    WHERE given.payload IS NOT NULL
    ON CONFLICT (tenant, document_id, source, parts, first_page) DO UPDATE
        SET last_page = excluded.last_page, format = excluded.format, payload = excluded.payload, create_time = now()
        WHERE excluded.last_page >= page_segments.last_page
"""

log = structlog.get_logger()


class PostgresPages:
    """Implements the port `PageStore`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def look(self, tenant: str, document_id: str, *, parts: Part, page: int) -> Looked | None:
        """See the port."""
        values = {
            "tenant": tenant,
            "document": document_id,
            "parts": _part_bits(parts),
            "page": page,
        }
        with translate("look_at_document"):
            async with single(self._pool) as connection:
                row = await (await connection.execute(_LOOK, values, binary=True)).fetchone()
        if row is None:
            return None
        document = document_of(row[:_DOCUMENT_COLUMNS])
        flags, info, info_parts, sources, all_parts, firsts, lasts, *begin = row[_DOCUMENT_COLUMNS:]
        facts = None
        if document.page_count is not None:
            facts = Facts(document.page_count, _flags(flags), bytes(info or b""), _parts(info_parts))
        spans = zip(sources or (), all_parts or (), firsts or (), lasts or (), strict=True)
        stored = StoredDocument(facts, tuple(map(_span, spans)))
        return Looked(document, stored, deque(await _pages([begin] if begin[0] is not None else [])))

    async def find(self, tenant: str, document_id: str) -> StoredDocument:
        """See the port."""
        with translate("find_pages"):
            async with single(self._pool) as connection:
                values = {"tenant": tenant, "document": document_id}
                rows = await (await connection.execute(_FIND, values)).fetchall()
        if not rows:
            return StoredDocument()
        page_count, flags, info, info_parts, *_ = next(row for row in rows if row[4] is None)
        facts = None
        if page_count is not None:
            facts = Facts(page_count, _flags(flags), bytes(info or b""), _parts(info_parts))
        return StoredDocument(facts, tuple(_span(row[4:]) for row in rows if row[4] is not None))

    async def read(self, tenant: str, document_id: str, spans: Sequence[Span]) -> Sequence[Page | FailedPage]:
        """See the port."""
        values = {
            "tenant": tenant,
            "document": document_id,
            "sources": [int(span.source) for span in spans],
            "parts": [_part_bits(span.parts) for span in spans],
            "pages": [span.first_page for span in spans],
        }
        with translate("read_pages"):
            async with single(self._pool) as connection:
                rows = await (await connection.execute(_READ, values, binary=True)).fetchall()
        return await _pages(rows)

    async def write(self, findings: Sequence[Finding]) -> None:
        """See the port."""
        payloads, indexable = await asyncio.to_thread(_encoded, findings)
        with translate("write_pages"):
            async with self._pool.connection() as connection, connection.pipeline():
                for tenant, own in groupby(findings, key=lambda finding: finding.tenant):
                    await connection.execute(_BIND, (tenant,))
                    await connection.execute(_WRITE, _values(tenant, list(own), payloads))
                await index_pages(connection, indexable)


def _values(tenant: str, findings: Sequence[Finding], payloads: dict[int, bytes]) -> dict[str, Any]:
    noted = [(finding.document_id, finding.facts) for finding in findings if finding.facts is not None]
    rows = [(finding.document_id, segment) for finding in findings for segment in finding.segments]
    # A document of which nothing but facts are new is named without a payload, so that it is locked as well.
    bare = [finding.document_id for finding in findings if not finding.segments]
    nothing: list[Any] = [None] * len(bare)
    return {
        "tenant": tenant,
        "format": page_codec.FORMAT,
        "noted": [document_id for document_id, _ in noted],
        "counts": [facts.page_count for _, facts in noted],
        "flags": [_flag_bits(facts.flags) for _, facts in noted],
        "infos": [facts.info for _, facts in noted],
        "info_parts": [_part_bits(facts.info_parts) for _, facts in noted],
        "documents": [document_id for document_id, _ in rows] + bare,
        "sources": [int(segment.span.source) for _, segment in rows] + nothing,
        "parts": [_part_bits(segment.span.parts) for _, segment in rows] + nothing,
        "firsts": [segment.span.first_page for _, segment in rows] + nothing,
        "lasts": [segment.span.last_page for _, segment in rows] + nothing,
        "payloads": [payloads[id(segment)] for _, segment in rows] + nothing,
    }


def _encoded(findings: Sequence[Finding]) -> tuple[dict[int, bytes], list[IndexablePage]]:
    """Payloads by the identity of their segment, and what goes to the index. For threads."""
    payloads: dict[int, bytes] = {}
    indexable: list[IndexablePage] = []
    for finding in findings:
        # What was recognised stands for what was parsed: last of all.
        for segment in sorted(finding.segments, key=lambda segment: segment.span.source):
            payloads[id(segment)] = page_codec.encode(segment.pages)
            indexable += _indexable(finding, segment)
    return payloads, indexable


def _indexable(finding: Finding, segment: Segment) -> list[IndexablePage]:
    return [
        IndexablePage(finding.tenant, finding.document_id, page.number, page_pb2.Page.FromString(page.content).text)
        for page in segment.pages
        if isinstance(page, Page)
    ]


async def _pages(rows: Sequence[Sequence[Any]]) -> Sequence[Page | FailedPage]:
    if sum(len(row[1]) for row in rows) > _IN_A_THREAD_BYTES:
        return await asyncio.to_thread(_decoded, rows)
    return _decoded(rows)


def _decoded(rows: Sequence[Sequence[Any]]) -> list[Page | FailedPage]:
    pages: list[Page | FailedPage] = []
    for file_format, payload, source, parts, first_page, last_page in rows:
        try:
            if file_format != page_codec.FORMAT:
                raise ValueError("a format that is not known")
            found = page_codec.decode(payload, parts=_parts(parts))
            if [page.number for page in found] != list(range(first_page, last_page + 1)):
                raise ValueError("other pages than it says")
        except ValueError as exc:
            log.warning("stored_pages_unreadable", why=str(exc), source=source, format=file_format, page=first_page)
            continue
        pages += found
    return pages


def _span(row: Sequence[Any]) -> Span:
    source, parts, first_page, last_page = row
    return Span(Source(source), _parts(parts), first_page, last_page)


@functools.cache  # of at most 2048 numbers; a long document has thousands of segments
def _parts(bits: int) -> Part:
    return Part(sum(part.value for part, bit in _PART_BITS.items() if bits & bit))


@functools.cache
def _part_bits(parts: Part) -> int:
    return sum(bit for part, bit in _PART_BITS.items() if part in parts)


@functools.cache  # of 4 numbers; each look at a document asks
def _flags(bits: int) -> DocumentFlag:
    return DocumentFlag(sum(flag.value for flag, bit in _FLAG_BITS.items() if bits & bit))


def _flag_bits(flags: DocumentFlag) -> int:
    return sum(bit for flag, bit in _FLAG_BITS.items() if flag in flags)
