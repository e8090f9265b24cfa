"""Credentials, their cache, and who is let in."""

import re
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from services.ledger.domain.identity import Authenticator, Denial, Principal
from services.ledger.domain.key_cache import HEARD_WITHIN_S, KeyCache
from services.ledger.domain.key_ring import KeyRing
from services.ledger.domain.keys import ApiKey, KeyHasher, KeyPlace, StoredKey, key_id_of
from services.ledger.domain.onboarding import Onboarding
from services.ledger.domain.ports import KeyStore
from services.ledger.domain.values import Caller
from services.runtime.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from tests.unit.ledger.samples import HASHER, NOW, FixedClock, Stores, a_key_ring, open_stores

SCOPES = frozenset({"documents.read", "usage.read", "keys.admin"})
ADMIN = Caller("acme", "apiKeys/admin", SCOPES)


@dataclass
class CountingKeys:
    """Counts look-ups, can fail, and can act in the middle of one."""

    inner: KeyStore
    finds: int = 0
    down: bool = False
    meanwhile: list[KeyCache] = field(default_factory=list)

    async def find(self, key_id: str) -> StoredKey | None:
        self.finds += 1
        if self.down:
            raise Unavailable("DATABASE_UNAVAILABLE", "down")
        found = await self.inner.find(key_id)
        for cache in self.meanwhile:
            cache.drop_key(key_id)
        return found

    async def add(self, key: ApiKey, key_hash: bytes) -> None:
        await self.inner.add(key, key_hash)

    async def list(self, tenant: str, after: KeyPlace | None, limit: int) -> Sequence[ApiKey]:
        raise AssertionError("not used here")

    async def rotate(self, key: ApiKey, key_hash: bytes) -> ApiKey | None:
        raise AssertionError("not used here")

    async def revoke(self, tenant: str, key_id: str, now: object) -> ApiKey | None:
        raise AssertionError("not used here")


class Ticks:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Gate:
    ring: KeyRing
    keys: CountingKeys
    cache: KeyCache
    ticks: Ticks
    clock: FixedClock
    stores: Stores
    authenticator: Authenticator


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async with open_stores("memory", lambda _: "") as stores:
        ticks, clock = Ticks(), FixedClock()
        keys = CountingKeys(stores.keys)
        cache = KeyCache(max_keys=3, ttl_s=30, monotonic_s=ticks)
        cache.heard(ticks())
        ring = a_key_ring(stores, clock, scopes=SCOPES)
        authenticator = Authenticator(keys=keys, hasher=HASHER, cache=cache, clock=clock, monotonic_s=ticks)
        yield Gate(ring, keys, cache, ticks, clock, stores, authenticator)


def an_onboarding(gate: Gate) -> Onboarding:
    stores = gate.stores
    return Onboarding(
        tenants=stores.tenants,
        directory=stores.directory,
        users=stores.users,
        keys=gate.ring,
        clock=gate.clock,
        scopes=SCOPES,
    )


async def made(gate: Gate, scopes: frozenset[str] = SCOPES, expires_s: float | None = None) -> tuple[ApiKey, str]:
    expires = None if expires_s is None else gate.clock.now + timedelta(seconds=expires_s)
    return await gate.ring.create(ADMIN, "robot", scopes, expires)


async def test_a_credential_has_its_form_and_is_kept_as_a_hash_only(gate: Gate) -> None:
    key, credential = await made(gate)
    assert re.fullmatch(r"pm_[0-9a-z]{16}_[A-Za-z0-9_-]{43}", credential)
    assert key_id_of(credential) == key.key_id
    stored = await gate.stores.keys.find(key.key_id)
    assert stored is not None
    assert stored.key_hash == HASHER.digest(credential)
    assert credential.rpartition("_")[2] not in repr(stored)
    assert stored.key_hash != KeyHasher("q" * 32).digest(credential)
    assert (await made(gate))[1] != credential


@pytest.mark.parametrize(
    "credential", ["pm_", "pm_short_x", "x" * 63, "pm_" + "A" * 16 + "_" + "s" * 43, "pm_" + "a" * 16 + "_" + "s" * 44]
)
async def test_what_has_not_the_form_is_malformed(gate: Gate, credential: str) -> None:
    assert await gate.authenticator.authenticate(credential) is Denial.MALFORMED
    assert gate.keys.finds == 0


