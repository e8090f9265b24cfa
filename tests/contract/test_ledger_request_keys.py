"""What every RequestKeyStore promises, held against the ones in memory and in Postgres."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.memory_request_keys import MemoryRequestKeys
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.adapters.postgres_request_keys import PostgresRequestKeys
from services.ledger.adapters.postgres_rows import WORK_ACROSS
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.signed_requests import RequestKeyStore
from tests.unit.ledger.samples import STORES

NOW = datetime.now(UTC)
KEY_ID = "k" * 16
PUBLIC, OTHER = bytes(range(32)), bytes(range(1, 33))
NONCE = bytes(32)


@dataclass
class Kept:
    store: RequestKeyStore
    dsn: str = ""


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[RequestKeyStore]:
    if request.param == "memory":
        yield MemoryRequestKeys(lambda: datetime.now(UTC))
        return
    async with in_postgres(database("ledger")) as kept:
        yield kept.store


@contextlib.asynccontextmanager
async def in_postgres(dsn: str) -> AsyncIterator[Kept]:
    pool = await open_pool(dsn, name="test", max_size=8)
    await PostgresTenants(pool).ensure("acme", "acme", NOW)
    await PostgresKeys(pool).add(ApiKey(KEY_ID, "acme", "robot", frozenset({"usage.read"}), NOW), bytes(32))
    yield Kept(PostgresRequestKeys(pool), dsn)
    await pool.close()


async def test_a_key_demands_what_was_set_last(store: RequestKeyStore) -> None:
    assert await store.get("acme", KEY_ID) is None
    for public_key in (PUBLIC, OTHER, OTHER):
        await store.set("acme", KEY_ID, public_key, NOW)
        assert await store.get("acme", KEY_ID) == public_key
    assert await store.get("other", KEY_ID) is None
    assert await store.get("acme", "' OR true --") is None
    for _ in range(2):
        await store.set("acme", KEY_ID, None, NOW)
        assert await store.get("acme", KEY_ID) is None


async def test_of_sixteen_that_use_a_nonce_one_is_first(store: RequestKeyStore) -> None:
    later = NOW + timedelta(minutes=6)
    used = await asyncio.gather(*(store.use("acme", KEY_ID, NONCE, later) for _ in range(16)))
    assert used.count(True) == 1
    assert await store.use("acme", "l" * 16, NONCE, later)
    assert await store.use("other", KEY_ID, NONCE, later)
    assert await store.use("acme", KEY_ID, OTHER, later)


async def test_nonces_are_forgotten_in_parts_when_they_are_over(store: RequestKeyStore) -> None:
    for number in range(5):
        await store.use(f"t{number % 2}", KEY_ID, bytes([number]) * 32, NOW - timedelta(seconds=1))
    await store.use("acme", KEY_ID, NONCE, NOW + timedelta(hours=1))
    assert [await store.forget(3) for _ in range(3)] == [3, 2, 0]
    assert not await store.use("acme", KEY_ID, NONCE, NOW + timedelta(hours=1))


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(database: Callable[[str], str]) -> None:
    async with in_postgres(database("ledger")) as kept:
        await kept.store.set("acme", KEY_ID, PUBLIC, NOW)
        await kept.store.use("acme", KEY_ID, NONCE, NOW + timedelta(hours=1))
        for table in ("request_keys", "request_nonces"):
            with psycopg.connect(kept.dsn) as connection:
                everything = f"SELECT count(*) FROM ledger.{table}".encode()
                assert connection.execute(everything).fetchone() == (0,)
                for setting, value in (("tenant", "other"), ("across", "expiry"), ("across", "credentials")):
                    connection.execute("SELECT set_config(%s, %s, true)", (f"pagemesh.{setting}", value))
                    assert connection.execute(everything).fetchone() == (0,)
                    assert connection.execute(f"DELETE FROM ledger.{table}".encode()).rowcount == 0
                connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
                assert connection.execute(everything).fetchone() == (1,)


async def test_look_ups_go_through_indexes(database: Callable[[str], str]) -> None:
    from services.ledger.adapters import postgres_request_keys

    async with in_postgres(database("ledger")) as kept:
        with psycopg.connect(kept.dsn) as connection:
            connection.execute("SET enable_seqscan = off")
            values = {"tenant": "acme", "id": KEY_ID}
            plan = connection.execute(f"EXPLAIN {postgres_request_keys._GET}".encode(), values).fetchall()
            assert "request_keys_pkey" in str(plan)
            connection.execute(WORK_ACROSS, ("expiry",))
            plan = connection.execute(f"EXPLAIN {postgres_request_keys._FORGET}".encode(), (1,)).fetchall()
            assert "request_nonces_over" in str(plan)
