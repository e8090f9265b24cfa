"""What every SigningKeyStore and RevokedSessions promises, held against the ones in memory and in Postgres."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.memory_sessions import MemoryRevokedSessions, MemorySigningKeys
from services.ledger.adapters.postgres_rows import WORK_ACROSS
from services.ledger.adapters.postgres_sessions import PostgresRevokedSessions, PostgresSigningKeys
from services.ledger.domain.sessions import RevokedSessions
from services.ledger.domain.signing_keys import SigningKeyStore, StoredSigningKey
from tests.unit.ledger.samples import STORES

NOW = datetime.now(UTC).replace(microsecond=123)
KEY = StoredSigningKey(
    "k" * 16,
    bytes(range(32)),
    bytes(60),
    NOW,
    NOW,
    NOW + timedelta(hours=1),
    NOW + timedelta(hours=2),
)
SESSION = "k" * 16 + "-" + "0" * 26


@dataclass
class Kept:
    keys: SigningKeyStore
    revoked: RevokedSessions
    dsn: str = ""


@pytest.fixture(params=STORES)
async def kept(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Kept]:
    if request.param == "memory":
        yield Kept(MemorySigningKeys(), MemoryRevokedSessions(lambda: datetime.now(UTC)))
        return
    async with in_postgres(database("ledger")) as opened:
        yield opened


@contextlib.asynccontextmanager
async def in_postgres(dsn: str) -> AsyncIterator[Kept]:
    pool = await open_pool(dsn, name="test", max_size=16)
    yield Kept(PostgresSigningKeys(pool), PostgresRevokedSessions(pool), dsn)
    await pool.close()


async def test_a_key_is_kept_as_it_was_planned(kept: Kept) -> None:
    shown: list[Sequence[StoredSigningKey]] = []

    def plan(known: Sequence[StoredSigningKey]) -> StoredSigningKey | None:
        shown.append(list(known))
        return None if known else KEY

    assert await kept.keys.all() == []
    assert await kept.keys.agree(NOW, plan) == [KEY]
    assert await kept.keys.agree(NOW, plan) == [KEY]
    assert await kept.keys.all() == [KEY]
    assert shown == [[], [KEY]]


async def test_a_key_goes_when_its_time_is_over(kept: Kept) -> None:
    await kept.keys.agree(NOW, lambda _: KEY)
    later = replace(KEY, kid="l" * 16, verify_until=NOW + timedelta(hours=3), sign_from=NOW + timedelta(minutes=1))
    assert await kept.keys.agree(NOW, lambda _: later) == [KEY, later]
    assert await kept.keys.agree(KEY.verify_until - timedelta(microseconds=1), lambda _: None) == [KEY, later]
    assert await kept.keys.agree(KEY.verify_until, lambda _: None) == [later]


async def test_sixteen_replicas_agree_on_one_key(kept: Kept) -> None:
    def plan(number: int) -> Callable[[Sequence[StoredSigningKey]], StoredSigningKey | None]:
        return lambda known: None if known else replace(KEY, kid=f"{number:016}")

    agreed = await asyncio.gather(*(kept.keys.agree(NOW, plan(number)) for number in range(16)))
    assert len(await kept.keys.all()) == 1
    assert all(keys == agreed[0] for keys in agreed)


async def test_an_ended_session_stays_ended_for_its_tenant(kept: Kept) -> None:
    assert not await kept.revoked.has("acme", SESSION)
    for _ in range(2):
        await kept.revoked.add("acme", SESSION, NOW, NOW + timedelta(hours=1))
    assert await kept.revoked.has("acme", SESSION)
    assert not await kept.revoked.has("other", SESSION)
    assert not await kept.revoked.has("' OR true --", SESSION)
    assert not await kept.revoked.has("acme", "x" + SESSION[1:])


async def test_what_is_over_is_forgotten_in_parts(kept: Kept) -> None:
    begun = NOW - timedelta(hours=2)
    for number in range(5):
        await kept.revoked.add(f"t{number % 2}", f"{number:016}-{'0' * 26}", begun, begun + timedelta(hours=1))
    await kept.revoked.add("acme", SESSION, NOW, NOW + timedelta(hours=1))
    assert [await kept.revoked.forget(3) for _ in range(3)] == [3, 2, 0]
    assert await kept.revoked.has("acme", SESSION)


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(database: Callable[[str], str]) -> None:
    async with in_postgres(database("ledger")) as kept:
        await kept.revoked.add("acme", SESSION, NOW, NOW + timedelta(hours=1))
        with psycopg.connect(kept.dsn) as connection:
            everything = "SELECT count(*) FROM ledger.revoked_sessions"
            assert connection.execute(everything).fetchone() == (0,)
            connection.execute("SELECT set_config('pagemesh.tenant', 'other', true)")
            assert connection.execute(everything).fetchone() == (0,)
            assert connection.execute("DELETE FROM ledger.revoked_sessions").rowcount == 0
            connection.execute("SELECT set_config('pagemesh.across', 'expiry', true)")
            assert connection.execute(everything).fetchone() == (0,), "its time is not over"
            connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            assert connection.execute(everything).fetchone() == (1,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(
                    "INSERT INTO ledger.revoked_sessions VALUES ('other', %s, now(), now() + interval '1 h')",
                    (SESSION,),
                )


async def test_look_ups_go_through_indexes(database: Callable[[str], str]) -> None:
    from services.ledger.adapters import postgres_sessions

    async with in_postgres(database("ledger")) as kept:
        await kept.revoked.add("acme", SESSION, NOW, NOW + timedelta(hours=1))
        with psycopg.connect(kept.dsn) as connection:
            connection.execute("SET enable_seqscan = off")
            values = {"tenant": "acme", "id": SESSION}
            plan = connection.execute(f"EXPLAIN {postgres_sessions._IS_REVOKED}".encode(), values).fetchall()
            assert "revoked_sessions_pkey" in str(plan)
            connection.execute(WORK_ACROSS, ("expiry",))
            plan = connection.execute(f"EXPLAIN {postgres_sessions._FORGET}".encode(), (1,)).fetchall()
            assert "revoked_sessions_over" in str(plan)
