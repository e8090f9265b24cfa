"""Stored schemas: which version is answered, and that no deletion is outlived by the cache."""

from typing import Any

import pytest

from services.runtime.errors import InvalidArgument, NotFound, Unavailable
from services.summarizer.adapters.memory_schemas import MemorySchemaCache, MemorySchemas
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.schema_values import StoredSchema, parse_name


def content(title: str = "one") -> dict[str, Any]:
    return {"type": "object", "title": title, "properties": {"a": {"type": "string"}}}


class Book:
    """The use cases over memory."""

    def __init__(self, cache: MemorySchemaCache | None = None) -> None:
        self.store, self.cache = MemorySchemas(), cache or MemorySchemaCache()
        self.counted: list[str] = []
        self.book = SchemaBook(store=self.store, cache=self.cache, counted=self.counted.append)


@pytest.fixture
def world() -> Book:
    return Book()


async def test_versions_and_what_is_counted(world: Book) -> None:
    first, created = await world.book.create("acme", "invoice", content())
    assert (first.name, created) == ("schemas/invoice@1", True)
    again, created = await world.book.create("acme", "invoice", dict(reversed(content().items())))
    assert (again.name, created) == ("schemas/invoice@1", False)
    second, _ = await world.book.create("acme", "invoice", content("two"))
    assert world.counted == ["created", "known", "created"]
    assert await world.book.get("acme", "schemas/invoice") == second
    assert await world.book.get("acme", "schemas/invoice@1") == first


async def test_a_version_comes_from_the_cache_and_the_latest_never(world: Book) -> None:
    await world.book.create("acme", "invoice", content())
    asked: list[int] = []
    find = world.store.find

    async def counting(tenant: str, schema_id: str, version: int) -> StoredSchema | None:
        asked.append(version)
        return await find(tenant, schema_id, version)

    world.store.find = counting  # type: ignore[method-assign]
    for _ in range(3):
        await world.book.get("acme", "schemas/invoice@1")
    assert asked == [1, 1], "once to find it, once to see that it is still there"
    await world.book.get("acme", "schemas/invoice")
    assert asked[2:] == [0]


async def test_nothing_is_cached_of_what_was_deleted_meanwhile() -> None:
    class Slow(MemorySchemaCache):
        async def put(self, tenant: str, schema: StoredSchema) -> None:
            await kept.book.delete(tenant, "schemas/invoice")  # between finding and keeping
            await super().put(tenant, schema)

    kept = Book(Slow())
    await kept.book.create("acme", "invoice", content())
    assert (await kept.book.get("acme", "schemas/invoice@1")).version == 1
    with pytest.raises(NotFound):
        await kept.book.get("acme", "schemas/invoice@1")


async def test_a_deletion_whose_cache_was_away_can_be_tried_again() -> None:
    class Away(MemorySchemaCache):
        away = True

        async def forget(self, tenant: str, schema_id: str) -> None:
            if self.away:
                raise Unavailable("CACHE_UNAVAILABLE", "away")
            await super().forget(tenant, schema_id)

    cache = Away()
    world = Book(cache)
    await world.book.create("acme", "invoice", content())
    await world.book.get("acme", "schemas/invoice@1")
    with pytest.raises(Unavailable):
        await world.book.delete("acme", "schemas/invoice")
    cache.away = False
    with pytest.raises(NotFound, match="SCHEMA_NOT_FOUND"):
        await world.book.delete("acme", "schemas/invoice")
    assert await cache.get("acme", "invoice", 1) is None


async def test_lists_are_paged(world: Book) -> None:
    for schema_id in ("b", "a", "c"):
        for title in ("one", "two", "three"):
            await world.book.create("acme", schema_id, content(title))

    async def read(versions_of: str = "") -> list[str]:
        names, token = [], ""
        while True:
            part, token = await world.book.list("acme", versions_of=versions_of, page_size=2, page_token=token)
            names += [schema.name for schema in part]
            if not token:
                return names

    assert await read() == ["schemas/a@3", "schemas/b@3", "schemas/c@3"]
    assert await read("schemas/a") == ["schemas/a@3", "schemas/a@2", "schemas/a@1"]
    _, token = await world.book.list("acme", versions_of="", page_size=2, page_token="")
    for bad in (token[:-2], "!", token + "AAAA=", "A" * 11, "\u00e4"):
        with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
            await world.book.list("acme", versions_of="schemas/a", page_size=2, page_token=bad)
    with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
        await world.book.list("acme", versions_of="schemas/a", page_size=2, page_token=token)


async def test_a_schema_that_cannot_be_used_is_not_kept(world: Book) -> None:
    with pytest.raises(InvalidArgument, match="SCHEMA_INVALID"):
        await world.book.create("acme", "invoice", {"type": "array"})
    assert world.counted == []
    with pytest.raises(NotFound):
        await world.book.get("acme", "schemas/invoice")


@pytest.mark.parametrize(
    "name", ["", "schemas/", "schemas/A", "schemas/a@0", "schemas/a@", "schemas/a@1\n", "schemas/a-"]
)
def test_names(name: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        parse_name(name)
