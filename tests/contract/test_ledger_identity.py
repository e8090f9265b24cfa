"""What every KeyStore and TenantStore promises, held against the ones in memory and the ones in Postgres."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from services.ledger.domain.keys import ApiKey, KeyPlace, StoredKey
from services.ledger.domain.members import Changes, Project, User
from services.ledger.domain.plans import Plan
from services.ledger.domain.roles import Role
from services.runtime.errors import FailedPrecondition, NotFound
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


@pytest.mark.parametrize("what", ["tenant", "project", "user"])
async def test_what_is_switched_off_is_told_with_its_keys(stores: Stores, what: str) -> None:
    project = Project("acme", "red", "Red", True, NOW, NOW)
    user = User("acme", "u" * 16, "ada@acme.example", "Ada", Role.MEMBER, True, NOW, NOW)
    await stores.projects.add(project)
    await stores.users.add(user)
    key = replace(KEY, project="red", user="u" * 16)
    await stores.keys.add(key, HASH)
    wanted = StoredKey(key, HASH, tenant_active=True, role=Role.MEMBER)
    assert await stores.keys.find(key.key_id) == wanted
    off = Changes(active=False)
    if what == "tenant":
        await stores.directory.update("acme", off, NOW)
        wanted = replace(wanted, tenant_active=False)
    elif what == "project":
        await stores.projects.update("acme", "red", off, NOW)
        wanted = replace(wanted, project_active=False)
    else:
        await stores.users.update("acme", "u" * 16, off, NOW)
        wanted = replace(wanted, user_active=False)
    assert await stores.keys.find(key.key_id) == wanted


async def test_a_key_is_told_with_its_tenants_plan(stores: Stores) -> None:
    await stores.keys.add(KEY, HASH)
    await stores.directory.update("acme", Changes(plan="free"), NOW)
    found = await stores.keys.find(KEY.key_id)
    assert found is not None
    assert found.plan == Plan("free", 10, 1000, 52_428_800, 1)


async def test_a_key_needs_its_project_and_its_user(stores: Stores) -> None:
    await stores.projects.add(Project("other", "red", "Red", True, NOW, NOW))
    await stores.users.add(User("other", "u" * 16, "ada@acme.example", "Ada", Role.ADMIN, True, NOW, NOW))
    with pytest.raises(NotFound, match="PROJECT_NOT_FOUND"):
        await stores.keys.add(replace(KEY, project="red"), HASH)
    with pytest.raises(NotFound, match="USER_NOT_FOUND"):
        await stores.keys.add(replace(KEY, user="u" * 16), HASH)
    assert await stores.keys.find(KEY.key_id) is None


async def test_both_secrets_of_a_rotated_key_are_kept_and_no_third(stores: Stores) -> None:
    await stores.keys.add(KEY, HASH)
    for hours, new in ((1, b"b" * 32), (2, b"c" * 32)):
        now = NOW + timedelta(hours=hours)
        wanted = replace(KEY, rotate_time=now, previous_expire_time=now + timedelta(hours=24))
        assert await stores.keys.rotate(wanted, new) == wanted
        assert await stores.keys.find(KEY.key_id) == StoredKey(
            wanted, new, tenant_active=True, previous_hash=HASH if hours == 1 else b"b" * 32
        )
    assert await stores.keys.rotate(replace(wanted, tenant="other"), HASH) is None
    assert await stores.keys.revoke("acme", KEY.key_id, NOW) is not None
    assert await stores.keys.rotate(wanted, HASH) is None


async def test_keys_are_listed_newest_first_in_parts(stores: Stores) -> None:
    keys = [replace(KEY, key_id=f"{n:016d}", create_time=NOW + timedelta(seconds=n // 2)) for n in range(6)]
    for key in keys:
        await stores.keys.add(replace(key, expire_time=None), HASH)
    await stores.keys.add(replace(KEY, tenant="other", key_id="o" * 16), HASH)
    first = await stores.keys.list("acme", None, 4)
    assert [key.key_id for key in first] == [f"{n:016d}" for n in (5, 4, 3, 2)]
    rest = await stores.keys.list("acme", KeyPlace(first[-1].create_time, first[-1].key_id), 4)
    assert [key.key_id for key in rest] == [f"{n:016d}" for n in (1, 0)]