async def test_who_is_let_in_and_who_not(gate: Gate) -> None:
    key, credential = await made(gate, frozenset({"usage.read"}))
    wanted = Principal("acme", key.name, "", frozenset({"usage.read"}), key_id=key.key_id)
    assert await gate.authenticator.authenticate(credential) == wanted
    assert await gate.authenticator.authenticate("") is Denial.MISSING
    assert await gate.authenticator.authenticate("pm_" + "0" * 16 + "_" + "s" * 43) is Denial.UNKNOWN
    swapped = credential[:-1] + ("A" if credential[-1] != "A" else "B")
    assert await gate.authenticator.authenticate(swapped) is Denial.UNKNOWN
    await gate.ring.revoke(ADMIN, key.key_id)
    gate.cache.drop_key(key.key_id)
    assert await gate.authenticator.authenticate(credential) is Denial.REVOKED


async def test_a_key_expires_also_in_the_cache(gate: Gate) -> None:
    _, credential = await made(gate, expires_s=10)
    assert isinstance(await gate.authenticator.authenticate(credential), Principal)
    gate.clock.now += timedelta(seconds=10)
    assert await gate.authenticator.authenticate(credential) is Denial.EXPIRED
    assert gate.keys.finds == 1


async def test_the_cache_spares_look_ups_and_ends_by_time(gate: Gate) -> None:
    _, credential = await made(gate)
    for _ in range(3):
        assert isinstance(await gate.authenticator.authenticate(credential), Principal)
    assert gate.keys.finds == 1
    gate.ticks.now_s += 30
    gate.cache.heard(gate.ticks())
    await gate.authenticator.authenticate(credential)
    assert gate.keys.finds == 2


async def test_a_cache_that_does_not_hear_forgets_within_the_second(gate: Gate) -> None:
    _, credential = await made(gate)
    await gate.authenticator.authenticate(credential)
    gate.ticks.now_s += HEARD_WITHIN_S
    assert not gate.cache.hearing
    await gate.authenticator.authenticate(credential)
    assert gate.keys.finds == 2
    gate.ticks.now_s += HEARD_WITHIN_S / 2
    await gate.authenticator.authenticate(credential)
    assert gate.keys.finds == 2


async def test_the_database_down_passes_what_is_cached_and_fails_the_rest(gate: Gate) -> None:
    _, cached = await made(gate)
    _, fresh = await made(gate)
    await gate.authenticator.authenticate(cached)
    gate.keys.down = True
    assert isinstance(await gate.authenticator.authenticate(cached), Principal)
    with pytest.raises(Unavailable):
        await gate.authenticator.authenticate(fresh)
    gate.ticks.now_s += HEARD_WITHIN_S
    with pytest.raises(Unavailable):
        await gate.authenticator.authenticate(cached)


async def test_a_change_during_the_look_up_is_not_cached_over(gate: Gate) -> None:
    _, credential = await made(gate)
    gate.keys.meanwhile = [gate.cache]
    for _ in range(2):
        assert isinstance(await gate.authenticator.authenticate(credential), Principal)
    assert gate.keys.finds == 2
    assert len(gate.cache) == 0


async def test_both_secrets_of_a_key_are_remembered(gate: Gate) -> None:
    key, old = await made(gate)
    _, new = await gate.ring.rotate(ADMIN, key.key_id, timedelta(hours=1))
    for _ in range(5):
        assert await gate.authenticator.authenticate(old) == await gate.authenticator.authenticate(new)
    assert gate.keys.finds == 2
    gate.cache.drop_key(key.key_id)
    assert len(gate.cache) == 0


async def test_a_cached_key_does_not_let_a_wrong_secret_in(gate: Gate) -> None:
    key, credential = await made(gate)
    await gate.authenticator.authenticate(credential)
    wrong = f"pm_{key.key_id}_" + "w" * 43
    assert await gate.authenticator.authenticate(wrong) is Denial.UNKNOWN
    assert isinstance(await gate.authenticator.authenticate(credential), Principal)


