"""What every repository of documents promises, in memory and in Postgres."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import psycopg
import pytest

from services.database.pool import open_pool
from services.extractor.adapters.memory import MemoryDocuments
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.keeping import Erasing
from services.extractor.domain.media import MediaType
from services.extractor.domain.ports import DocumentRepository
from services.extractor.domain.receipts import Cause
from services.extractor.domain.retention import Retention, Term
from services.runtime.errors import Unavailable

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


@pytest.fixture(params=["memory", "postgres"])
async def documents(request: pytest.FixtureRequest) -> AsyncIterator[DocumentRepository]:
    if request.param == "memory":
        yield MemoryDocuments()
        return
    database: Callable[[str], str] = request.getfixturevalue("database")
    pool = await open_pool(database("extractor"), name="test")
    try:
        yield PostgresDocuments(pool)
    finally:
        await pool.close()


def a_document(number: int, *, tenant: str = "acme", at: dt.datetime | None = None) -> Document:
    return Document(
        tenant=tenant,
        sha256=f"{number:032x}" + "ab" * 16,
        display_name="a.pdf",
        media_type=MediaType.PDF,
        size_bytes=100 + number,
        create_time=at or NOW + dt.timedelta(microseconds=number),
    )


async def insert(documents: DocumentRepository, *values: Document) -> None:
    for document in values:
        async with documents.locked(document.tenant, document.id) as record:
            await record.insert(document)


async def erase(documents: DocumentRepository, document: Document, at: dt.datetime = NOW) -> None:
    async with documents.locked(document.tenant, document.id) as record:
        await record.mark_erased(at, cause=Cause.REQUESTED, actor="apiKeys/me", until=at)


async def test_a_document_comes_back_as_it_went(documents: DocumentRepository) -> None:
    term = Term(Retention.EPHEMERAL, NOW + dt.timedelta(hours=1, microseconds=1))
    document = replace(a_document(1), page_count=12, media_type=MediaType.PNG, term=term)
    await insert(documents, document)
    assert await documents.get("acme", document.id) == document


async def test_another_tenant_sees_nothing(documents: DocumentRepository) -> None:
    document = a_document(1)
    await insert(documents, document)
    assert await documents.get("other", document.id) is None
    assert await documents.list("other", limit=10, after=None) == []
    await erase(documents, replace(document, tenant="other"))
    assert await documents.get("acme", document.id) == document


async def test_two_tenants_can_have_the_same_bytes(documents: DocumentRepository) -> None:
    ours, theirs = a_document(1), a_document(1, tenant="other")
    await insert(documents, ours, theirs)
    await erase(documents, ours)
    assert await documents.get("other", theirs.id) == theirs


async def test_a_list_goes_from_new_to_old_behind_its_cursor(documents: DocumentRepository) -> None:
    made = [a_document(number) for number in range(1, 6)] + [a_document(n, at=NOW) for n in (8, 9)]
    await insert(documents, *made)
    wanted = sorted(made, key=lambda document: (document.create_time, document.id), reverse=True)
    assert await documents.list("acme", limit=3, after=None) == wanted[:3]
    last = wanted[2]
    assert await documents.list("acme", limit=9, after=Cursor(last.create_time, last.id)) == wanted[3:]


async def test_inserting_twice_keeps_the_first(documents: DocumentRepository) -> None:
    first = a_document(1)
    await insert(documents, first, replace(first, display_name="b.pdf"))
    assert await documents.get("acme", first.id) == first


async def test_an_erased_document_is_seen_by_whoever_erases_it_alone(documents: DocumentRepository) -> None:
    document = a_document(1)
    await insert(documents, document)
    await erase(documents, document)
    assert await documents.get("acme", document.id) is None
    assert await documents.list("acme", limit=10, after=None) == []
    async with documents.locked("acme", document.id) as record:
        assert await record.read() is None
        await record.note_results(2)
        await record.note_results(1)
        assert await record.read_erased(by=NOW) == Erasing(document, Cause.REQUESTED, "apiKeys/me", 3)
        assert await record.set_term(document.term) is False
        await record.remove()
    async with documents.locked("acme", document.id) as record:
        assert await record.read_erased(by=NOW) is None


async def test_a_document_comes_back_when_it_is_gone_and_not_before(documents: DocumentRepository) -> None:
    document = replace(a_document(1), page_count=4)
    await insert(documents, document)
    await erase(documents, document)
    again = replace(a_document(1), display_name="again.pdf", create_time=NOW + dt.timedelta(days=1))
    async with documents.locked("acme", document.id) as record:
        assert await record.reserve(again, until=NOW) is False
        assert await record.insert(again) is False
        await record.remove()
        assert await record.reserve(again, until=NOW) is True
        assert await record.insert(again) is True
    assert await documents.get("acme", document.id) == again


async def test_a_term_is_changed(documents: DocumentRepository) -> None:
    document, term = a_document(1), Term(Retention.TEMPORARY, NOW + dt.timedelta(days=1))
    await insert(documents, document)
    async with documents.locked("acme", document.id) as record:
        assert await record.set_term(term) is True
    assert await documents.get("acme", document.id) == replace(document, term=term)


async def test_a_reserved_document_is_nobodys_until_it_is_inserted(documents: DocumentRepository) -> None:
    document, end = a_document(1), NOW + dt.timedelta(hours=1)
    async with documents.locked("acme", document.id) as record:
        assert await record.reserve(document, until=end - dt.timedelta(minutes=1)) is True
        assert await record.reserve(document, until=end) is True
    assert await documents.get("acme", document.id) is None
    assert await documents.list("acme", limit=10, after=None) == []
    async with documents.locked("acme", document.id) as record:
        assert await record.read() is None
        assert await record.read_erased(by=NOW) is None
        assert await record.read_erased(by=end) == Erasing(document, None, "", 0)
    await insert(documents, document)
    assert await documents.get("acme", document.id) == document
    async with documents.locked("acme", document.id) as record:
        assert await record.reserve(document, until=end) is True
        assert await record.read() == document


async def test_what_fails_under_the_lock_changes_nothing(documents: DocumentRepository) -> None:
    document = a_document(1)
    with contextlib.suppress(ZeroDivisionError):
        async with documents.locked("acme", document.id) as record:
            await record.insert(document)
            raise ZeroDivisionError
    assert await documents.get("acme", document.id) is None


async def test_the_lock_holds_where_there_is_no_row_yet(documents: DocumentRepository) -> None:
    document = a_document(1)
    inside, leave = asyncio.Event(), asyncio.Event()
    order = []

    async def first() -> None:
        async with documents.locked("acme", document.id) as record:
            inside.set()
            await leave.wait()
            await record.insert(document)
            order.append("first")

    async def second() -> None:
        await inside.wait()
        async with documents.locked("acme", document.id) as record:
            assert await record.read() == document
            order.append("second")

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(first())
        group.create_task(second())
        await inside.wait()
        async with documents.locked("acme", a_document(2).id):
            leave.set()  # another document's lock is free meanwhile
    assert order == ["first", "second"]


async def test_a_statement_that_forgets_its_tenant_finds_nothing(database: Callable[[str], str]) -> None:
    dsn = database("extractor")
    pool = await open_pool(dsn, name="test")
    await insert(PostgresDocuments(pool), a_document(1))
    await pool.close()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rows = await (await connection.execute("SELECT id FROM extractor.documents")).fetchall()
        assert rows == []
        # What acts at a time sees what is due by then, and this is not.
        await connection.execute("SET pagemesh.lifecycle_time = '2300-01-01T00:00:00Z'")
        rows = await (await connection.execute("SELECT id FROM extractor.documents")).fetchall()
        assert rows == []


async def test_a_database_that_is_down_is_told_as_such() -> None:
    pool = await open_pool("postgresql://nobody@127.0.0.1:1/none", name="test")
    pool.timeout = 0.2
    try:
        with pytest.raises(Unavailable) as told:
            await PostgresDocuments(pool).get("acme", "a" * 32)
        assert told.value.reason == "DATABASE_UNAVAILABLE"
    finally:
        await pool.close()
