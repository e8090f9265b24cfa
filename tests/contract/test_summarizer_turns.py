"""TurnBook: in memory and on a real Postgres, and what only Postgres can promise."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from services.database.pool import Pool, open_pool
from services.summarizer.adapters.memory_turns import MemoryTurns
from services.summarizer.adapters.postgres_turns import PostgresTurns
from services.summarizer.domain.turns import TurnBook

KEY, OTHER = b"k" * 32, b"o" * 32
ALICE, BOB = (str(uuid.UUID(int=number)) for number in (1, 2))
PAST_S, LONG_S = -1.0, 600.0


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    pool = await open_pool(database("summarizer"), name="contract", max_size=8)
    yield pool
    await pool.close()


@pytest.fixture(params=["memory", "postgres"])
def book(request: pytest.FixtureRequest) -> TurnBook:
    if request.param == "memory":
        return MemoryTurns(lambda: asyncio.get_running_loop().time())
    return PostgresTurns(request.getfixturevalue("pool"))


async def test_a_turn_is_one_holders_until_he_leaves(book: TurnBook) -> None:
    assert await book.take("acme", KEY, ALICE, LONG_S)
    assert not await book.take("acme", KEY, BOB, LONG_S)
    assert await book.take("acme", KEY, ALICE, LONG_S), "it is renewed"
    await book.leave("acme", KEY, BOB)
    assert not await book.take("acme", KEY, BOB, LONG_S), "he had none to leave"
    await book.leave("acme", KEY, ALICE)
    assert await book.take("acme", KEY, BOB, LONG_S)


async def test_keys_and_tenants_are_apart(book: TurnBook) -> None:
    assert await book.take("acme", KEY, ALICE, LONG_S)
    assert await book.take("acme", OTHER, BOB, LONG_S)
    assert await book.take("umbrella", KEY, BOB, LONG_S)
    await book.leave("umbrella", KEY, BOB)
    assert not await book.take("acme", KEY, BOB, LONG_S)


async def test_a_lease_that_ran_out_is_anybodys(book: TurnBook) -> None:
    assert await book.take("acme", KEY, ALICE, PAST_S)
    assert await book.take("acme", KEY, BOB, LONG_S)
    assert not await book.take("acme", KEY, ALICE, LONG_S), "the first one has lost it"


async def test_of_many_who_come_at_once_one_has_it(book: TurnBook) -> None:
    holders = [str(uuid.UUID(int=number)) for number in range(1, 33)]
    assert sum(await asyncio.gather(*(book.take("acme", KEY, holder, LONG_S) for holder in holders))) == 1


async def test_what_the_dead_left_goes(pool: Pool) -> None:
    book = PostgresTurns(pool)
    await book.take("acme", KEY, ALICE, -7200)
    await book.take("acme", OTHER, BOB, LONG_S)
    await book.leave("acme", OTHER, BOB)
    async with pool.connection() as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        assert await (await connection.execute("SELECT FROM summarizer.turns")).fetchall() == []


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(pool: Pool) -> None:
    await PostgresTurns(pool).take("acme", KEY, ALICE, LONG_S)
    async with pool.connection() as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'umbrella', true)")
        assert await (await connection.execute("SELECT FROM summarizer.turns")).fetchall() == []
