"""Client certificates that stand for a key."""

from dataclasses import dataclass

import pytest

from services.ledger.domain.gate import Request
from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.request_signatures import Message
from services.ledger.domain.values import Caller
from services.runtime.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from tests.unit.ledger.credentials import ADMIN, SCOPES, Replica, Shared, open_replica

SHOWN, OTHER = "a" * 64, "b" * 64


@dataclass
class Holder:
    replica: Replica
    caller: Caller

    async def show(self, fingerprint: str, *, credential: str = "", **fields: str) -> Principal | Denial:
        message = Message("GET", "localhost", "/v1/whoami", fields)
        return await self.replica.gate.admit(Request(credential, message, certificate=fingerprint))


@pytest.fixture
async def holder() -> Holder:
    replica = await open_replica(Shared())
    _, caller = await replica.made("usage.read")
    return Holder(replica, caller)


async def test_a_certificate_is_its_key_from_when_it_was_registered(holder: Holder) -> None:
    assert await holder.show(SHOWN) is Denial.CERTIFICATE_UNKNOWN
    made = await holder.replica.registered.register(holder.caller, SHOWN)
    assert await holder.replica.registered.register(holder.caller, SHOWN) == made
    key_id = holder.caller.actor.removeprefix("apiKeys/")
    wanted = Principal("acme", holder.caller.actor, "", frozenset({"usage.read"}), key_id=key_id)
    assert await holder.show(SHOWN) == wanted
    assert await holder.show(OTHER) is Denial.CERTIFICATE_UNKNOWN
    assert await holder.show("") is Denial.MISSING


async def test_a_credential_comes_before_the_certificate(holder: Holder) -> None:
    await holder.replica.registered.register(holder.caller, SHOWN)
    assert await holder.show(SHOWN, credential="nonsense") is Denial.MALFORMED
    _, token = await holder.replica.sessions.exchange(holder.caller, frozenset())
    found = await holder.show(SHOWN, credential=token)
    assert isinstance(found, Principal)
    assert found.session


async def test_a_browser_needs_more_than_its_certificate(holder: Holder) -> None:
    await holder.replica.registered.register(holder.caller, SHOWN)
    assert await holder.show(SHOWN, origin="https://evil.example.org") is Denial.CERTIFICATE_IN_BROWSER
    assert await holder.show(SHOWN, origin="null") is Denial.CERTIFICATE_IN_BROWSER


async def test_the_end_of_the_key_is_the_end_of_its_certificates(holder: Holder) -> None:
    await holder.replica.registered.register(holder.caller, SHOWN)
    assert isinstance(await holder.show(SHOWN), Principal)
    key_id = holder.caller.actor.removeprefix("apiKeys/")
    await holder.replica.ring.revoke(ADMIN, key_id)
    holder.replica.cache.drop_key(key_id)
    assert await holder.show(SHOWN) is Denial.REVOKED


async def test_a_key_that_demands_signatures_demands_them_of_its_certificates(holder: Holder) -> None:
    await holder.replica.registered.register(holder.caller, SHOWN)
    await holder.replica.request_keys.set(ADMIN, holder.caller.actor.removeprefix("apiKeys/"), bytes(range(32)))
    assert await holder.show(SHOWN) is Denial.REQUEST_UNSIGNED


async def test_a_dropped_certificate_is_nobody(holder: Holder) -> None:
    await holder.replica.registered.register(holder.caller, SHOWN)
    assert isinstance(await holder.show(SHOWN), Principal)
    for stranger in (Caller("other", "apiKeys/x", SCOPES), Caller("acme", "apiKeys/x", frozenset({"usage.read"}))):
        with pytest.raises(NotFound, match="CERTIFICATE_NOT_FOUND"):
            await holder.replica.registered.delete(stranger, SHOWN)
    await holder.replica.registered.delete(holder.caller, SHOWN)
    holder.replica.certificates.changed("clientCertificates", SHOWN)
    assert await holder.show(SHOWN) is Denial.CERTIFICATE_UNKNOWN
    with pytest.raises(NotFound, match="CERTIFICATE_NOT_FOUND"):
        await holder.replica.registered.delete(ADMIN, SHOWN)
    await holder.replica.registered.register(holder.caller, SHOWN)
    await holder.replica.registered.delete(ADMIN, SHOWN)


async def test_who_registers_what(holder: Holder) -> None:
    registered = holder.replica.registered
    for fingerprint in ("", "a" * 63, "A" * 64, "'; --"):
        with pytest.raises(FailedPrecondition, match="CERTIFICATE_NEEDED"):
            await registered.register(holder.caller, fingerprint)
    for who, within in (
        (holder.caller, "sessions/x"),
        (Caller("acme", "users/x", SCOPES), ""),
        (Caller("other", holder.caller.actor, SCOPES), ""),
    ):
        with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
            await registered.register(who, SHOWN, within=within)
    await registered.register(holder.caller, SHOWN)
    _, another = await holder.replica.made("usage.read", tenant="other")
    with pytest.raises(AlreadyExists, match="CERTIFICATE_IN_USE"):
        await registered.register(another, SHOWN)
    for number in range(9):
        await registered.register(holder.caller, f"{number:064}")
    with pytest.raises(ResourceExhausted, match="TOO_MANY_CERTIFICATES"):
        await registered.register(holder.caller, OTHER)
    first, token = await registered.list(ADMIN, 6, "")
    rest, end = await registered.list(ADMIN, 6, token)
    assert (len(first), len(rest), end) == (6, 4, "")
    assert await registered.list(Caller("other", "x", SCOPES), 0, "") == ([], "")
