"""Rotation, keys of users and projects, and that nothing that is handed out is more than its giver has."""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.domain.checks import check_name
from services.ledger.domain.directory import Users, domain_of, email_of
from services.ledger.domain.identity import Authenticator, Denial, Principal
from services.ledger.domain.key_cache import KeyCache
from services.ledger.domain.key_ring import DEFAULT_OVERLAP, KeyRing
from services.ledger.domain.members import Changes, Project, User
from services.ledger.domain.roles import ROLES, Role
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from tests.unit.ledger.samples import HASHER, NOW, FixedClock, Stores, a_key_ring, open_stores

SCOPES = frozenset(ROLES)
ADMIN = Caller("acme", "apiKeys/admin", SCOPES)
READ = frozenset({"usage.read"})
ADA = "a" * 16


@dataclass
class Gate:
    ring: KeyRing
    stores: Stores
    clock: FixedClock
    cache: KeyCache
    authenticator: Authenticator

    async def who(self, credential: str) -> Principal | Denial:
        return await self.authenticator.authenticate(credential)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async with open_stores("memory", lambda _: "") as stores:
        clock = FixedClock()
        cache = KeyCache(max_keys=3, ttl_s=30, monotonic_s=lambda: 0.0)
        cache.heard(0.0)
        authenticator = Authenticator(
            keys=stores.keys, hasher=HASHER, cache=cache, clock=clock, monotonic_s=lambda: 0.0
        )
        await stores.projects.add(Project("acme", "red", "Red", True, NOW, NOW))
        await stores.users.add(User("acme", ADA, "ada@acme.example", "Ada", Role.MEMBER, True, NOW, NOW))
        yield Gate(a_key_ring(stores, clock, scopes=SCOPES), stores, clock, cache, authenticator)


async def test_both_secrets_work_for_the_overlap_and_the_new_one_after_it(gate: Gate) -> None:
    key, old = await gate.ring.create(ADMIN, "robot", READ, None)
    assert isinstance(await gate.who(old), Principal)
    rotated, new = await gate.ring.rotate(ADMIN, key.key_id, DEFAULT_OVERLAP)
    assert rotated == replace(key, rotate_time=NOW, previous_expire_time=NOW + timedelta(hours=24))
    gate.cache.drop_key(key.key_id)  # as the notice of the change does
    for _ in range(2):  # the second time out of the cache
        assert await gate.who(old) == await gate.who(new) != Denial.UNKNOWN
    gate.clock.now += timedelta(hours=24)
    assert await gate.who(old) is Denial.EXPIRED
    assert isinstance(await gate.who(new), Principal)
    gate.cache.clear()
    assert await gate.who(old) is Denial.EXPIRED
    assert isinstance(await gate.who(new), Principal)


async def test_a_second_rotation_ends_what_the_first_left_over(gate: Gate) -> None:
    key, first = await gate.ring.create(ADMIN, "robot", READ, None)
    _, second = await gate.ring.rotate(ADMIN, key.key_id, DEFAULT_OVERLAP)
    _, third = await gate.ring.rotate(ADMIN, key.key_id, DEFAULT_OVERLAP)
    assert await gate.who(first) is Denial.UNKNOWN
    assert isinstance(await gate.who(second), Principal)
    assert isinstance(await gate.who(third), Principal)


async def test_no_overlap_ends_the_old_secret_at_once(gate: Gate) -> None:
    key, old = await gate.ring.create(ADMIN, "robot", READ, None)
    _, new = await gate.ring.rotate(ADMIN, key.key_id, timedelta())
    assert await gate.who(old) is Denial.EXPIRED
    assert isinstance(await gate.who(new), Principal)


