"""What every store of pages promises, in memory and in Postgres."""

import datetime as dt
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import psycopg
import pytest

from pagemesh.common.v1 import page_pb2
from services.database.pool import open_pool
from services.extractor.adapters.memory import MemoryDocuments
from services.extractor.adapters.memory_pages import MemoryPages
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_pages import PostgresPages
from services.extractor.domain.documents import Document
from services.extractor.domain.pages import DocumentFlag, FailedPage, Page, PageFault, PageFlag, Part
from services.extractor.domain.ports import DocumentRepository
from services.extractor.domain.receipts import Cause
from services.extractor.domain.stored_pages import (
    Facts,
    Finding,
    Looked,
    PageStore,
    Segment,
    Source,
    Span,
    StoredDocument,
)
from services.runtime.errors import Unavailable
from tests.unit.extractor.scripted import a_document

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
OURS = a_document("ab" * 32)
FACTS = Facts(40, DocumentFlag.REPAIRED)


@dataclass
class World:
    documents: DocumentRepository
    pages: PageStore

    async def insert(self, document: Document) -> None:
        async with self.documents.locked(document.tenant, document.id) as record:
            await record.insert(document)

    async def write(self, *segments: Segment, facts: Facts | None = None, document: Document = OURS) -> None:
        await self.pages.write([Finding(document.tenant, document.id, facts, segments)])

    async def find(self, document: Document = OURS) -> StoredDocument:
        return await self.pages.find(document.tenant, document.id)

    async def look(self, page: int = 1, parts: Part = Part.TEXT, document: Document = OURS) -> Looked | None:
        return await self.pages.look(document.tenant, document.id, parts=parts, page=page)

    async def read(self, *spans: Span, document: Document = OURS) -> list[Page | FailedPage]:
        return list(await self.pages.read(document.tenant, document.id, spans))


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        documents = MemoryDocuments()
        yield await _with_ours(World(documents, MemoryPages(documents)))
        return
    database: Callable[[str], str] = request.getfixturevalue("database")
    pool = await open_pool(database("extractor"), name="test")
    try:
        yield await _with_ours(World(PostgresDocuments(pool), PostgresPages(pool)))
    finally:
        await pool.close()


async def _with_ours(world: World) -> World:
    await world.insert(OURS)
    return world


def a_page(number: int, parts: Part = Part.TEXT, flags: PageFlag = PageFlag.NONE) -> Page:
    content = page_pb2.Page(number=number, text=f"the text of page {number}").SerializeToString()
    return Page(number, content, flags, parts)


def a_segment(first: int, last: int, *, source: Source = Source.PARSED, parts: Part = Part.TEXT) -> Segment:
    return Segment(Span(source, parts, first, last), tuple(a_page(n, parts) for n in range(first, last + 1)))


async def test_pages_come_back_as_they_went(world: World) -> None:
    parts = Part.TEXT | Part.WORDS | Part.FLAGS
    flags = PageFlag.NO_TEXT | PageFlag.PARTIAL | PageFlag.HIDDEN_TEXT
    failed = [FailedPage(number, fault) for number, fault in enumerate(PageFault, 4)]
    pages: tuple[Page | FailedPage, ...] = (a_page(3, parts, flags), *failed, a_page(8, parts))
    segment = Segment(Span(Source.PARSED, parts, 3, 8), pages)
    await world.write(segment, facts=FACTS)
    assert await world.find() == StoredDocument(FACTS, (segment.span,))
    assert tuple(await world.read(segment.span)) == pages


async def test_only_what_is_asked_for_is_read_in_order(world: World) -> None:
    await world.write(a_segment(9, 12), a_segment(1, 4), a_segment(5, 8))
    spans = sorted((await world.find()).spans, key=lambda span: span.first_page)
    assert [page.number for page in await world.read(*spans[1:])] == list(range(5, 13))


async def test_a_look_finds_the_document_with_what_is_stored_of_it_and_the_pages_at_hand(world: World) -> None:
    words = Part.TEXT | Part.WORDS
    segments = [
        a_segment(1, 4),
        a_segment(3, 8, parts=words),
        a_segment(9, 12),
        a_segment(3, 9, source=Source.RECOGNISED),
    ]
    await world.write(*segments, facts=FACTS)
    for page, parts, pages in ((1, Part.TEXT, [1, 2, 3, 4]), (4, Part.TEXT, [3, 4, 5, 6, 7, 8]), (9, words, [])):
        looked = await world.look(page, parts)
        assert looked is not None
        assert looked.document == await world.documents.get("acme", OURS.id)
        assert looked.stored.facts == FACTS
        assert set(looked.stored.spans) == {segment.span for segment in segments}
        assert [page.number for page in looked.pages] == pages


async def test_a_look_at_what_is_not_there(world: World) -> None:
    looked = await world.look()
    assert looked is not None
    assert (looked.document.id, looked.stored, list(looked.pages)) == (OURS.id, StoredDocument(), [])
    assert await world.look(document=replace(OURS, tenant="other")) is None
    assert await world.look(document=a_document("cd" * 32)) is None
    async with world.documents.locked("acme", OURS.id) as record:
        await record.mark_erased(NOW, cause=Cause.REQUESTED, actor="", until=NOW)
    assert await world.look() is None


async def test_a_longer_segment_takes_the_place_of_a_shorter_one_and_not_the_other_way(world: World) -> None:
    for last in (4, 8, 2):
        await world.write(a_segment(1, last))
    (span,) = (await world.find()).spans
    assert (span.first_page, span.last_page) == (1, 8)
    assert len(await world.read(span)) == 8


