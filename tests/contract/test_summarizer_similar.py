"""SimilarBook: in memory and on a real Postgres, and what only Postgres can promise."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.summarizer.adapters import postgres_similar
from services.summarizer.adapters.memory import MemoryStore
from services.summarizer.adapters.memory_similar import MemorySimilar
from services.summarizer.adapters.postgres_results import PostgresResults
from services.summarizer.adapters.postgres_similar import PostgresSimilar
from services.summarizer.domain.likeness import Drawn, Marks
from services.summarizer.domain.ports import Results
from services.summarizer.domain.similar import SimilarBook, Trace
from tests.contract.test_summarizer_results import ANSWER, DOCUMENT, KEYS, OTHER, OTHER_DOCUMENT, delivery

BANDS = tuple(bytes([number]) * 16 for number in range(8))
ELSEWHERE = tuple(bytes([number + 100]) * 16 for number in range(8))
SKETCH, MARKS = b"s" * 260, Marks(b"w" * 16, b"\1\0")


def trace(number: int, bands: tuple[bytes, ...] = BANDS) -> Trace:
    return Trace(KEYS[number], Drawn(bands, SKETCH), MARKS, first_page=number + 1)


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=5)
    yield pool
    await pool.close()


Books = tuple[SimilarBook, Results]


@pytest.fixture(params=["memory", "postgres"])
def books(request: pytest.FixtureRequest) -> Books:
    if request.param == "memory":
        store = MemoryStore(lambda: asyncio.get_running_loop().time())
        return MemorySimilar(store), store
    pool = request.getfixturevalue("pool")
    return PostgresSimilar(pool), PostgresResults(pool)


async def test_a_text_is_found_by_any_of_its_bands_with_its_answer(books: Books) -> None:
    book, results = books
    await results.commit(KEYS[0], ANSWER, delivery(1))
    await book.keep("acme", [trace(0)])
    (found,) = await book.find("acme", (*ELSEWHERE[:7], BANDS[3]), 8)
    assert found.answer == ANSWER
    assert (found.document, found.generation) == (DOCUMENT, 0)
    assert (found.sketch, found.marks, found.first_page) == (SKETCH, MARKS, 1)
    assert await book.find("acme", ELSEWHERE, 8) == ()
    assert await book.find("acme", (), 8) == ()


async def test_those_with_most_in_common_come_first_and_few_of_them(books: Books) -> None:
    book, results = books
    for number in range(4):
        await results.commit(KEYS[number], ANSWER, delivery(number))
    shared = [BANDS[:n] + ELSEWHERE[: 8 - n] for n in (1, 8, 3)]
    await book.keep("acme", [trace(number, bands) for number, bands in enumerate(shared)])
    assert [found.first_page for found in await book.find("acme", BANDS, 8)] == [2, 3, 1]
    assert [found.first_page for found in await book.find("acme", BANDS, 2)] == [2, 3]


async def test_a_text_without_an_answer_is_not_kept_and_one_that_is_there_stays(books: Books) -> None:
    book, results = books
    await results.commit(KEYS[0], ANSWER, delivery(1))
    await book.keep("acme", [trace(0), trace(1)])
    await book.keep("acme", [replace(trace(0), first_page=9)])
    assert [found.first_page for found in await book.find("acme", BANDS, 8)] == [1]


async def test_another_tenant_finds_nothing(books: Books) -> None:
    book, results = books
    await results.commit(KEYS[0], ANSWER, delivery(1))
    await results.commit(KEYS[0], OTHER, delivery(2, tenant="globex"))
    await book.keep("acme", [trace(0)])
    assert await book.find("globex", BANDS, 8) == ()
    await book.keep("globex", [trace(0)])
    (found,) = await book.find("globex", BANDS, 8)
    assert found.answer == OTHER


async def test_it_goes_with_its_answer(books: Books) -> None:
    book, results = books
    await results.commit(KEYS[0], ANSWER, delivery(1))
    await results.commit(KEYS[1], ANSWER, delivery(2, document=OTHER_DOCUMENT))
    await book.keep("acme", [trace(0), trace(1)])
    assert await results.purge("acme", DOCUMENT) == 1
    assert [found.document for found in await book.find("acme", BANDS, 8)] == [OTHER_DOCUMENT]
    after = await results.generation("acme", DOCUMENT)
    await results.commit(KEYS[0], ANSWER, delivery(3), generation=after)
    await book.keep("acme", [trace(0)])
    found = {each.document: each.generation for each in await book.find("acme", BANDS, 8)}
    assert found == {DOCUMENT: after, OTHER_DOCUMENT: 0}


async def test_nothing_is_left_of_it_in_postgres(pool: Pool) -> None:
    results, book = PostgresResults(pool), PostgresSimilar(pool)
    await results.commit(KEYS[0], ANSWER, delivery(1))
    await book.keep("acme", [trace(0)])
    await results.purge("acme", DOCUMENT)
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        for table in ("similar_chunks", "similar_bands"):
            assert await (await connection.execute(f"SELECT FROM summarizer.{table}".encode())).fetchall() == []


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(pool: Pool) -> None:
    await PostgresResults(pool).commit(KEYS[0], ANSWER, delivery(1))
    await PostgresSimilar(pool).keep("acme", [trace(0)])
    for tenant, rows in (("acme", (1, 8)), ("globex", (0, 0)), ("", (0, 0))):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
            seen = [
                len(await (await connection.execute(f"SELECT FROM summarizer.{table}".encode())).fetchall())
                for table in ("similar_chunks", "similar_bands")
            ]
        assert tuple(seen) == rows
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.tenant', 'globex', true)")
            await connection.execute(
                "INSERT INTO summarizer.similar_bands VALUES (%s, %s, %s)", ("acme", b"b" * 16, KEYS[1])
            )


async def test_the_look_up_goes_by_its_index(pool: Pool) -> None:
    row = {"tenant": "acme", "bands": list(BANDS), "limit": 8, "most": 32}
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        await connection.execute("SET LOCAL enable_seqscan = off")
        rows = await (await connection.execute(f"EXPLAIN {postgres_similar.FIND}".encode(), row)).fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "similar_bands_pkey" in plan, plan
    assert "Seq Scan" not in plan, plan
