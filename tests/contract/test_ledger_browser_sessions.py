"""What every BrowserSessionStore promises, held against the ones in memory and in Postgres."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.memory import MemoryLedger, MemoryTenants
from services.ledger.adapters.memory_browser_sessions import MemoryBrowserSessions
from services.ledger.adapters.postgres_browser_sessions import PostgresBrowserSessions
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_providers import PostgresProviders
from services.ledger.domain.browser_sessions import MOST_OF_ONE_ACTOR, BrowserSession, BrowserSessionStore
from services.ledger.domain.identity_providers import IdentityProvider
from services.runtime.errors import FailedPrecondition
from tests.unit.ledger.samples import NOW, STORES

FUTURE = NOW.replace(year=NOW.year + 200)
SCOPES = frozenset({"usage.read", "keys.admin"})
MINE = BrowserSession("a" * 26, "acme", f"apiKeys/{'k' * 16}", "", SCOPES, NOW, FUTURE, bytes(range(32)))
THEIRS = replace(MINE, session_id="b" * 26, tenant="other")
HERS = replace(MINE, session_id="c" * 26, actor=f"users/{'u' * 16}")


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[BrowserSessionStore]:
    if request.param == "memory":
        ledger = MemoryLedger()
        for tenant in ("acme", "other"):
            await MemoryTenants(ledger).ensure(tenant, tenant, NOW)
        yield MemoryBrowserSessions(ledger, lambda: FUTURE - timedelta(days=1))
        return
    async with in_postgres(database("ledger")) as opened:
        yield opened


@contextlib.asynccontextmanager
async def in_postgres(dsn: str) -> AsyncIterator[PostgresBrowserSessions]:
    pool = await open_pool(dsn, name="test", max_size=4)
    for tenant in ("acme", "other"):
        await PostgresTenants(pool).ensure(tenant, tenant, NOW)
    yield PostgresBrowserSessions(pool)
    await pool.close()


async def test_a_session_is_kept_found_and_ended(store: BrowserSessionStore) -> None:
    for session in (MINE, THEIRS, HERS):
        await store.add(session)
    assert await store.find(MINE.session_id) == await store.get("acme", MINE.session_id) == MINE
    assert await store.find(THEIRS.session_id) == THEIRS
    assert await store.get("acme", THEIRS.session_id) is None
    assert await store.find("' OR true --") is None
    assert await store.list("acme", "", "", 10) == [MINE, HERS]
    assert await store.list("acme", "", MINE.session_id, 10) == [HERS]
    assert await store.list("acme", HERS.actor, "", 10) == [HERS]
    assert await store.list("acme", "", "", 1) == [MINE]
    await store.delete("other", MINE.session_id)
    assert await store.find(MINE.session_id) == MINE
    await store.delete("acme", MINE.session_id)
    await store.delete("acme", MINE.session_id)
    assert await store.find(MINE.session_id) is None
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await store.add(replace(MINE, tenant="nobody"))


async def test_what_is_over_is_not_listed_and_goes(store: BrowserSessionStore) -> None:
    await store.add(MINE)
    for n in range(3):
        await store.add(replace(MINE, session_id=f"{n:026}", expire_time=NOW + timedelta(seconds=n + 1)))
    await store.add(replace(THEIRS, expire_time=NOW + timedelta(seconds=1)))
    assert await store.list("acme", "", "", 10) == [MINE]
    assert [await store.forget(3), await store.forget(3), await store.forget(3)] == [3, 1, 0]
    assert await store.find(MINE.session_id) == MINE


async def test_the_oldest_of_an_actor_goes_first(store: BrowserSessionStore) -> None:
    await store.add(HERS)
    await store.add(THEIRS)
    made = [
        replace(MINE, session_id=f"{99 - n:026}", create_time=NOW + timedelta(seconds=n))
        for n in range(MOST_OF_ONE_ACTOR + 2)
    ]
    for session in made:
        await store.add(session)
    assert await store.list("acme", MINE.actor, "", 100) == sorted(made[2:], key=lambda s: s.session_id)
    assert await store.find(HERS.session_id) == HERS
    assert await store.find(THEIRS.session_id) == THEIRS


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    async with in_postgres(dsn) as store:
        await store.add(MINE)
        with psycopg.connect(dsn) as connection:
            everything = "SELECT count(*) FROM ledger.browser_sessions"
            assert connection.execute(everything).fetchone() == (0,)
            connection.execute("SELECT set_config('pagemesh.tenant', 'other', true)")
            assert connection.execute(everything).fetchone() == (0,)
            connection.execute("SELECT set_config('pagemesh.across', 'expiry', true)")
            assert connection.execute("DELETE FROM ledger.browser_sessions").rowcount == 0, "it has not expired"
            connection.execute("SELECT set_config('pagemesh.across', 'credentials', true)")
            assert connection.execute(everything).fetchone() == (1,), "whose a cookie is"
            assert connection.execute("DELETE FROM ledger.browser_sessions").rowcount == 0


async def test_an_issuer_takes_its_sessions_with_it_and_tells(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    async with in_postgres(dsn) as store:
        providers = PostgresProviders(store._pool)
        provider = IdentityProvider("p" * 16, "acme", "ours", "https://issuer.example.org", "app", NOW)
        await providers.add(provider)
        await store.add(replace(HERS, provider=provider.provider_id))
        await store.add(MINE)
        with psycopg.connect(dsn, autocommit=True) as listener:
            listener.execute("LISTEN ledger_access")
            await providers.delete("acme", provider.provider_id)
            heard = {notice.payload for notice in listener.notifies(timeout=10, stop_after=2)}
        assert heard == {f"browserSessions/{HERS.session_id}", f"identityProviders/{provider.provider_id}"}
        assert await store.list("acme", "", "", 10) == [MINE]
        with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
            await store.add(replace(HERS, provider=provider.provider_id))


async def test_look_ups_go_through_indexes(database: Callable[[str], str]) -> None:
    from services.ledger.adapters import postgres_browser_sessions as statements

    dsn = database("ledger")
    async with in_postgres(dsn):
        with psycopg.connect(dsn) as connection:
            connection.execute("SET enable_seqscan = off")
            connection.execute("SET enable_sort = off")
            values = {"tenant": "acme", "id": MINE.session_id, "after": "", "limit": 5, "actor": "users/x", "most": 20}
            for statement, index in (
                (statements._GET, "browser_sessions_"),
                (statements._FIND, "browser_sessions_id_key"),
                (statements._LIST, "browser_sessions_"),
                (statements._LIST_OF_ACTOR, "browser_sessions_by_actor"),
                (statements._END_OLDEST, "browser_sessions_by_actor"),
                (statements._FORGET.replace("%s", "5"), "browser_sessions_over"),
            ):
                plan = str(connection.execute(f"EXPLAIN {statement}".encode(), values).fetchall())
                assert f"using {index}" in plan or f"on {index}" in plan, plan
