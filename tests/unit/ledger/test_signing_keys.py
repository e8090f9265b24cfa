"""The keys of sessions: ahead of their time, the same for all replicas, gone when nothing of theirs is left."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.sealing import Sealer
from services.ledger.domain.signing_keys import SESSION_LIFETIME
from tests.unit.ledger.credentials import PERIOD, Replica, Shared, open_replica


@pytest.fixture
async def here() -> Replica:
    return await open_replica(Shared())


async def kids(replica: Replica) -> list[str]:
    return [key.kid for key in await replica.signing_keys.published()]


async def test_the_first_key_is_made_when_it_is_needed_and_signs_for_all(here: Replica) -> None:
    there = await open_replica(here.shared)
    key = await here.signing_keys.signing()
    await here.signing_keys.rotate()
    assert (await there.signing_keys.signing()).kid == key.kid
    assert await kids(here) == await kids(there) == [key.kid]


async def test_the_next_key_is_published_before_it_signs(here: Replica) -> None:
    first = await here.signing_keys.signing()
    here.pass_time(seconds=PERIOD.total_seconds() / 2)
    await here.signing_keys.rotate()
    published = await kids(here)
    assert len(published) == 2
    assert published[1] == first.kid
    assert (await here.signing_keys.signing()).kid == first.kid
    here.pass_time(seconds=PERIOD.total_seconds() / 2)
    assert (await here.signing_keys.signing()).kid == published[0]


async def test_a_token_lives_through_a_rotation_and_its_key_goes_after_it(here: Replica) -> None:
    await here.signing_keys.rotate()
    here.pass_time(seconds=(PERIOD - timedelta(seconds=1)).total_seconds())
    await here.signing_keys.rotate()
    _, caller = await here.made()
    old = await here.signing_keys.signing()
    _, token = await here.sessions.exchange(caller, frozenset())
    here.pass_time(seconds=2)
    await here.signing_keys.rotate()
    assert (await here.signing_keys.signing()).kid != old.kid
    there = await open_replica(here.shared)
    here.pass_time(minutes=29, seconds=57)
    for replica in (here, there):
        assert isinstance(await replica.admit(token), Principal)
    assert old.kid in await kids(here)
    here.pass_time(minutes=10)
    await here.signing_keys.rotate()
    assert old.kid not in await kids(here)
    assert old.kid not in here.shared.signing_keys.keys
    assert await (await open_replica(here.shared)).admit(token) is Denial.SIGNER_UNKNOWN


async def test_a_key_always_outlasts_the_tokens_that_it_signs(here: Replica) -> None:
    for _ in range(100):
        key = await here.signing_keys.signing()
        assert key.stored.verify_until >= here.shared.clock.now + SESSION_LIFETIME
        here.pass_time(hours=1)


async def test_after_a_long_sleep_there_is_a_new_key(here: Replica) -> None:
    first = await here.signing_keys.signing()
    here.pass_time(days=30)
    second = await here.signing_keys.signing()
    assert second.kid != first.kid
    assert second.stored.sign_from == here.shared.clock.now


async def test_a_token_of_a_key_that_another_replica_made_is_known_at_once(here: Replica) -> None:
    there = await open_replica(here.shared)
    await there.signing_keys.verifying("nobody")
    _, caller = await here.made()
    _, token = await here.sessions.exchange(caller, frozenset())
    assert await there.admit(token) is Denial.SIGNER_UNKNOWN, "it has just looked"
    there.signing_keys.changed("signingKeys", "x")
    assert isinstance(await there.admit(token), Principal)


async def test_made_up_names_cost_one_look_a_second(here: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    read = here.shared.signing_keys.all

    async def counting() -> object:
        looks.append(1)
        return await read()

    monkeypatch.setattr(here.shared.signing_keys, "all", counting)
    for number in range(50):
        assert await here.signing_keys.verifying(f"made-up-{number}") is None
    assert len(looks) == 1
    here.pass_time(seconds=1)
    await here.signing_keys.verifying("made-up")
    assert len(looks) == 2


async def test_who_can_only_write_to_the_database_makes_no_key(here: Replica) -> None:
    """Neither one of their own nor an old one with a longer life, nor one key in the place of another."""
    true = (await here.signing_keys.signing()).stored
    own = Ed25519PrivateKey.generate()
    raw = own.public_key().public_bytes_raw()
    sealed = Sealer("q" * 32, purpose="session signing keys").seal(own.private_bytes_raw(), bound_to=true.bound_to())
    planted = [
        replace(true, kid="planted000000001", public_key=raw),
        replace(true, kid="planted000000002", public_key=raw, sealed_private_key=sealed),
        replace(true, kid="planted000000003", verify_until=true.verify_until + timedelta(days=1)),
        replace(true, kid="planted000000004"),
    ]
    for key in planted:
        here.shared.signing_keys.keys[key.kid] = key
    fresh = await open_replica(here.shared)
    await fresh.signing_keys.rotate()
    assert await kids(fresh) == [true.kid]


async def test_another_pepper_makes_a_new_key_beside(here: Replica) -> None:
    first = await here.signing_keys.signing()
    changed = await open_replica(here.shared, pepper="q" * 32)
    second = await changed.signing_keys.signing()
    assert second.kid != first.kid
    assert await kids(changed) == [second.kid]
    assert set(here.shared.signing_keys.keys) == {first.kid, second.kid}


def test_a_seal_opens_for_its_purpose_only() -> None:
    sealer = Sealer("p" * 32, purpose="one")
    sealed = sealer.seal(b"secret", bound_to=b"row")
    assert sealer.open(sealed, bound_to=b"row") == b"secret"
    assert sealer.open(sealed, bound_to=b"other row") is None
    assert Sealer("p" * 32, purpose="two").open(sealed, bound_to=b"row") is None
    assert sealer.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), bound_to=b"row") is None
    assert sealer.open(b"", bound_to=b"row") is None
    assert sealer.seal(b"secret", bound_to=b"row") != sealed
