"""PolicyStore: in memory and on Postgres, and what only Postgres can promise."""

import asyncio
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.summarizer.adapters.memory_policies import MemoryPolicies
from services.summarizer.adapters.postgres_policies import FIND, PostgresPolicies
from services.summarizer.domain.model_policy import EMPTY, ModelPolicy, PolicyStore

POLICY = ModelPolicy("a/b", ("a/b", "c/d/e"), ("a/*", "c/d/e"))


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=5)
    yield pool
    await pool.close()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> PolicyStore:
    return MemoryPolicies() if request.param == "memory" else PostgresPolicies(request.getfixturevalue("pool"))


class TestEveryStore:
    async def test_what_was_kept_is_found_by_its_tenant_alone(self, store: PolicyStore) -> None:
        assert await store.find("acme") == EMPTY
        kept = await store.replace("acme", POLICY, revision=0)
        assert kept is not None
        assert (kept.default_model, kept.fallback_models, kept.allowed_models) == (
            "a/b",
            ("a/b", "c/d/e"),
            ("a/*", "c/d/e"),
        )
        assert (kept.revision, kept.update_time is not None) == (1, True)
        assert await store.find("acme") == kept
        assert await store.find("globex") == EMPTY

    async def test_whoever_read_an_older_one_does_not_replace_a_newer(self, store: PolicyStore) -> None:
        for revision in range(2):
            assert await store.replace("acme", POLICY, revision=revision) is not None
        for revision in (0, 1, 3):
            assert await store.replace("acme", EMPTY, revision=revision) is None
        assert (await store.find("acme")).default_model == "a/b"

    async def test_of_many_at_once_one_is_kept(self, store: PolicyStore) -> None:
        for revision in range(2):
            kept = await asyncio.gather(*(store.replace("acme", POLICY, revision=revision) for _ in range(5)))
            assert len([one for one in kept if one is not None]) == 1


class TestPostgres:
    async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(self, pool: Pool) -> None:
        await PostgresPolicies(pool).replace("acme", POLICY, revision=0)
        async with pool.connection() as connection:
            for tenant, rows in (("globex", 0), ("acme", 1)):
                async with connection.transaction():
                    await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
                    counted = await connection.execute("SELECT count(*) FROM summarizer.model_policies")
                    assert await counted.fetchone() == (rows,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("INSERT INTO summarizer.model_policies VALUES ('acme', '', '{}', '{}', 1)")

    async def test_it_is_found_by_its_key(self, pool: Pool) -> None:
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL enable_seqscan = off")
            plan = await (await connection.execute(f"EXPLAIN {FIND}", {"tenant": "acme"})).fetchall()
        assert "Seq Scan" not in "\n".join(line for (line,) in plan)
