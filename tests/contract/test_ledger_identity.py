"""What every KeyStore and TenantStore promises, held against the ones in memory and the ones in Postgres."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from services.ledger.domain.keys import ApiKey, StoredKey
from services.runtime.errors import FailedPrecondition
from tests.unit.ledger.samples import NOW, STORES, Stores, open_stores

HASH = bytes(range(32))
KEY = ApiKey("k" * 16, "acme", "robot", frozenset({"usage.read", "keys.admin"}), NOW, NOW + timedelta(days=1))


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Stores]:
    async with open_stores(request.param, database) as opened:
        yield opened


async def test_a_key_is_kept_as_it_was_made(stores: Stores) -> None:
    await stores.keys.add(KEY, HASH)
    assert await stores.keys.find(KEY.key_id) == StoredKey(KEY, HASH, tenant_active=True)
    assert await stores.keys.find("x" * 16) is None


@pytest.mark.parametrize("name", ["'; DROP TABLE ledger.api_keys; --", "\\", "%s", "ключ \U0001f511", "x" * 100])
async def test_a_display_name_is_data(stores: Stores, name: str) -> None:
    key = replace(KEY, display_name=name, expire_time=None)
    await stores.keys.add(key, HASH)
    assert await stores.keys.find(KEY.key_id) == StoredKey(key, HASH, tenant_active=True)


async def test_a_key_needs_its_tenant(stores: Stores) -> None:
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await stores.keys.add(replace(KEY, tenant="nobody"), HASH)


async def test_the_first_revocation_stands(stores: Stores) -> None:
    await stores.keys.add(KEY, HASH)
    ended = replace(KEY, revoke_time=NOW + timedelta(seconds=1))
    assert await stores.keys.revoke("acme", KEY.key_id, NOW + timedelta(seconds=1)) == ended
    assert await stores.keys.revoke("acme", KEY.key_id, NOW + timedelta(seconds=9)) == ended
    found = await stores.keys.find(KEY.key_id)
    assert found is not None
    assert found.key == ended


@pytest.mark.parametrize("tenant", ["other", "nobody", "' OR true --"])
async def test_nobody_revokes_the_key_of_another(stores: Stores, tenant: str) -> None:
    await stores.keys.add(KEY, HASH)
    assert await stores.keys.revoke(tenant, KEY.key_id, NOW) is None
    found = await stores.keys.find(KEY.key_id)
    assert found is not None
    assert found.key.revoke_time is None


async def test_making_a_tenant_again_changes_nothing(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 5)
    await stores.tenants.ensure("acme", "another name", NOW)
    await stores.keys.add(KEY, HASH)


async def test_only_a_tenant_has_a_budget(stores: Stores) -> None:
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await stores.tenants.set_hard_budget("nobody", 5)


async def test_a_switched_off_tenant_is_told_with_its_keys(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    async with open_stores("postgres", lambda _: dsn) as stores:
        await stores.keys.add(KEY, HASH)
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE ledger.tenants SET active = false WHERE id = 'acme'")
        assert await stores.keys.find(KEY.key_id) == StoredKey(KEY, HASH, tenant_active=False)