async def test_rotation_outlives_nothing(gate: Gate) -> None:
    soon = NOW + timedelta(hours=1)
    key, old = await gate.ring.create(ADMIN, "robot", READ, soon)
    rotated, new = await gate.ring.rotate(ADMIN, key.key_id, DEFAULT_OVERLAP)
    assert rotated.expire_time == soon
    gate.clock.now = soon
    assert await gate.who(old) is Denial.EXPIRED
    assert await gate.who(new) is Denial.EXPIRED
    with pytest.raises(FailedPrecondition, match="KEY_ENDED"):
        await gate.ring.rotate(ADMIN, key.key_id, DEFAULT_OVERLAP)


async def test_revocation_ends_both_secrets(gate: Gate) -> None:
    key, old = await gate.ring.create(ADMIN, "robot", READ, None)
    _, new = await gate.ring.rotate(ADMIN, key.key_id, DEFAULT_OVERLAP)
    assert isinstance(await gate.who(old), Principal)
    assert isinstance(await gate.who(new), Principal)
    await gate.ring.revoke(ADMIN, key.key_id)
    gate.cache.drop_key(key.key_id)
    assert await gate.who(old) is Denial.REVOKED
    assert await gate.who(new) is Denial.REVOKED


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=7, microseconds=1)])
async def test_an_overlap_has_bounds(gate: Gate, overlap: timedelta) -> None:
    key, _ = await gate.ring.create(ADMIN, "robot", READ, None)
    with pytest.raises(InvalidArgument, match="overlap"):
        await gate.ring.rotate(ADMIN, key.key_id, overlap)


async def test_nobody_rotates_what_they_could_not_have_made(gate: Gate) -> None:
    key, _ = await gate.ring.create(ADMIN, "robot", READ, None, project="red")
    poor = Caller("acme", "apiKeys/poor", frozenset({"keys.admin"}))
    with pytest.raises(PermissionDenied, match="SCOPE_NOT_GRANTABLE"):
        await gate.ring.rotate(poor, key.key_id, DEFAULT_OVERLAP)
    elsewhere = Caller("acme", "apiKeys/blue", SCOPES, "projects/blue")
    with pytest.raises(PermissionDenied, match="PROJECT_NOT_GRANTABLE"):
        await gate.ring.rotate(elsewhere, key.key_id, DEFAULT_OVERLAP)
    short, _ = await gate.ring.create(ADMIN, "short", SCOPES, NOW + timedelta(hours=1))
    with pytest.raises(PermissionDenied, match="EXPIRY_NOT_GRANTABLE"):
        await gate.ring.rotate(Caller("acme", short.name, SCOPES), key.key_id, DEFAULT_OVERLAP)
    for stranger in (Caller("other", "apiKeys/x", SCOPES), Caller("nobody", "apiKeys/x", SCOPES)):
        with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
            await gate.ring.rotate(stranger, key.key_id, DEFAULT_OVERLAP)
        with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
            await gate.ring.get(stranger, key.key_id)


async def test_a_users_key_is_told_with_project_user_and_role(gate: Gate) -> None:
    key, credential = await gate.ring.create(ADMIN, "ada", READ, None, project="red", user=ADA)
    assert await gate.who(credential) == Principal(
        "acme", key.name, "projects/red", READ, user=f"users/{ADA}", role=Role.MEMBER, key_id=key.key_id
    )


async def test_a_users_key_follows_the_role(gate: Gate) -> None:
    _, credential = await gate.ring.create(ADMIN, "ada", Role.MEMBER.scopes, None, user=ADA)
    for role in (Role.AUDITOR, Role.MEMBER, Role.ADMIN):
        await gate.stores.users.update("acme", ADA, Changes(role=role), NOW)
        gate.cache.clear()
        found = await gate.who(credential)
        assert isinstance(found, Principal)
        assert found.scopes == Role.MEMBER.scopes & role.scopes


