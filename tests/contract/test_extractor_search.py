"""What every search index and every list of unread documents promise, in memory and in Postgres."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from services.database.pool import Pool, open_pool
from services.extractor.adapters.memory_search import MemoryBacklog, MemorySearch
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_backlog import PostgresBacklog
from services.extractor.adapters.postgres_index import IndexablePage, index_pages
from services.extractor.adapters.postgres_search import PostgresSearch
from services.extractor.domain.documents import Document
from services.extractor.domain.indexer import LEASE, MAX_ATTEMPTS, IndexBacklog, Unread
from services.extractor.domain.media import MediaType
from services.extractor.domain.retention import Retention, Term
from services.extractor.domain.search import Filters, FoundPage, Place, SearchIndex
from services.extractor.domain.search_query import parse_query

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def a_document(number: int, *, tenant: str = "acme", at: dt.datetime = NOW) -> Document:
    return Document(tenant, f"{number:032x}" + "ab" * 16, f"d{number}.pdf", MediaType.PDF, 100, at)


async def store(pool: Pool, document: Document) -> None:
    async with PostgresDocuments(pool).locked(document.tenant, document.id) as record:
        await record.insert(document)


@dataclass
class Indexed:
    index: SearchIndex
    add: Callable[[Document, str], Awaitable[None]]

    async def names(self, query: str, *, tenant: str = "acme", filters: Filters | None = None) -> list[str]:
        found = await self.index.find(
            tenant, parse_query(query), filters or Filters(), after=None, limit=100, timeout_s=5
        )
        return [page.display_name for page in found]


@contextlib.asynccontextmanager
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    database: Callable[[str], str] = request.getfixturevalue("database")
    pool = await open_pool(database("extractor"), name="test")
    try:
        yield pool
    finally:
        await pool.close()


@pytest.fixture(params=["memory", "postgres"])
async def indexed(request: pytest.FixtureRequest) -> AsyncIterator[Indexed]:
    if request.param == "memory":
        memory = MemorySearch()

        async def remember(document: Document, text: str) -> None:
            memory.add(document, 1, text)

        yield Indexed(memory, remember)
        return
    async with opened(request) as pool:

        async def write(document: Document, text: str) -> None:
            await store(pool, document)
            async with pool.connection() as connection:
                await index_pages(connection, [IndexablePage(document.tenant, document.id, 1, text)])

        yield Indexed(PostgresSearch(pool), write)


async def test_what_a_query_finds(indexed: Indexed) -> None:
    await indexed.add(a_document(1), "red engine ship")
    await indexed.add(a_document(2), "red car engine")
    assert sorted(await indexed.names("engine red")) == ["d1.pdf", "d2.pdf"]
    assert await indexed.names('"red engine"') == ["d1.pdf"]
    assert await indexed.names("engine -ship") == ["d2.pdf"]
    assert await indexed.names("shi*") == ["d1.pdf"]
    assert sorted(await indexed.names("ship or car")) == ["d1.pdf", "d2.pdf"]
    assert await indexed.names("red plane") == []


async def test_tenants_and_filters(indexed: Indexed) -> None:
    old, new = a_document(1, at=NOW - dt.timedelta(days=1)), a_document(2)
    await indexed.add(old, "engine")
    await indexed.add(new, "engine")
    assert await indexed.names("engine", tenant="other") == []
    assert await indexed.names("engine", filters=Filters(documents=(new.id,))) == ["d2.pdf"]
    assert await indexed.names("engine", filters=Filters(stored_after=NOW)) == ["d2.pdf"]
    assert await indexed.names("engine", filters=Filters(stored_before=NOW)) == ["d1.pdf"]


async def test_parts_follow_each_other(indexed: Indexed) -> None:
    for number in range(7):
        await indexed.add(a_document(number), "engine " * (1 + number % 3) + "car")
    query = parse_query("engine")
    whole = await indexed.index.find("acme", query, Filters(), after=None, limit=100, timeout_s=5)
    assert [page.score for page in whole] == sorted((page.score for page in whole), reverse=True)
    parts: list[FoundPage] = []
    place = None
    while part := await indexed.index.find("acme", query, Filters(), after=place, limit=2, timeout_s=5):
        parts += part
        place = Place(part[-1].score, part[-1].document_id, part[-1].page)
    assert parts == whole


async def test_lexemes_of_every_word_that_is_asked_for(indexed: Indexed) -> None:
    found = await indexed.index.lexemes({"": ["Engine,", "\u2013", "a-b"], "en": []}, timeout_s=5)
    assert set(found[""]["Engine,"]) == {"engine"}
    assert set(found[""]["\u2013"]) == set()
    assert {"a", "b"} <= set(found[""]["a-b"])
    assert found["en"] == {}


@dataclass
class Waiting:
    backlog: IndexBacklog
    add: Callable[..., Awaitable[Unread]]


@pytest.fixture(params=["memory", "postgres"])
async def waiting(request: pytest.FixtureRequest) -> AsyncIterator[Waiting]:
    if request.param == "memory":
        memory = MemoryBacklog()

        async def remember(number: int, due: dt.datetime = NOW, complete: bool = False) -> Unread:
            unread = Unread("acme", a_document(number).name)
            memory.add(unread, due=due, complete=complete)
            return unread

        yield Waiting(memory, remember)
        return
    async with opened(request) as pool:

        async def write(number: int, due: dt.datetime = NOW, complete: bool = False) -> Unread:
            document = a_document(number)
            await store(pool, document)
            async with pool.connection() as connection:
                await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
                await connection.execute(
                    "UPDATE extractor.documents SET index_due_time = %s, page_count = %s, searchable_pages = %s"
                    " WHERE id = %s",
                    (due, 3 if complete else None, 3 if complete else 0, document.id),
                )
            return Unread("acme", document.name)

        yield Waiting(PostgresBacklog(pool), write)


async def test_the_longest_due_comes_first_and_to_one_taker_only(waiting: Waiting) -> None:
    later = await waiting.add(1, NOW)
    first = await waiting.add(2, NOW - dt.timedelta(minutes=1))
    await waiting.add(3, NOW + dt.timedelta(seconds=1))
    assert await waiting.backlog.size(now=NOW) == 2
    taken = [await waiting.backlog.take(now=NOW, until=NOW + LEASE) for _ in range(3)]
    assert taken == [first, later, None]
    assert await waiting.backlog.size(now=NOW) == 0


async def test_a_document_whose_taker_died_is_attempted_once_more_and_then_never(waiting: Waiting) -> None:
    document = await waiting.add(1)
    now = NOW
    for _ in range(MAX_ATTEMPTS):
        assert await waiting.backlog.take(now=now, until=now + LEASE) == document
        assert await waiting.backlog.take(now=now, until=now + LEASE) is None
        now += LEASE
    assert await waiting.backlog.take(now=now, until=now + LEASE) is None
    assert await waiting.backlog.size(now=now + 10 * LEASE) == 0


async def test_an_attempt_that_was_not_its_fault_does_not_count(waiting: Waiting) -> None:
    document = await waiting.add(1)
    for _ in range(MAX_ATTEMPTS + 2):
        assert await waiting.backlog.take(now=NOW, until=NOW + LEASE) == document
        await waiting.backlog.put_back(document, due=NOW, counts=False)
    await waiting.backlog.strike_off(document)
    assert await waiting.backlog.take(now=NOW + LEASE, until=NOW + 2 * LEASE) is None


async def test_documents_whose_pages_can_all_be_found_are_struck_off(waiting: Waiting) -> None:
    await waiting.add(1, NOW, complete=True)
    assert await waiting.backlog.take(now=NOW, until=NOW + LEASE) is None
    assert await waiting.backlog.size(now=NOW) == 0


async def test_ephemeral_and_erased_documents_are_not_read(request: pytest.FixtureRequest) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    async with opened(request) as pool:
        await store(pool, replace(a_document(1), term=Term(Retention.EPHEMERAL, later)))
        await store(pool, a_document(2))
        async with pool.connection() as connection:
            await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            statement = "UPDATE extractor.documents SET erase_time = now() WHERE id = %s"
            await connection.execute(statement, (a_document(2).id,))
        assert await PostgresBacklog(pool).size(now=later) == 0
        assert await PostgresBacklog(pool).take(now=later, until=later + LEASE) is None
