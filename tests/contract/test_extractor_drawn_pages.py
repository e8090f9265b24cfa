"""What every keeper of drawn pages promises, in memory and in Postgres."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import psycopg
import pytest

from services.database.pool import open_pool
from services.extractor.adapters.memory import MemoryDocuments
from services.extractor.adapters.memory_pictures import MemoryDrawnPages
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_drawn import PostgresDrawnPages
from services.extractor.domain import drawn as rules
from services.extractor.domain.documents import Document
from services.extractor.domain.drawn import DrawnKey, DrawnPages
from services.extractor.domain.pages import Picture, PictureFormat
from services.extractor.domain.ports import DocumentRepository
from services.extractor.domain.receipts import Cause
from services.runtime.errors import Unavailable
from tests.contract.test_extractor_documents import NOW, a_document, insert

PICTURE = Picture(PictureFormat.PNG, 20, 30, bytes(range(256)) * 40)


@dataclass
class Kept:
    """A keeper, the documents that it goes with, and of Postgres its address."""

    pages: DrawnPages
    documents: DocumentRepository
    dsn: str = ""


@pytest.fixture(params=["memory", "postgres"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        documents = MemoryDocuments()
        yield Kept(MemoryDrawnPages(documents), documents)
        return
    dsn = request.getfixturevalue("database")("extractor")
    pool = await open_pool(dsn, name="test")
    try:
        yield Kept(PostgresDrawnPages(pool), PostgresDocuments(pool), dsn)
    finally:
        await pool.close()


def key_of(document: Document, page: int = 1, **changes: object) -> DrawnKey:
    return replace(DrawnKey(document.tenant, document.id, page, 200, PictureFormat.PNG, 0), **changes)  # type: ignore[arg-type]


async def remove(documents: DocumentRepository, document: Document) -> None:
    async with documents.locked(document.tenant, document.id) as record:
        await record.mark_erased(NOW, cause=Cause.REQUESTED, actor="apiKeys/me", until=NOW)
        await record.remove()


async def test_a_picture_comes_back_as_it_went(kept: Kept) -> None:
    document = a_document(1)
    await insert(kept.documents, document)
    await kept.pages.keep(key_of(document), PICTURE, now=NOW)
    assert await kept.pages.get(key_of(document)) == PICTURE


async def test_every_part_of_the_key_counts(kept: Kept) -> None:
    ours, other, theirs = a_document(1), a_document(2), a_document(1, tenant="other")
    await insert(kept.documents, ours, other, theirs)
    key = key_of(ours, format=PictureFormat.JPEG, jpeg_quality=80)
    await kept.pages.keep(key, replace(PICTURE, format=PictureFormat.JPEG), now=NOW)
    for different in (
        replace(key, tenant="other"),
        replace(key, document_id=other.id),
        replace(key, page=2),
        replace(key, dpi=201),
        replace(key, format=PictureFormat.PNG),
        replace(key, jpeg_quality=81),
    ):
        assert await kept.pages.get(different) is None, different


async def test_a_later_picture_takes_the_place_of_an_earlier_one(kept: Kept) -> None:
    document = a_document(1)
    await insert(kept.documents, document)
    await kept.pages.keep(key_of(document), PICTURE, now=NOW)
    later = replace(PICTURE, width_px=21, content=b"later")
    await kept.pages.keep(key_of(document), later, now=NOW)
    assert await kept.pages.get(key_of(document)) == later


async def test_a_picture_goes_with_its_document(kept: Kept) -> None:
    document, other = a_document(1), a_document(2)
    await insert(kept.documents, document, other)
    for of in (document, other):
        await kept.pages.keep(key_of(of), PICTURE, now=NOW)
    await remove(kept.documents, document)
    await insert(kept.documents, document)
    assert await kept.pages.get(key_of(document)) is None
    assert await kept.pages.get(key_of(other)) == PICTURE


async def test_nothing_is_kept_of_a_document_that_is_gone_or_being_erased(kept: Kept) -> None:
    never, hidden = a_document(1), a_document(2)
    await insert(kept.documents, hidden)
    async with kept.documents.locked("acme", hidden.id) as record:
        await record.mark_erased(NOW, cause=Cause.REQUESTED, actor="apiKeys/me", until=NOW)
    for document in (never, hidden):
        await kept.pages.keep(key_of(document), PICTURE, now=NOW)
        assert await kept.pages.get(key_of(document)) is None


async def test_a_day_later_it_is_gone_and_no_sooner(kept: Kept) -> None:
    document = a_document(1)
    await insert(kept.documents, document)
    for page in (1, 2, 3):
        await kept.pages.keep(key_of(document, page), PICTURE, now=NOW + dt.timedelta(seconds=page))
    a_day_later = NOW + rules.KEPT_FOR
    assert await kept.pages.expire(now=a_day_later, limit=10) == 0
    assert await kept.pages.expire(now=a_day_later + dt.timedelta(seconds=2), limit=1) == 1
    assert await kept.pages.expire(now=a_day_later + dt.timedelta(seconds=2), limit=10) == 1
    assert [await kept.pages.get(key_of(document, page)) for page in (1, 2, 3)] == [None, None, PICTURE]


async def test_a_tenants_oldest_go_first_and_no_others(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("memory_pictures", "postgres_drawn"):
        monkeypatch.setattr(f"services.extractor.adapters.{module}.MAX_TENANT_BYTES", len(PICTURE.content) * 2)
    ours, theirs = a_document(1), a_document(1, tenant="other")
    await insert(kept.documents, ours, theirs)
    await kept.pages.keep(key_of(theirs), PICTURE, now=NOW)
    for page in (1, 2, 3):
        await kept.pages.keep(key_of(ours, page), PICTURE, now=NOW + dt.timedelta(seconds=page))
    assert [await kept.pages.get(key_of(ours, page)) for page in (1, 2, 3)] == [None, PICTURE, PICTURE]
    assert await kept.pages.get(key_of(theirs)) == PICTURE


async def test_drawing_against_deleting_leaves_nothing_behind(kept: Kept) -> None:
    for number in range(20):
        document = a_document(number)
        await insert(kept.documents, document)
        await asyncio.gather(
            remove(kept.documents, document),
            *(kept.pages.keep(key_of(document, page), PICTURE, now=NOW) for page in (1, 2, 3)),
        )
        await insert(kept.documents, document)
        assert [await kept.pages.get(key_of(document, page)) for page in (1, 2, 3)] == [None] * 3
        await remove(kept.documents, document)


async def test_what_is_being_kept_as_its_document_is_removed_goes_with_it(database: Callable[[str], str]) -> None:
    dsn = database("extractor")
    pool = await open_pool(dsn, name="test")
    documents, document = PostgresDocuments(pool), a_document(1)
    await insert(documents, document)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        await connection.execute(
            "INSERT INTO extractor.drawn_pages VALUES (%s, %s, 1, 200, 'PNG', 0, 1, 1, 1, now(), 'x')",
            ("acme", document.id),
        )
        removing = asyncio.ensure_future(remove(documents, document))
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as looking, asyncio.timeout(10):
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while (await (await looking.execute(waiting)).fetchone()) == (0,):
                await asyncio.sleep(0.01)
        await connection.commit()
        await removing
        left = await (await connection.execute("SELECT count(*) FROM extractor.drawn_pages")).fetchone()
        assert left == (0,)
    await pool.close()


async def test_row_security_holds_where_a_query_forgets_its_tenant(database: Callable[[str], str]) -> None:
    dsn = database("extractor")
    pool = await open_pool(dsn, name="test")
    document = a_document(1)
    await insert(PostgresDocuments(pool), document)
    await PostgresDrawnPages(pool).keep(key_of(document), PICTURE, now=NOW)
    await pool.close()
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        for tenant, seen in (("", 0), ("other", 0), ("acme", 1)):
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (tenant,))
            row = await (await connection.execute("SELECT count(*) FROM extractor.drawn_pages")).fetchone()
            assert row == (seen,)


async def test_a_database_that_is_down_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.database.pool.ACQUIRE_TIMEOUT_S", 0.1)
    pool = await open_pool("postgresql://nobody@127.0.0.1:1/none", name="test")
    try:
        with pytest.raises(Unavailable) as told:
            await PostgresDrawnPages(pool).get(key_of(a_document(1)))
        assert told.value.reason == "DATABASE_UNAVAILABLE"
    finally:
        await pool.close()