@pytest.mark.parametrize("what", [Denial.PROJECT_INACTIVE, Denial.USER_INACTIVE, Denial.TENANT_INACTIVE])
async def test_what_is_switched_off_lets_nobody_in(gate: Gate, what: Denial) -> None:
    _, credential = await gate.ring.create(ADMIN, "ada", READ, None, project="red", user=ADA)
    off = Changes(active=False)
    if what is Denial.PROJECT_INACTIVE:
        await gate.stores.projects.update("acme", "red", off, NOW)
    elif what is Denial.USER_INACTIVE:
        await gate.stores.users.update("acme", ADA, off, NOW)
    else:
        await gate.stores.directory.update("acme", off, NOW)
    assert await gate.who(credential) is what


async def test_what_a_user_makes_ends_with_the_user(gate: Gate) -> None:
    await gate.stores.users.add(User("acme", "e" * 16, "eve@acme.example", "Eve", Role.ADMIN, True, NOW, NOW))
    hers, _ = await gate.ring.create(ADMIN, "hers", SCOPES, None, user="e" * 16)
    made, _ = await gate.ring.create(Caller("acme", hers.name, SCOPES), "made with it", READ, None)
    logged_in, _ = await gate.ring.create(Caller("acme", f"users/{'e' * 16}", SCOPES), "made by login", READ, None)
    assert (made.user, logged_in.user) == ("e" * 16, "e" * 16)
    given, _ = await gate.ring.create(Caller("acme", hers.name, SCOPES), "for another", READ, None, user=ADA)
    assert given.user == ADA


async def test_a_session_leaves_no_key_behind(gate: Gate) -> None:
    key, _ = await gate.ring.create(ADMIN, "robot", READ, None)
    with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
        await gate.ring.create(ADMIN, "more", READ, None, within="sessions/x")
    with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
        await gate.ring.rotate(ADMIN, key.key_id, timedelta(), within="sessions/x")


async def reason_of(attempt: Awaitable[object]) -> str:
    """Why it is not permitted; empty where it is."""
    try:
        await attempt
    except PermissionDenied as refused:
        return refused.reason
    return ""


subsets = st.frozensets(st.sampled_from(sorted(SCOPES)), min_size=1)


@given(caller=subsets, wanted=subsets, role=st.sampled_from(Role))
async def test_no_key_has_more_than_its_maker_and_its_role(
    caller: frozenset[str], wanted: frozenset[str], role: Role
) -> None:
    async with open_stores("memory", lambda _: "") as stores:
        ring = a_key_ring(stores, FixedClock(), scopes=SCOPES)
        await stores.users.add(User("acme", ADA, "ada@acme.example", "Ada", role, True, NOW, NOW))
        maker = Caller("acme", "apiKeys/maker", caller)
        made = await reason_of(ring.create(maker, "robot", wanted, None, user=ADA))
        assert made == ("" if wanted <= caller & role.scopes else "SCOPE_NOT_GRANTABLE")
        users = Users(users=stores.users, clock=FixedClock())
        made = await reason_of(users.create(maker, "eve@acme.example", "Eve", role))
        assert made == ("" if role.scopes <= caller else "ROLE_NOT_GRANTABLE")


@pytest.mark.parametrize("name", ["x" * 100, "ключ 🔑", "مفتاح", "👩‍👩‍👧", "'; --", " a "])
def test_names_are_in_any_script(name: str) -> None:
    check_name(name, "display_name")


@pytest.mark.parametrize(
    "name", ["", " ", "\u3000", "x" * 101, "\0", "\n", "a\tb", "\x7f", "\x9b", "\u2028", "\u202e", "\u2066", "\ud800"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match="display_name"):
        check_name(name, "display_name")


def test_domains_and_addresses_are_in_lower_case() -> None:
    assert domain_of("Acme.Example") == "acme.example"
    assert domain_of("") == ""
    assert email_of("Ada.O'Hara+x@Acme.Example") == "ada.o'hara+x@acme.example"


@pytest.mark.parametrize("email", ["", "a", "@b", "a@", "a b@c", "a@b\n", "ä@b.example", "a@-b", "a" * 250 + "@b.cd"])
def test_what_is_no_address(email: str) -> None:
    with pytest.raises(InvalidArgument, match="email"):
        email_of(email)
