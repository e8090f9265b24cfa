"""What every ProviderStore, StandingUserStore and KeySource promises, in memory and for real."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.memory import MemoryLedger, MemoryTenants
from services.ledger.adapters.memory_providers import MemoryKeySource, MemoryProviders, MemoryStandingUsers
from services.ledger.adapters.oidc_discovery import OidcDiscovery
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_providers import PostgresProviders, PostgresStandingUsers
from services.ledger.domain.identity_providers import IdentityProvider, ProviderStore, StandingUser, StandingUserStore
from services.ledger.domain.issuer_keys import KeySource, read_keys
from services.ledger.domain.roles import Role
from services.runtime.errors import AlreadyExists, FailedPrecondition, ResourceExhausted, Unavailable
from tests.fakes.oidc_issuer import Issuer, running_issuer
from tests.unit.ledger.samples import NOW, STORES

PROVIDER = IdentityProvider("p" * 16, "acme", "ours '; --", "https://issuer.example.org", "app", NOW)
ANN = StandingUser("u" * 16, Role.MEMBER, True, True)


@dataclass
class Kept:
    providers: ProviderStore
    users: StandingUserStore
    dsn: str = ""


@pytest.fixture(params=STORES)
async def kept(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Kept]:
    if request.param == "memory":
        ledger, users = MemoryLedger(), MemoryStandingUsers()
        for tenant in ("acme", "other"):
            await MemoryTenants(ledger).ensure(tenant, tenant, NOW)
        users.users["acme", "ann@example.org"] = ANN
        yield Kept(MemoryProviders(ledger), users)
        return
    async with in_postgres(database("ledger")) as opened:
        yield opened


@contextlib.asynccontextmanager
async def in_postgres(dsn: str) -> AsyncIterator[Kept]:
    pool = await open_pool(dsn, name="test", max_size=4)
    for tenant in ("acme", "other"):
        await PostgresTenants(pool).ensure(tenant, tenant, NOW)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        connection.execute(
            "INSERT INTO ledger.users (tenant, id, email, display_name, role, create_time, update_time)"
            " VALUES ('acme', %s, 'ann@example.org', 'Ann', 'member', now(), now())",
            (ANN.user_id,),
        )
    yield Kept(PostgresProviders(pool), PostgresStandingUsers(pool), dsn)
    await pool.close()


async def test_a_provider_is_kept_found_and_dropped(kept: Kept) -> None:
    await kept.providers.add(PROVIDER)
    assert await kept.providers.find(PROVIDER.issuer, ["x", "app"]) == [PROVIDER]
    for issuer, audiences in ((PROVIDER.issuer, ["x"]), ("https://x", ["app"]), (PROVIDER.issuer, [])):
        assert await kept.providers.find(issuer, audiences) == []
    assert await kept.providers.list("acme", "", 10) == [PROVIDER]
    assert await kept.providers.list("other", "", 10) == []
    assert not await kept.providers.delete("other", PROVIDER.provider_id)
    assert await kept.providers.delete("acme", PROVIDER.provider_id)
    assert not await kept.providers.delete("acme", PROVIDER.provider_id)
    assert await kept.providers.find(PROVIDER.issuer, ["app"]) == []


async def test_issuer_and_audience_are_one_providers_whoever_asks(kept: Kept) -> None:
    await kept.providers.add(PROVIDER)
    for tenant in ("acme", "other"):
        with pytest.raises(AlreadyExists, match="ISSUER_IN_USE"):
            await kept.providers.add(replace(PROVIDER, provider_id="q" * 16, tenant=tenant))
    await kept.providers.add(replace(PROVIDER, provider_id="q" * 16, tenant="other", audience="theirs"))
    found = await kept.providers.find(PROVIDER.issuer, ["app", "theirs"])
    assert {provider.tenant for provider in found} == {"acme", "other"}


async def test_a_provider_needs_its_tenant_and_has_nine_beside_it(kept: Kept) -> None:
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await kept.providers.add(replace(PROVIDER, tenant="nobody"))
    made = [replace(PROVIDER, provider_id=f"{n:016}", audience=f"a{n}") for n in range(10)]
    for provider in made:
        await kept.providers.add(provider)
    with pytest.raises(ResourceExhausted, match="TOO_MANY_ISSUERS"):
        await kept.providers.add(PROVIDER)
    assert await kept.providers.list("acme", "", 4) == made[:4]
    assert await kept.providers.list("acme", made[3].provider_id, 100) == made[4:]
    assert len(await kept.providers.find(PROVIDER.issuer, [f"a{n}" for n in range(10)])) == 2


async def test_a_user_is_found_by_the_address_in_the_own_tenant(kept: Kept) -> None:
    assert await kept.users.by_email("acme", "ann@example.org") == await kept.users.by_id("acme", ANN.user_id) == ANN
    assert await kept.users.by_id("other", ANN.user_id) is None
    assert await kept.users.by_id("acme", "ann@example.org") is None
    for tenant, email in (("other", "ann@example.org"), ("acme", "bob@example.org"), ("acme", "' OR true --")):
        assert await kept.users.by_email(tenant, email) is None


async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(database: Callable[[str], str]) -> None:
    async with in_postgres(database("ledger")) as kept:
        await kept.providers.add(PROVIDER)
        with psycopg.connect(kept.dsn) as connection:
            everything = "SELECT count(*) FROM ledger.identity_providers"
            assert connection.execute(everything).fetchone() == (0,)
            connection.execute("SELECT set_config('pagemesh.tenant', 'other', true)")
            assert connection.execute(everything).fetchone() == (0,)
            connection.execute("SELECT set_config('pagemesh.across', 'credentials', true)")
            assert connection.execute(everything).fetchone() == (1,), "whose a token is"
            assert connection.execute("DELETE FROM ledger.identity_providers").rowcount == 0
            assert connection.execute("UPDATE ledger.identity_providers SET audience = 'x'").rowcount == 0


async def test_look_ups_go_through_indexes(database: Callable[[str], str]) -> None:
    from services.ledger.adapters import postgres_providers

    async with in_postgres(database("ledger")) as kept:
        with psycopg.connect(kept.dsn) as connection:
            connection.execute("SET enable_seqscan = off")
            values = {"tenant": "acme", "after": "", "limit": 5, "issuer": "i", "audiences": ["a"], "value": "e"}
            for statement, index in (
                (postgres_providers._LIST, "identity_providers_pkey"),
                (postgres_providers._FIND, "identity_providers_issuer_audience_key"),
                (postgres_providers._USER_BY_EMAIL, "users_tenant_email_key"),
                (postgres_providers._USER_BY_ID, "users_"),
            ):
                plan = connection.execute(f"EXPLAIN {statement}".encode(), values).fetchall()
                assert index in str(plan)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Issuer, Path]]:
    with running_issuer(tmp_path_factory.mktemp("issuer")) as running:
        yield running


@pytest.mark.parametrize("kind", ["memory", "https"])
async def test_the_keys_of_an_issuer_are_those_that_it_signs_with(kind: str, issuer: tuple[Issuer, Path]) -> None:
    server, ca_file = issuer
    signer = server.signer
    source: KeySource
    if kind == "memory":
        source = memory = MemoryKeySource()
        memory.published[signer.issuer] = signer.published()
    else:
        source = OidcDiscovery(private_addresses=True, ca_file=ca_file)
    assert read_keys(await source.fetch(signer.issuer)).keys() == {signer.kid}
    with pytest.raises(Unavailable, match="ISSUER_UNREACHABLE"):
        await source.fetch("https://localhost:1")


@pytest.mark.parametrize(
    ("path", "answer", "told"),
    [
        ("/.well-known/openid-configuration", (404, {}, b""), "answers 404"),
        ("/.well-known/openid-configuration", (302, {"location": "https://localhost/x"}, b""), "answers 302"),
        ("/.well-known/openid-configuration", (200, {}, b"not json"), "no JSON"),
        ("/.well-known/openid-configuration", (200, {}, b"[" * 100_000), "no JSON"),
        ("/.well-known/openid-configuration", (200, {}, b"[]"), "no JSON object"),
        ("/.well-known/openid-configuration", (200, {}, b'{"issuer": "https://else"}'), "another issuer"),
        ("/keys", (200, {}, b"{}"), "key set is none"),
        ("/keys", (200, {}, b'{"keys": [1]}'), "key set is none"),
        ("/keys", (200, {}, b" " * 300_000), "more than"),
        ("/keys", (200, {"content-length": "900000"}, b" " * 10), "cannot be reached|in time"),
        ("/keys", (200, {"content-encoding": "gzip"}, b"\x1f\x8b\x08\x00"), "no JSON"),
        ("/keys", (500, {}, b""), "answers 500"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_issuer_that_answers_otherwise_has_no_keys(
    issuer: tuple[Issuer, Path], path: str, answer: tuple[int, dict[str, str], bytes], told: str
) -> None:
    server, ca_file = issuer
    server.answers[path] = answer
    try:
        with pytest.raises(Unavailable, match=told):
            await OidcDiscovery(private_addresses=True, ca_file=ca_file).fetch(server.url)
    finally:
        server.answers.clear()


@pytest.mark.parametrize("uri", ["http://localhost/keys", "file:///etc/passwd", "", 1, "https://", "//localhost/keys"])
async def test_keys_are_read_over_https_alone(issuer: tuple[Issuer, Path], uri: object) -> None:
    import json

    server, ca_file = issuer
    document = json.dumps({"issuer": server.url, "jwks_uri": uri}).encode()
    server.answers["/.well-known/openid-configuration"] = (200, {}, document)
    try:
        with pytest.raises(Unavailable, match="ISSUER_UNREACHABLE"):
            await OidcDiscovery(private_addresses=True, ca_file=ca_file).fetch(server.url)
    finally:
        server.answers.clear()


async def test_private_networks_are_not_reached_unless_it_is_allowed(issuer: tuple[Issuer, Path]) -> None:
    server, ca_file = issuer
    server.asked.clear()
    port = server.server_address[1]
    source = OidcDiscovery(private_addresses=False, ca_file=ca_file)
    for host in ("localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "0.0.0.0"):
        with pytest.raises(Unavailable, match="private network"):
            await source.fetch(f"https://{host}:{port}")
    for host in ("..", "a" * 64 + ".example.org"):
        with pytest.raises(Unavailable, match="its host is no name"):
            await source.fetch(f"https://{host}")
    assert server.asked == []


async def test_a_certificate_has_to_be_trusted(issuer: tuple[Issuer, Path]) -> None:
    server, _ = issuer
    with pytest.raises(Unavailable, match="ISSUER_UNREACHABLE"):
        await OidcDiscovery(private_addresses=True).fetch(server.url)
