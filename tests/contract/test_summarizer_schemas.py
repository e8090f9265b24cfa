"""SchemaStore and SchemaCache: in memory and on the real thing, and what only Postgres and Valkey can promise."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import redis.asyncio as redis

from services.database.pool import Pool, open_pool
from services.runtime.breaker import Breaker
from services.runtime.errors import ResourceExhausted, Unavailable
from services.summarizer.adapters.memory_schemas import MemorySchemaCache, MemorySchemas
from services.summarizer.adapters.postgres_schemas import LATEST_OF_EACH, VERSIONS, PostgresSchemas
from services.summarizer.adapters.redis_cache import connect
from services.summarizer.adapters.redis_schemas import TTL_S, RedisSchemaCache
from services.summarizer.domain.json_schema import check
from services.summarizer.domain.ports_schemas import SchemaCache, SchemaStore
from services.summarizer.domain.schema_values import StoredSchema

MANY = {"most_ids": 1000, "most_versions": 1000}


def content(title: str) -> dict[str, Any]:
    return {"type": "object", "title": title, "properties": {"a": {"type": "string", "title": '\u0000"'}}}


async def add(store: SchemaStore, schema_id: str, title: str, *, tenant: str = "acme") -> tuple[StoredSchema, bool]:
    checked = check(content(title))
    return await store.add(tenant, schema_id, content(title), checked.digest, **MANY)


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=5)
    yield pool
    await pool.close()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> SchemaStore:
    return MemorySchemas() if request.param == "memory" else PostgresSchemas(request.getfixturevalue("pool"))


class TestEveryStore:
    async def test_other_content_is_the_next_version_and_the_same_content_the_same(self, store: SchemaStore) -> None:
        first, created = await add(store, "invoice", "one")
        assert (first.name, created) == ("schemas/invoice@1", True)
        second, created = await add(store, "invoice", "two")
        assert (second.version, created) == (2, True)
        again, created = await add(store, "invoice", "one")
        assert (again, created) == (first, False)
        assert again.content == content("one")
        assert await store.find("acme", "invoice", 0) == second
        assert await store.find("acme", "invoice", 1) == first
        assert await store.find("acme", "invoice", 3) is None

    async def test_a_number_is_never_given_twice(self, store: SchemaStore) -> None:
        for title in ("one", "two"):
            await add(store, "invoice", title)
        assert await store.delete("acme", "invoice", most_deleted=9) == 2
        assert await store.delete("acme", "invoice", most_deleted=9) == 0
        assert await store.find("acme", "invoice", 0) is None
        assert await store.find("acme", "invoice", 1) is None
        assert await store.latest("acme", "", 10) == []
        anew, created = await add(store, "invoice", "one")
        assert (anew.version, created) == (3, True)
        assert await store.find("acme", "invoice", 0) == anew

    async def test_of_the_ids_that_were_deleted_so_many_are_remembered_and_no_number_is_given_twice(
        self, store: SchemaStore
    ) -> None:
        for schema_id, versions in (("a", 3), ("b", 1), ("c", 2), ("d", 1), ("kept", 1)):
            for number in range(versions):
                await add(store, schema_id, f"{schema_id}{number}")
        for schema_id in ("a", "b", "c", "d"):
            await store.delete("acme", schema_id, most_deleted=1)
        # "a" is remembered, as the one with the highest number; behind the others nobody begins below 3.
        numbers = [(await add(store, schema_id, "anew"))[0].version for schema_id in ("a", "b", "e", "kept")]
        assert numbers == [4, 3, 3, 2]
        assert (await add(store, "a", "theirs", tenant="globex"))[0].version == 1
        assert [schema.schema_id for schema in await store.latest("acme", "", 9)] == ["a", "b", "e", "kept"]

    async def test_lists_go_on_where_they_ended(self, store: SchemaStore) -> None:
        for schema_id in ("b", "a", "c"):
            await add(store, schema_id, "one")
            await add(store, schema_id, "two")
        assert [schema.name for schema in await store.latest("acme", "", 2)] == ["schemas/a@2", "schemas/b@2"]
        assert [schema.name for schema in await store.latest("acme", "b", 2)] == ["schemas/c@2"]
        assert [schema.version for schema in await store.versions("acme", "a", 0, 9)] == [2, 1]
        assert [schema.version for schema in await store.versions("acme", "a", 2, 9)] == [1]

    async def test_another_tenant_sees_and_deletes_nothing(self, store: SchemaStore) -> None:
        await add(store, "invoice", "one")
        assert await store.find("globex", "invoice", 1) is None
        assert await store.latest("globex", "", 10) == []
        assert await store.versions("globex", "invoice", 0, 10) == []
        assert await store.delete("globex", "invoice", most_deleted=9) == 0
        theirs, _ = await add(store, "invoice", "theirs", tenant="globex")
        assert theirs.version == 1
        assert (await store.find("acme", "invoice", 0)) != theirs

    async def test_there_is_room_for_so_many(self, store: SchemaStore) -> None:
        few = {"most_ids": 1, "most_versions": 2}
        for title in ("one", "two"):
            await store.add("acme", "a", content(title), check(content(title)).digest, **few)
        with pytest.raises(ResourceExhausted, match="versions"):
            await store.add("acme", "a", content("three"), check(content("three")).digest, **few)
        with pytest.raises(ResourceExhausted, match="1 schemas"):
            await store.add("acme", "b", content("one"), check(content("one")).digest, **few)
        await store.delete("acme", "a", most_deleted=9)
        await store.add("acme", "b", content("one"), check(content("one")).digest, **few)


class TestPostgres:
    async def test_many_at_once_get_numbers_of_their_own(self, pool: Pool) -> None:
        store = PostgresSchemas(pool)
        made = await asyncio.gather(*(add(store, "invoice", f"title {n % 5}") for n in range(20)))
        assert sorted({schema.version for schema, _ in made}) == [1, 2, 3, 4, 5]
        assert sum(created for _, created in made) == 5

    async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(self, pool: Pool) -> None:
        store = PostgresSchemas(pool)
        await add(store, "invoice", "one")
        async with pool.connection() as connection:
            for table in ("schemas", "schema_ids"):
                for tenant, rows in (("globex", 0), ("acme", 1)):
                    async with connection.transaction():
                        await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
                        counted = await connection.execute(f"SELECT count(*) FROM summarizer.{table}")
                        assert await counted.fetchone() == (rows,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(
                    "INSERT INTO summarizer.schema_ids VALUES ('acme', 'x', 1, 1)",
                )

    @pytest.mark.parametrize("query", [LATEST_OF_EACH, VERSIONS], ids=["latest", "versions"])
    async def test_lists_have_their_index(self, pool: Pool, query: str) -> None:
        row = {"tenant": "acme", "schema_id": "a", "after": "", "below": 0, "limit": 10}
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            await connection.execute("SET LOCAL enable_seqscan = off")
            plan = await (await connection.execute(f"EXPLAIN {query}", row)).fetchall()
        text = "\n".join(line for (line,) in plan)
        assert "Seq Scan" not in text
        assert "Sort" not in text, text


SCHEMA = StoredSchema("invoice", 3, content("one"), "0" * 64, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator["redis.Redis"]:
    client = connect(valkey_url)
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> SchemaCache:
    if request.param == "memory":
        return MemorySchemaCache()
    # Longer than in earnest: a busy machine is not what is tested here.
    return RedisSchemaCache(request.getfixturevalue("client"), breaker=Breaker("schemas-contract"), timeout_s=10)


class TestEveryCache:
    async def test_what_was_put_comes_back_for_its_tenant_alone(self, cache: SchemaCache) -> None:
        assert await cache.get("acme", "invoice", 3) is None
        await cache.put("acme", SCHEMA)
        assert await cache.get("acme", "invoice", 3) == SCHEMA
        assert await cache.get("acme", "invoice", 2) is None
        assert await cache.get("globex", "invoice", 3) is None

    async def test_forgetting_takes_all_versions_of_one_schema(self, cache: SchemaCache) -> None:
        for version in (1, 2):
            await cache.put("acme", StoredSchema("bill", version, {}, "0" * 64, SCHEMA.create_time))
        await cache.put("acme", SCHEMA)
        await cache.forget("globex", "bill")
        assert await cache.get("acme", "bill", 1) is not None
        await cache.forget("acme", "bill")
        assert await cache.get("acme", "bill", 1) is None
        assert await cache.get("acme", "bill", 2) is None
        assert await cache.get("acme", "invoice", 3) == SCHEMA


class TestRedis:
    async def test_it_is_kept_for_a_day(self, client: "redis.Redis") -> None:
        cache = RedisSchemaCache(client, breaker=Breaker("schemas-ttl"), timeout_s=10)
        await cache.put("day", SCHEMA)
        assert TTL_S == 24 * 3600
        assert 0 < await client.ttl("pagemesh:schemas:1:day:invoice") <= TTL_S

    @pytest.mark.parametrize(
        "stored", [b"nonsense", b"[]", b'[["globex", "invoice", 3], {}, "x", "2026-01-01T00:00:00+00:00"]']
    )
    async def test_what_cannot_be_read_or_is_anothers_is_not_there(self, client: "redis.Redis", stored: bytes) -> None:
        cache = RedisSchemaCache(client, breaker=Breaker("schemas-bad"), timeout_s=10)
        await client.hset("pagemesh:schemas:1:bad:invoice", "3", stored)
        assert await cache.get("bad", "invoice", 3) is None

    async def test_a_cache_that_is_away_knows_nothing_and_says_so_where_it_matters(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            client = connect(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
            cache = RedisSchemaCache(client, breaker=Breaker("schemas-away"), timeout_s=0.2)
            assert await cache.get("acme", "invoice", 3) is None
            await cache.put("acme", SCHEMA)
            with pytest.raises(Unavailable):
                await cache.forget("acme", "invoice")
            await client.aclose()
