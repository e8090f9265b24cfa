"""Answers that nobody uses any more: in memory and on a real Postgres, and what only Postgres can promise."""

from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.summarizer.adapters import postgres_results
from services.summarizer.adapters.memory import MemoryStore
from services.summarizer.adapters.postgres_results import PostgresResults
from tests.contract.test_summarizer_results import ANSWER, DOCUMENT, KEYS, OTHER_DOCUMENT, delivery


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=5)
    yield pool
    await pool.close()


DAY_S = 86_400.0
KEPT_S = 30 * DAY_S


class _Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(params=["memory", "postgres"])
def ageing(request: pytest.FixtureRequest) -> tuple[PostgresResults | MemoryStore, Callable[[float], Awaitable[None]]]:
    """A store, and what lets days go by for all that is in it."""
    if request.param == "memory":
        clock = _Clock()

        async def wait(days: float) -> None:
            clock.now_s += days * DAY_S

        return MemoryStore(clock), wait
    pool: Pool = request.getfixturevalue("pool")

    async def age(days: float) -> None:
        for tenant in ("acme", "globex"):
            async with pool.connection() as connection, connection.transaction():
                await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
                older = "UPDATE summarizer.results SET use_time = use_time - make_interval(secs => %s)"
                await connection.execute(older, (days * DAY_S,))

    return PostgresResults(pool), age


Ageing = tuple[PostgresResults | MemoryStore, Callable[[float], Awaitable[None]]]


class TestUnusedAnswers:
    async def test_what_nobody_used_goes_and_what_was_used_stays(self, ageing: Ageing) -> None:
        results, age = ageing
        for number in range(3):
            await results.commit(KEYS[number], ANSWER, delivery(number))
        await results.commit(KEYS[0], ANSWER, delivery(7, tenant="globex"))
        await age(20)
        assert await results.forget_unused(unused_s=KEPT_S, limit=10) == 0
        assert set(await results.find("acme", [KEYS[1]])) == {KEYS[1]}
        await age(12)
        assert await results.forget_unused(unused_s=KEPT_S, limit=10) == 3
        assert set(await results.find("acme", KEYS)) == {KEYS[1]}
        assert await results.find("globex", KEYS) == {}

    async def test_nothing_goes_before_its_time(self, ageing: Ageing) -> None:
        """The time of the last use is known but for a day."""
        results, age = ageing
        await results.commit(KEYS[0], ANSWER, delivery(1))
        await age(0.9)
        await results.find("acme", KEYS)
        await age(30.05)
        assert await results.forget_unused(unused_s=KEPT_S, limit=10) == 0
        await age(1.1)
        assert await results.forget_unused(unused_s=KEPT_S, limit=10) == 1

    async def test_few_go_at_once_and_those_first_that_were_left_for_longest(self, ageing: Ageing) -> None:
        results, age = ageing
        for number in range(4):
            await results.commit(KEYS[number], ANSWER, delivery(number))
            await age(2)
        await age(40)
        assert await results.forget_unused(unused_s=KEPT_S, limit=2) == 2
        assert set(await results.find("acme", KEYS)) == {KEYS[2], KEYS[3]}

    async def test_what_is_made_of_several_goes_too(self, ageing: Ageing) -> None:
        results, age = ageing
        both = ((DOCUMENT, 0), (OTHER_DOCUMENT, 0))
        await results.commit(KEYS[0], ANSWER, delivery(1, document=""), others=both)
        await age(40)
        assert await results.forget_unused(unused_s=KEPT_S, limit=2) == 1
        assert await results.purge("acme", OTHER_DOCUMENT) == 0


async def test_the_clean_up_goes_by_its_index_and_waits_for_nobody(pool: Pool) -> None:
    results = PostgresResults(pool)
    await results.commit(KEYS[0], ANSWER, delivery(1))
    await results.commit(KEYS[1], ANSWER, delivery(2))
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        await connection.execute("UPDATE summarizer.results SET use_time = now() - interval '40 days'")
    async with pool.connection() as reader, reader.transaction():
        await reader.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        locked = "SELECT FROM summarizer.results WHERE event_id = %s FOR NO KEY UPDATE"
        await reader.execute(locked, (delivery(1).hold_id,))
        assert set(await results.find("acme", KEYS)) == {KEYS[0], KEYS[1]}, "and so does who reads"
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            await connection.execute(
                "UPDATE summarizer.results SET use_time = now() - interval '40 days' WHERE event_id <> %s",
                (delivery(1).hold_id,),
            )
        assert await results.forget_unused(unused_s=KEPT_S, limit=10) == 1
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT set_config('pagemesh.across', 'answers', true)")
        await connection.execute("SET LOCAL enable_seqscan = off")
        row = {"unused_s": KEPT_S, "limit": 10}
        plan = await (await connection.execute(f"EXPLAIN {postgres_results.FORGET_UNUSED}".encode(), row)).fetchall()
    assert "results_by_use_time" in "\n".join(line for (line,) in plan)


async def test_the_clean_up_sees_answers_of_all_and_can_make_none(pool: Pool) -> None:
    await PostgresResults(pool).commit(KEYS[0], ANSWER, delivery(1))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.across', 'answers', true)")
            await connection.execute("UPDATE summarizer.results SET tenant = 'globex'")
    for across in ("jobs", ""):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('pagemesh.across', %s, true)", (across,))
            assert await (await connection.execute("SELECT FROM summarizer.results")).fetchall() == []
