"""What every index of vectors promises, in memory and in Postgres; and how Postgres keeps tenants apart."""

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from services.database.pool import Pool
from services.extractor.adapters.memory_vectors import MemoryVectors
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_vectors import PostgresVectors
from services.extractor.domain.documents import Document
from services.extractor.domain.hybrid import MAX_DIMENSIONS, Passage, Vector, VectorIndex
from services.extractor.domain.receipts import Cause
from services.extractor.domain.search import Filters
from services.runtime.errors import InvalidArgument, NotFound
from tests.contract.test_extractor_search import NOW, a_document, opened, store
from tests.integration.extractor.scripted_summarizer import packed

MODEL = "mistral/mistral-embed"


def vector(*numbers: float, model: str = MODEL) -> Vector:
    return Vector(model, packed(numbers))


@dataclass
class World:
    index: VectorIndex
    add: Callable[[Document], Awaitable[None]]
    pool: Pool | None = None

    async def names(
        self, wanted: Vector, *, tenant: str = "acme", filters: Filters | None = None, limit: int = 10
    ) -> list[tuple[str, int]]:
        found = await self.index.nearest(tenant, wanted, filters or Filters(), limit=limit, timeout_s=5)
        return [(page.display_name, page.page) for page in found]


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        memory = MemoryVectors()

        async def remember(document: Document) -> None:
            memory.add(document)

        yield World(memory, remember)
        return
    async with opened(request) as pool:
        yield World(PostgresVectors(pool), lambda document: store(pool, document), pool)


async def test_the_nearest_page_comes_first_by_its_nearest_passage(world: World) -> None:
    one, two = a_document(1), a_document(2)
    await world.add(one)
    await world.add(two)
    assert not await world.index.has_any("acme", MODEL)
    await world.index.store("acme", one.id, [Passage(1, 0, vector(1, 0)), Passage(2, 0, vector(0, 1))])
    await world.index.store("acme", two.id, [Passage(7, 0, vector(0, 1)), Passage(7, 1, vector(9, 1))])
    assert await world.index.has_any("acme", MODEL)
    found = await world.index.nearest("acme", vector(2, 0), Filters(), limit=10, timeout_s=5)
    assert [(page.display_name, page.page) for page in found] == [("d1.pdf", 1), ("d2.pdf", 7), ("d1.pdf", 2)]
    assert [page.score for page in found] == pytest.approx([1.0, 0.994, 0.0], abs=0.001)
    assert await world.names(vector(2, 0), limit=1) == [("d1.pdf", 1)]


async def test_tenants_and_filters(world: World) -> None:
    old, new, other = a_document(1, at=NOW - dt.timedelta(days=1)), a_document(2), a_document(3, tenant="other")
    for document in (old, new, other):
        await world.add(document)
        await world.index.store(document.tenant, document.id, [Passage(1, 0, vector(1, 1))])
    assert await world.names(vector(1, 1), tenant="other") == [("d3.pdf", 1)]
    assert await world.names(vector(1, 1), tenant="nobody") == []
    assert await world.names(vector(1, 1), filters=Filters(documents=(new.id,))) == [("d2.pdf", 1)]
    assert await world.names(vector(1, 1), filters=Filters(documents=(other.id,))) == []
    assert await world.names(vector(1, 1), filters=Filters(stored_after=NOW)) == [("d2.pdf", 1)]
    assert await world.names(vector(1, 1), filters=Filters(stored_before=NOW)) == [("d1.pdf", 1)]
    assert await world.names(vector(1, 1), filters=Filters(languages=("en",))) == []