async def test_the_cache_is_bounded_and_keeps_what_is_used(gate: Gate) -> None:
    credentials = [(await made(gate))[1] for _ in range(4)]
    for credential in credentials[:3]:
        await gate.authenticator.authenticate(credential)
    await gate.authenticator.authenticate(credentials[0])
    await gate.authenticator.authenticate(credentials[3])
    assert len(gate.cache) == 3
    finds = gate.keys.finds
    await gate.authenticator.authenticate(credentials[0])
    assert gate.keys.finds == finds
    await gate.authenticator.authenticate(credentials[1])
    assert gate.keys.finds == finds + 1


async def test_a_tenants_keys_are_forgotten_together(gate: Gate) -> None:
    for _ in range(2):
        await gate.authenticator.authenticate((await made(gate))[1])
    gate.cache.drop_tenant("other")
    assert len(gate.cache) == 2
    gate.cache.drop_tenant("acme")
    assert len(gate.cache) == 0


async def test_a_key_makes_none_that_outlives_it(gate: Gate) -> None:
    scopes = frozenset({"usage.read"})
    soon = NOW + timedelta(hours=1)
    maker, _ = await gate.ring.create(Caller("acme", "bootstrap", scopes), "short", scopes, soon)
    caller = Caller("acme", maker.name, scopes)
    for expire_time in (None, soon + timedelta(seconds=1)):
        with pytest.raises(PermissionDenied, match="EXPIRY_NOT_GRANTABLE"):
            await gate.ring.create(caller, "longer", scopes, expire_time)
    child, _ = await gate.ring.create(caller, "as long", scopes, soon)
    assert child.expire_time == soon


async def test_a_key_grants_only_what_it_has(gate: Gate) -> None:
    poor = Caller("acme", "apiKeys/poor", frozenset({"keys.admin"}))
    with pytest.raises(PermissionDenied, match="SCOPE_NOT_GRANTABLE"):
        await gate.ring.create(poor, "robot", frozenset({"keys.admin", "usage.read"}), None)
    key, _ = await gate.ring.create(poor, "robot", frozenset({"keys.admin"}), None)
    assert key.scopes == {"keys.admin"}


async def test_only_scopes_of_the_contract_exist(gate: Gate) -> None:
    with pytest.raises(InvalidArgument, match="SCOPE_UNKNOWN") as refused:
        await gate.ring.create(ADMIN, "robot", frozenset({"usage.read", "root.all"}), None)
    assert [f.field for f in refused.value.fields] == ["scopes"]


@pytest.mark.parametrize(("name", "expires_s"), [("a\0b", None), ("robot", 0), ("robot", -1)])
async def test_a_key_that_cannot_be_is_refused(gate: Gate, name: str, expires_s: float | None) -> None:
    expires = None if expires_s is None else NOW + timedelta(seconds=expires_s)
    with pytest.raises(InvalidArgument, match="INVALID_FIELD"):
        await gate.ring.create(ADMIN, name, frozenset({"usage.read"}), expires)


async def test_nobody_ends_the_key_of_another_tenant(gate: Gate) -> None:
    key, _ = await made(gate)
    with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
        await gate.ring.revoke(Caller("other", "x", SCOPES), key.key_id)
    with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
        await gate.ring.revoke(ADMIN, uuid.uuid4().hex[:16])


async def test_a_tenant_is_let_in_once_and_gets_a_key_each_time(gate: Gate) -> None:
    onboarding = an_onboarding(gate)
    first, _ = await onboarding.admit("fresh", "", hard_budget_micros=None)
    second, credential = await onboarding.admit("fresh", "Fresh Inc.", hard_budget_micros=5)
    assert first.key_id != second.key_id
    assert await gate.authenticator.authenticate(credential) == Principal(
        "fresh", second.name, "", SCOPES, key_id=second.key_id
    )


@pytest.mark.parametrize(
    ("tenant", "name", "budget"),
    [
        *((tenant, "", None) for tenant in ("", "-a", "A", "a" * 64, "a'; --", "a\n")),
        *(("a", name, None) for name in ("x" * 101, "\0")),
        *(("a", "", budget) for budget in (-1, 10**15 + 1)),
    ],
)
async def test_a_tenant_that_cannot_be_is_refused(gate: Gate, tenant: str, name: str, budget: int | None) -> None:
    onboarding = an_onboarding(gate)
    with pytest.raises(InvalidArgument):
        await onboarding.admit(tenant, name, hard_budget_micros=budget)