async def test_parts_and_sources_do_not_take_each_others_place(world: World) -> None:
    written = [
        a_segment(1, 4),
        a_segment(1, 4, parts=Part.TEXT | Part.MARKDOWN),
        a_segment(1, 4, source=Source.RECOGNISED),
    ]
    await world.write(*written)
    assert set((await world.find()).spans) == {segment.span for segment in written}
    for segment in written:
        assert {page.parts for page in await world.read(segment.span) if isinstance(page, Page)} == {segment.span.parts}


async def test_facts_stay_when_less_is_known_later(world: World) -> None:
    known = replace(FACTS, info=b"\x08\x01", info_parts=Part.OUTLINE)
    await world.write(facts=known)
    await world.write(facts=FACTS)
    assert (await world.find()).facts == known
    document = await world.documents.get("acme", OURS.id)
    assert document is not None
    assert document.page_count == 40


async def test_what_a_document_says_of_itself_is_fetched_once_however_many_segments_there_are(world: World) -> None:
    facts = replace(FACTS, info=bytes(1_000_000), info_parts=Part.OUTLINE)
    await world.write(*(a_segment(page, page) for page in range(1, 41)), facts=facts)
    tracemalloc.start()
    try:
        found = await world.find()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.facts == facts
    assert len(found.spans) == 40
    assert peak < 6_000_000


async def test_another_tenants_document_has_nothing(world: World) -> None:
    theirs = replace(OURS, tenant="other")
    await world.insert(theirs)
    await world.write(a_segment(1, 4), facts=FACTS)
    assert await world.find(theirs) == StoredDocument()
    assert await world.read(a_segment(1, 4).span, document=theirs) == []


async def test_many_tenants_are_written_at_once(world: World) -> None:
    others = [replace(OURS, tenant=f"tenant-{number}") for number in range(3)]
    for document in others:
        await world.insert(document)
    segments = (a_segment(1, 2),)
    await world.pages.write([Finding(document.tenant, document.id, FACTS, segments) for document in others])
    for document in others:
        assert len(await world.read(segments[0].span, document=document)) == 2


async def test_a_document_that_is_gone_or_being_erased_gets_nothing(world: World) -> None:
    gone, erased = a_document("cd" * 32), a_document("ef" * 32)
    await world.insert(erased)
    async with world.documents.locked("acme", erased.id) as record:
        await record.mark_erased(NOW, cause=Cause.REQUESTED, actor="me", until=NOW)
    segment = a_segment(1, 2)
    await world.pages.write([Finding("acme", document.id, FACTS, (segment,)) for document in (gone, erased, OURS)])
    for document in (gone, erased):
        assert await world.find(document) == StoredDocument()
        assert await world.read(segment.span, document=document) == []
    assert len(await world.read(segment.span)) == 2


async def test_a_row_that_does_not_read_is_as_good_as_absent(database: Callable[[str], str]) -> None:
    pool = await open_pool(database("extractor"), name="test")
    try:
        world = await _with_ours(World(PostgresDocuments(pool), PostgresPages(pool)))
        written = [a_segment(1, 4), a_segment(5, 8), a_segment(9, 12), a_segment(13, 16)]
        await world.write(*written)
        async with pool.connection() as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            change = "UPDATE extractor.page_segments SET {} WHERE first_page = {}"
            await connection.execute(change.format("payload = set_byte(payload, 30, get_byte(payload, 30) # 255)", 1))
            await connection.execute(change.format("payload = substr(payload, 1, 20)", 5))
            await connection.execute(change.format("format = 99", 9))
        assert [p.number for p in await world.read(*(segment.span for segment in written))] == [13, 14, 15, 16]
        await world.write(written[0])
        assert len(await world.read(written[0].span)) == 4
    finally:
        await pool.close()


async def test_a_statement_that_forgets_its_tenant_finds_no_pages(database: Callable[[str], str]) -> None:
    dsn = database("extractor")
    pool = await open_pool(dsn, name="test")
    world = await _with_ours(World(PostgresDocuments(pool), PostgresPages(pool)))
    await world.write(a_segment(1, 4))
    await pool.close()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rows = await (await connection.execute("SELECT first_page FROM extractor.page_segments")).fetchall()
    assert rows == []


async def test_pages_and_their_index_are_written_together_or_not_at_all(database: Callable[[str], str]) -> None:
    pool = await open_pool(database("extractor"), name="test")
    try:
        world = await _with_ours(World(PostgresDocuments(pool), PostgresPages(pool)))
        async with pool.connection() as connection:
            await connection.execute("ALTER TABLE extractor.page_index ADD CHECK (page <> 4)")
        with pytest.raises(psycopg.errors.CheckViolation):
            await world.write(a_segment(1, 4), facts=FACTS)
        assert await world.find() == StoredDocument()
        await world.write(a_segment(1, 3), facts=FACTS)
        async with pool.connection() as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            rows = await (await connection.execute("SELECT page FROM extractor.page_index ORDER BY 1")).fetchall()
        assert rows == [(1,), (2,), (3,)]
    finally:
        await pool.close()


async def test_a_database_that_is_down_is_told_as_such() -> None:
    pool = await open_pool("postgresql://nobody@127.0.0.1:1/none", name="test")
    pool.timeout = 0.2
    try:
        for call in (PostgresPages(pool).find("acme", OURS.id), PostgresPages(pool).write([])):
            with pytest.raises(Unavailable) as told:
                await call
            assert told.value.reason == "DATABASE_UNAVAILABLE"
    finally:
        await pool.close()
