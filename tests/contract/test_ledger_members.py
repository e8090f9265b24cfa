"""What every TenantDirectory, ProjectStore, UserStore and QuotaStore promises; and the policies of their tables."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from services.database.pool import open_pool
from services.ledger.adapters import postgres_identity, postgres_members, postgres_tenants
from services.ledger.adapters.postgres_identity import PostgresKeys
from services.ledger.adapters.postgres_members import LOCK_USERS
from services.ledger.domain.directory import Standing, Standings
from services.ledger.domain.keys import ApiKey
from services.ledger.domain.members import Changes, Project, Tenant, User
from services.ledger.domain.plans import UNLIMITED, Kind, Plan
from services.ledger.domain.roles import Role
from services.ledger.domain.values import Caller
from services.runtime.errors import AlreadyExists, FailedPrecondition, NotFound
from tests.unit.ledger.samples import NOW, STORES, Stores, open_stores

LATER = NOW + timedelta(hours=1)
HOSTILE = ["'; DROP TABLE ledger.users; --", '" OR 1=1', "\\", "%s %(id)s {key}", "ключ \U0001f511 ü", "x" * 100]
HOSTILE_IDS = ["quote", "double quote", "backslash", "placeholders", "unicode", "longest"]


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Stores]:
    async with open_stores(request.param, database) as opened:
        yield opened


def a_tenant(tenant_id: str, *, domain: str = "", plan: str = "free") -> Tenant:
    return Tenant(tenant_id, "Fresh Inc.", domain, True, plan, NOW, NOW)


def a_project(project_id: str = "red", tenant: str = "acme") -> Project:
    return Project(tenant, project_id, "Red", True, NOW, NOW)


def a_user(number: int = 0, *, tenant: str = "acme", role: Role = Role.ADMIN) -> User:
    return User(tenant, f"{number:016d}", f"u{number}@acme.example", "Ada", role, True, NOW, NOW)


async def test_a_tenant_is_kept_as_it_was_made(stores: Stores) -> None:
    tenant = a_tenant("fresh", domain="fresh.example")
    await stores.directory.add(tenant)
    assert await stores.directory.find("fresh") == tenant
    assert await stores.directory.find("nobody") is None
    assert await stores.directory.find("' OR true --") is None
    assert (await stores.directory.find("acme")) == Tenant("acme", "acme", "", True, "unlimited", NOW, NOW)


async def test_ids_and_domains_of_tenants_are_theirs_alone(stores: Stores) -> None:
    await stores.directory.add(a_tenant("first", domain="fresh.example"))
    with pytest.raises(AlreadyExists, match="TENANT_EXISTS"):
        await stores.directory.add(a_tenant("first"))
    with pytest.raises(AlreadyExists, match="DOMAIN_TAKEN"):
        await stores.directory.add(a_tenant("second", domain="fresh.example"))
    assert await stores.directory.find("second") is None
    with pytest.raises(AlreadyExists, match="DOMAIN_TAKEN"):
        await stores.directory.update("acme", Changes(domain="fresh.example"), LATER)
    with pytest.raises(NotFound, match="PLAN_NOT_FOUND"):
        await stores.directory.add(a_tenant("third", plan="golden"))
    with pytest.raises(NotFound, match="PLAN_NOT_FOUND"):
        await stores.directory.update("acme", Changes(plan="golden"), LATER)


async def test_two_that_want_one_domain_race_and_one_gets_it(stores: Stores) -> None:
    made = await asyncio.gather(
        *(stores.directory.add(a_tenant(f"racer-{n}", domain="fresh.example")) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(one is None for one in made) == 1
    assert all(isinstance(one, AlreadyExists) and one.reason == "DOMAIN_TAKEN" for one in made if one is not None)


async def test_only_what_is_named_changes_of_a_tenant(stores: Stores) -> None:
    await stores.directory.add(a_tenant("fresh", domain="fresh.example"))
    wanted = a_tenant("fresh", domain="fresh.example")
    for changes in (
        Changes(display_name="Other"),
        Changes(domain="other.example"),
        Changes(active=False),
        Changes(plan="standard"),
        Changes(domain=""),
    ):
        named = {
            name: value
            for name in ("display_name", "domain", "active", "plan")
            if (value := getattr(changes, name)) is not None
        }
        wanted = replace(wanted, update_time=LATER, **named)
        assert await stores.directory.update("fresh", changes, LATER) == wanted
        assert await stores.directory.find("fresh") == wanted
    assert await stores.directory.update("nobody", Changes(active=False), LATER) is None


async def test_tenants_are_listed_by_id_in_parts(stores: Stores) -> None:
    for tenant_id in ("b", "d", "c-1"):
        await stores.directory.add(a_tenant(tenant_id))
    first = await stores.directory.list("", 3)
    assert [tenant.tenant_id for tenant in first] == ["acme", "b", "c-1"]
    assert [tenant.tenant_id for tenant in await stores.directory.list("c-1", 9)] == ["d", "other"]


async def test_the_plans(stores: Stores) -> None:
    assert await stores.directory.plans() == [
        Plan("free", 10, 1000, 52_428_800, 1),
        Plan("standard", 600, 60_000, 52_428_800, 10),
        UNLIMITED,
    ]


@pytest.mark.parametrize("text", HOSTILE, ids=HOSTILE_IDS)
async def test_names_are_data(stores: Stores, text: str) -> None:
    await stores.projects.add(replace(a_project(), display_name=text))
    await stores.users.add(replace(a_user(), display_name=text))
    await stores.directory.update("acme", Changes(display_name=text), NOW)
    project = await stores.projects.update("acme", "red", Changes(display_name=text), NOW)
    user = await stores.users.find("acme", a_user().user_id)
    tenant = await stores.directory.find("acme")
    assert project is not None
    assert user is not None
    assert tenant is not None
    assert (project.display_name, user.display_name, tenant.display_name) == (text, text, text)
    assert await stores.projects.find("acme", text) is None
    assert await stores.users.with_email("acme", text) is None
    assert await stores.users.update("acme", text, Changes(active=False), NOW) is None


async def test_projects(stores: Stores) -> None:
    for project_id in ("b", "a", "c"):
        await stores.projects.add(a_project(project_id))
    await stores.projects.add(a_project("a", tenant="other"))
    with pytest.raises(AlreadyExists, match="PROJECT_EXISTS"):
        await stores.projects.add(a_project("a"))
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await stores.projects.add(a_project("a", tenant="nobody"))
    assert [p.project_id for p in await stores.projects.list("acme", "", 2)] == ["a", "b"]
    assert [p.project_id for p in await stores.projects.list("acme", "b", 2)] == ["c"]
    off = await stores.projects.update("acme", "a", Changes(active=False), LATER)
    assert off == replace(a_project("a"), active=False, update_time=LATER)
    assert await stores.projects.find("other", "a") == a_project("a", tenant="other")
    assert await stores.projects.update("other", "b", Changes(active=False), LATER) is None


async def test_users(stores: Stores) -> None:
    for number in (2, 0, 1):
        await stores.users.add(a_user(number))
    await stores.users.add(a_user(0, tenant="other"))
    with pytest.raises(AlreadyExists, match="USER_EXISTS"):
        await stores.users.add(replace(a_user(0), user_id="z" * 16))
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await stores.users.add(a_user(0, tenant="nobody"))
    assert [u.email for u in await stores.users.list("acme", "", 2)] == ["u0@acme.example", "u1@acme.example"]
    assert [u.email for u in await stores.users.list("acme", "u1@acme.example", 2)] == ["u2@acme.example"]
    assert await stores.users.with_email("acme", "u1@acme.example") == a_user(1)
    changed = await stores.users.update("acme", a_user(1).user_id, Changes(role=Role.AUDITOR), LATER)
    assert changed == replace(a_user(1), role=Role.AUDITOR, update_time=LATER)
    assert await stores.users.find("other", a_user(1).user_id) is None
    assert await stores.users.update("other", a_user(2).user_id, Changes(active=False), LATER) is None


@pytest.mark.parametrize("changes", [Changes(active=False), Changes(role=Role.MEMBER)], ids=["off", "demoted"])
async def test_the_last_admin_stays(stores: Stores, changes: Changes) -> None:
    admin, member = a_user(0), a_user(1, role=Role.MEMBER)
    await stores.users.add(admin)
    await stores.users.add(member)
    await stores.users.add(a_user(2, tenant="other"))
    with pytest.raises(FailedPrecondition, match="LAST_ADMIN"):
        await stores.users.update("acme", admin.user_id, changes, LATER)
    assert await stores.users.find("acme", admin.user_id) == admin
    assert await stores.users.update("acme", admin.user_id, Changes(display_name="Eve"), LATER) is not None
    await stores.users.update("acme", member.user_id, Changes(role=Role.ADMIN), LATER)
    assert await stores.users.update("acme", admin.user_id, changes, LATER) is not None


async def test_admins_who_demote_each_other_at_the_same_time_leave_one(stores: Stores) -> None:
    admins = [a_user(number) for number in range(6)]
    for admin in admins:
        await stores.users.add(admin)
    answers = await asyncio.gather(
        *(stores.users.update("acme", admin.user_id, Changes(role=Role.MEMBER), LATER) for admin in admins),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, FailedPrecondition) for answer in answers) == 1
    left = [user for user in await stores.users.list("acme", "", 10) if user.role is Role.ADMIN]
    assert len(left) == 1


async def test_an_admin_waits_for_the_other_who_is_being_demoted(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    first, second = a_user(0), a_user(1)
    async with open_stores("postgres", lambda _: dsn) as stores:
        await stores.users.add(first)
        await stores.users.add(second)
        with psycopg.connect(dsn) as other, psycopg.connect(dsn, autocommit=True) as watcher:
            other.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            other.execute(LOCK_USERS, ("acme",))
            other.execute("UPDATE ledger.users SET role = 'member' WHERE id = %s", (first.user_id,))
            demotion = asyncio.create_task(
                stores.users.update("acme", second.user_id, Changes(role=Role.MEMBER), LATER)
            )
            async with asyncio.timeout(60):
                waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                while not demotion.done() and watcher.execute(waiting).fetchone() is None:
                    await asyncio.sleep(0.02)
            other.commit()
        with pytest.raises(FailedPrecondition, match="LAST_ADMIN"):
            await demotion


async def test_a_user_without_a_key_has_a_standing_in_the_own_tenant_alone(stores: Stores) -> None:
    await stores.users.add(a_user(role=Role.AUDITOR))
    standings = Standings(keys=stores.keys, users=stores.users, tenants=stores.directory)
    name = f"users/{a_user().user_id}"
    assert await standings.of(Caller("acme", name)) == Standing(name, Role.AUDITOR, "plans/unlimited")
    for caller in (Caller("other", name), Caller("acme", "users/" + "z" * 16), Caller("acme", f"apiKeys/{name[6:]}")):
        assert await standings.of(caller) == Standing(plan="plans/unlimited"), caller


async def test_a_quota_is_given_out_once(stores: Stores) -> None:
    leases = await asyncio.gather(*(stores.quotas.lease("acme", Kind.CALLS, quota=100, wanted=7) for _ in range(30)))
    assert sum(lease.granted for lease in leases) == 100
    assert all(0 <= lease.granted <= 7 for lease in leases)
    assert all(0 < lease.lasts_s <= 3600 for lease in leases)
    assert (await stores.quotas.lease("acme", Kind.UPLOADS, quota=10, wanted=20)).granted == 10
    assert (await stores.quotas.lease("other", Kind.CALLS, quota=1, wanted=1)).granted == 1
    assert (await stores.quotas.lease("acme", Kind.CALLS, quota=105, wanted=7)).granted == 5
    assert (await stores.quotas.lease("acme", Kind.CALLS, quota=50, wanted=7)).granted == 0
    assert (await stores.quotas.lease("other", Kind.UPLOADS, quota=0, wanted=1)).granted == 0


async def test_what_was_leased_and_not_used_goes_back(stores: Stores) -> None:
    assert (await stores.quotas.lease("acme", Kind.CALLS, quota=5000, wanted=1000)).granted == 1000
    smaller = {"quota": 100, "wanted": 20}
    assert (await stores.quotas.lease("acme", Kind.CALLS, **smaller)).granted == 0
    assert (await stores.quotas.lease("acme", Kind.CALLS, **smaller, returned=910)).granted == 10
    assert (await stores.quotas.lease("acme", Kind.CALLS, **smaller)).granted == 0
    assert (await stores.quotas.lease("acme", Kind.CALLS, **smaller, returned=5000)).granted == 20, "never below zero"
    assert (await stores.quotas.lease("acme", Kind.CALLS, **smaller, returned=20)).granted == 20
    assert (await stores.quotas.lease("other", Kind.CALLS, **smaller, returned=20)).granted == 20
    leases = await asyncio.gather(*(stores.quotas.lease("other", Kind.CALLS, **smaller) for _ in range(9)))
    assert sum(lease.granted for lease in leases) == 80


async def test_an_hour_that_is_over_counts_for_nothing(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    async with open_stores("postgres", lambda _: dsn) as stores:
        assert (await stores.quotas.lease("acme", Kind.CALLS, quota=5, wanted=5)).granted == 5
        assert (await stores.quotas.lease("acme", Kind.CALLS, quota=5, wanted=5)).granted == 0
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
            connection.execute("UPDATE ledger.quota_use SET hour = hour - interval '1 hour'")
        assert (await stores.quotas.lease("acme", Kind.CALLS, quota=5, wanted=3)).granted == 3
        assert (await stores.quotas.lease("acme", Kind.CALLS, quota=5, wanted=3)).granted == 2


TABLES = ("tenants", "projects", "users", "api_keys", "quota_use")


async def fill(stores: Stores) -> None:
    for tenant in ("acme", "other"):
        await stores.projects.add(a_project(tenant=tenant))
        await stores.users.add(a_user(tenant=tenant))
        await stores.keys.add(ApiKey(tenant[0] * 16, tenant, "robot", frozenset({"usage.read"}), NOW), bytes(32))
        await stores.quotas.lease(tenant, Kind.CALLS, quota=5, wanted=1)


@pytest.mark.parametrize("table", TABLES)
async def test_a_forgotten_predicate_shows_nothing_of_another_tenant(
    database: Callable[[str], str], table: str
) -> None:
    dsn = database("ledger")
    async with open_stores("postgres", lambda _: dsn) as stores:
        await fill(stores)
    name, column = sql.Identifier("ledger", table), sql.Identifier("id" if table == "tenants" else "tenant")
    with psycopg.connect(dsn) as connection:
        everything = sql.SQL("SELECT {} FROM {}").format(column, name)
        assert connection.execute(everything).fetchall() == []
        for nobody in ("", "nobody"):
            connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (nobody,))
            assert connection.execute(everything).fetchall() == []
        connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        assert connection.execute(everything).fetchall() == [("acme",)]
        theirs = sql.SQL("UPDATE {} SET {} = {} WHERE {} = 'other'").format(name, column, column, column)
        assert connection.execute(theirs).rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL("UPDATE {} SET {} = 'other'").format(name, column))


async def test_a_presented_key_shows_itself_and_the_operator_sees_tenants_alone(
    database: Callable[[str], str],
) -> None:
    dsn = database("ledger")
    async with open_stores("postgres", lambda _: dsn) as stores:
        await fill(stores)
    seen = {}
    for setting, value in (("pagemesh.key", "a" * 16), ("pagemesh.across", "operator")):
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT set_config(%s, %s, true)", (setting, value))
            for table in TABLES:
                rows = connection.execute(
                    sql.SQL("SELECT * FROM {}").format(sql.Identifier("ledger", table))
                ).fetchall()
                seen[setting, table] = len(rows)
            assert connection.execute("UPDATE ledger.tenants SET active = false").rowcount == 0
            assert connection.execute("UPDATE ledger.api_keys SET revoke_time = now()").rowcount == 0
            assert connection.execute("DELETE FROM ledger.api_keys").rowcount == 0
    assert {place: count for place, count in seen.items() if count} == {
        ("pagemesh.key", "api_keys"): 1,
        ("pagemesh.across", "tenants"): 2,
    }


async def test_settings_end_with_their_transaction(database: Callable[[str], str]) -> None:
    """The next one on the same connection acts for nobody until it says for whom."""
    pool = await open_pool(database("ledger"), name="test", max_size=1)
    keys = PostgresKeys(pool)
    assert await keys.find("a" * 16) is None
    assert await keys.list("acme", None, 1) == []
    async with pool.connection() as connection:
        for setting in ("pagemesh.tenant", "pagemesh.key", "pagemesh.across"):
            cursor = await connection.execute("SELECT current_setting(%s, true)", (setting,))
            assert await cursor.fetchone() in ((None,), ("",))
    await pool.close()


LISTS = {
    "keys": (postgres_identity.LIST_KEYS, "api_keys_by_time"),
    "projects": (postgres_members.LIST_PROJECTS, "projects_pkey"),
    "users": (postgres_members.LIST_USERS, "users_tenant_email_key"),
    "tenants": (postgres_tenants.LIST_TENANTS, "tenants_pkey"),
}


@pytest.mark.parametrize("kind", LISTS)
async def test_every_list_has_its_index(database: Callable[[str], str], kind: str) -> None:
    """Also behind the policies; and nothing is sorted, however long the list is."""
    statement, index = LISTS[kind]
    text = statement.decode() if isinstance(statement, bytes) else statement
    values = {"tenant": "acme", "after": "b", "after_time": NOW, "after_id": "b", "limit": 51}
    with psycopg.connect(database("ledger")) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', 'acme', true)")
        connection.execute("SELECT set_config('pagemesh.across', 'operator', true)")
        for way in ("seqscan", "bitmapscan", "sort"):  # what a small table makes cheap
            connection.execute(f"SET LOCAL enable_{way} = off".encode())
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {text}".encode(), values))
    assert index in plan
    assert "Index Cond" in plan
    assert "Sort" not in plan