async def test_what_a_page_had_goes_and_so_does_another_model(world: World) -> None:
    document = a_document(1)
    await world.add(document)
    both = [Passage(1, 0, vector(1, 0)), Passage(1, 1, vector(0, 1)), Passage(2, 0, vector(1, 0))]
    for _ in range(2):  # again changes nothing
        await world.index.store("acme", document.id, both)
    await world.index.store("acme", document.id, [Passage(1, 0, vector(0, 1))])
    found = await world.index.nearest("acme", vector(1, 0), Filters(), limit=9, timeout_s=5)
    assert [(page.page, round(page.score)) for page in found] == [(2, 1), (1, 0)]
    await world.index.store("acme", document.id, [Passage(1, 0, vector(1, 0, 0, model="openai/x"))])
    assert not await world.index.has_any("acme", MODEL)
    assert await world.names(vector(1, 0)) == []
    assert await world.names(vector(1, 0, model="openai/x")) == []  # of another length, as after a changed model
    assert await world.names(vector(1, 0, 0, model="openai/x")) == [("d1.pdf", 1)]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\0", packed([float("nan")]), packed([float("inf")]), packed([1.0] * (MAX_DIMENSIONS + 1))]
)
async def test_what_is_no_vector_is_refused(world: World, data: bytes) -> None:
    await world.add(a_document(1))
    with pytest.raises(InvalidArgument) as told:
        await world.index.store("acme", a_document(1).id, [Passage(1, 0, Vector(MODEL, data))])
    assert told.value.reason == "VECTOR_INVALID"


async def test_the_largest_vector_is_taken(world: World) -> None:
    await world.add(a_document(1))
    largest = vector(*[0.01] * MAX_DIMENSIONS)
    await world.index.store("acme", a_document(1).id, [Passage(1, 255, largest)])
    assert await world.names(largest) == [("d1.pdf", 1)]


async def test_a_document_that_is_not_there(world: World) -> None:
    await world.add(a_document(1, tenant="other"))
    for number in (1, 2):
        with pytest.raises(NotFound):
            await world.index.store("acme", a_document(number).id, [Passage(1, 0, vector(1, 0))])


async def test_a_forgotten_predicate_shows_nothing_of_others_and_plans_stay_with_the_tenant(
    request: pytest.FixtureRequest,
) -> None:
    async with opened(request) as pool:
        mine, other = a_document(1), a_document(2, tenant="other")
        for document in (mine, other):
            await store(pool, document)
            await PostgresVectors(pool).store(document.tenant, document.id, [Passage(1, 0, vector(1, 0))])
        async with pool.connection() as connection:
            assert await (await connection.execute("SELECT * FROM extractor.page_vectors")).fetchall() == []
            await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            rows = await (await connection.execute("SELECT document_id FROM extractor.page_vectors")).fetchall()
            assert rows == [(mine.id,)]
            await connection.execute("SELECT set_config('enable_seqscan', 'off', true)")
            for query in (
                "SELECT min(embedding OPERATOR(vectors.<=>) '[1,0]') FROM extractor.page_vectors WHERE tenant = 'acme'",
                "SELECT 1 FROM extractor.page_vectors WHERE tenant = 'acme' AND document_id = ANY('{a,b}')",
                "SELECT 1 FROM extractor.page_vectors WHERE tenant = 'acme' AND model = 'm'",
            ):
                plan = str(await (await connection.execute(f"EXPLAIN {query}")).fetchall())
                assert "Index Cond: (tenant = 'acme'" in plan or "Index Cond: ((tenant = 'acme'" in plan, plan
                assert "Seq Scan" not in plan


async def test_an_erased_document_is_not_found_and_its_receipt_counts_its_vectors(
    request: pytest.FixtureRequest,
) -> None:
    async with opened(request) as pool:
        index, document = PostgresVectors(pool), a_document(1)
        await store(pool, document)
        await index.store("acme", document.id, [Passage(1, part, vector(1, 0)) for part in range(3)])
        async with PostgresDocuments(pool).locked("acme", document.id) as record:
            await record.mark_erased(NOW, cause=Cause.REQUESTED, actor="a", until=NOW)
        assert await index.nearest("acme", vector(1, 0), Filters(), limit=9, timeout_s=5) == []
        with pytest.raises(NotFound):
            await index.store("acme", document.id, [Passage(1, 0, vector(1, 0))])
        async with PostgresDocuments(pool).locked("acme", document.id) as record:
            assert (await record.remove()).index_entries == 3
        assert not await index.has_any("acme", MODEL)
