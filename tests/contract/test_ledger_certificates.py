"""What every CertificateStore promises, held against the ones in memory and in Postgres."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.memory_certificates import MemoryCertificates
from services.ledger.adapters.postgres_certificates import PostgresCertificates
from services.ledger.adapters.postgres_identity import PostgresKeys, PostgresTenants
from services.ledger.domain.client_certificates import CertificateStore, ClientCertificate
from services.ledger.domain.keys import ApiKey
from services.runtime.errors import AlreadyExists, ResourceExhausted
from tests.unit.ledger.samples import NOW, STORES

MINE = ClientCertificate("a" * 64, "acme", "k" * 16, NOW)
THEIRS = ClientCertificate("b" * 64, "other", "l" * 16, NOW)


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[CertificateStore]:
    if request.param == "memory":
        yield MemoryCertificates()
        return
    async with in_postgres(database("ledger")) as opened:
        yield opened


@contextlib.asynccontextmanager
async def in_postgres(dsn: str) -> AsyncIterator[PostgresCertificates]:
    pool = await open_pool(dsn, name="test", max_size=8)
    for certificate in (MINE, THEIRS):
        await PostgresTenants(pool).ensure(certificate.tenant, "x", NOW)
        key = ApiKey(certificate.key_id, certificate.tenant, "robot", frozenset({"usage.read"}), NOW)
        await PostgresKeys(pool).add(key, bytes(32))
    yield PostgresCertificates(pool)
    await pool.close()


async def test_a_certificate_is_kept_found_and_dropped(store: CertificateStore) -> None:
    assert await store.key_of(MINE.fingerprint) is None
    assert await store.add(MINE) == MINE
    assert await store.add(replace(MINE, create_time=NOW.replace(year=2027))) == MINE
    await store.add(THEIRS)
    assert await store.key_of(MINE.fingerprint) == MINE.key_id
    assert await store.get("acme", MINE.fingerprint) == MINE
    assert await store.get("other", MINE.fingerprint) is None
    assert await store.list("acme", "", 10) == [MINE]
    await store.delete("other", MINE.fingerprint)
    assert await store.key_of(MINE.fingerprint) == MINE.key_id
    await store.delete("acme", MINE.fingerprint)
    assert await store.key_of(MINE.fingerprint) is None
    assert await store.key_of(THEIRS.fingerprint) == THEIRS.key_id


async def test_a_certificate_stands_for_one_key_whoever_comes_first(store: CertificateStore) -> None:
    both = [MINE, replace(THEIRS, fingerprint=MINE.fingerprint)]
    results = await asyncio.gather(*(store.add(c) for c in both), return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, Exception)] == [AlreadyExists]
    kept = next(result for result in results if isinstance(result, ClientCertificate))
    assert await store.key_of(MINE.fingerprint) == kept.key_id


async def test_a_key_has_ten(store: CertificateStore) -> None:
    made = [replace(MINE, fingerprint=f"{n:064}") for n in range(10)]
    for certificate in made:
        await store.add(certificate)
    with pytest.raises(ResourceExhausted, match="TOO_MANY_CERTIFICATES"):
        await store.add(MINE)
    assert await store.add(made[3]) == made[3]
    assert await store.list("acme", "", 4) == made[:4]
    assert await store.list("acme", made[3].fingerprint, 100) == made[4:]


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    async with in_postgres(dsn) as store:
        await store.add(MINE)
        with psycopg.connect(dsn) as connection:
            everything = "SELECT count(*) FROM ledger.client_certificates"
            assert connection.execute(everything).fetchone() == (0,)
            connection.execute("SELECT set_config('pagemesh.tenant', 'other', true)")
            assert connection.execute(everything).fetchone() == (0,)
            connection.execute("SELECT set_config('pagemesh.across', 'credentials', true)")
            assert connection.execute(everything).fetchone() == (1,), "whose a certificate is"
            assert connection.execute("DELETE FROM ledger.client_certificates").rowcount == 0


async def test_look_ups_go_through_indexes(database: Callable[[str], str]) -> None:
    from services.ledger.adapters import postgres_certificates

    dsn = database("ledger")
    async with in_postgres(dsn):
        with psycopg.connect(dsn) as connection:
            connection.execute("SET enable_seqscan = off")
            values = {"tenant": "acme", "id": MINE.fingerprint, "after": "", "limit": 5}
            for statement, index in (
                (postgres_certificates._GET, "client_certificates_"),
                (postgres_certificates._LIST, "client_certificates_"),
                (postgres_certificates._KEY_OF, "client_certificates_id_key"),
            ):
                plan = str(connection.execute(f"EXPLAIN {statement}".encode(), values).fetchall())
                assert f"using {index}" in plan, plan
