"""Sessions: who gets one, who is let in with one, and what no token may do."""

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.jwt_form import MAX_TOKEN_BYTES, looks_like_jwt, read_form
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied
from tests.unit.ledger.credentials import ADMIN, SCOPES, Replica, Shared, open_replica
from tests.unit.ledger.samples import NOW


@pytest.fixture
async def here() -> Replica:
    return await open_replica(Shared())


async def a_token(replica: Replica, *scopes: str) -> tuple[str, Caller]:
    _, caller = await replica.made()
    _, token = await replica.sessions.exchange(caller, frozenset(scopes))
    return token, caller


def decoded(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return json.loads(_raw(header)), json.loads(_raw(claims))


def _raw(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def resigned(replica: Replica, header: Any, claims: Any) -> str:
    """A token of any form with a true signature of the ledger's own key: only its form can be at fault."""
    key = await replica.signing_keys.signing()
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{part(key.private.sign(signed.encode()))}"


async def test_a_session_is_its_key_with_no_more_scopes(here: Replica) -> None:
    _, caller = await here.made()
    session, token = await here.sessions.exchange(caller, frozenset({"usage.read"}))
    key_id = caller.actor.removeprefix("apiKeys/")
    wanted = Principal("acme", caller.actor, "", frozenset({"usage.read"}), session=session.name, key_id=key_id)
    assert await here.admit(token) == wanted
    header, claims = decoded(token)
    key = await here.signing_keys.signing()
    assert header == {"alg": "EdDSA", "typ": "JWT", "kid": key.kid}
    made = int(NOW.timestamp())
    assert claims == {
        "iss": "pagemesh",
        "aud": "pagemesh",
        "sub": caller.actor,
        "jti": session.session_id,
        "iat": made,
        "nbf": made,
        "exp": made + 1800,
        "tenant": "acme",
        "project": "",
        "scope": "usage.read",
    }
    whole, everything = await here.sessions.exchange(caller, frozenset())
    assert await here.admit(everything) == Principal(
        "acme", caller.actor, "", SCOPES, session=whole.name, key_id=key_id
    )


async def test_what_a_key_lacks_its_session_lacks(here: Replica) -> None:
    _, caller = await here.made("usage.read")
    with pytest.raises(PermissionDenied, match="SCOPE_NOT_GRANTABLE"):
        await here.sessions.exchange(caller, frozenset({"usage.read", "keys.admin"}))


async def test_only_a_key_is_exchanged(here: Replica) -> None:
    _, caller = await here.made()
    session, _ = await here.sessions.exchange(caller, frozenset())
    for who, within in (
        (caller, session.name),
        (Caller("acme", "users/0000000000000000", SCOPES), ""),
        (Caller("acme", "bootstrap", SCOPES), ""),
        (Caller("other", caller.actor, SCOPES), ""),
    ):
        with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
            await here.sessions.exchange(who, frozenset(), within=within)


async def test_no_session_outlives_its_key(here: Replica) -> None:
    _, caller = await here.made(expires_s=60)
    session, token = await here.sessions.exchange(caller, frozenset())
    assert session.expire_time == NOW + timedelta(seconds=60)
    here.pass_time(seconds=59.5)
    assert isinstance(await here.admit(token), Principal)
    here.pass_time(seconds=0.5)
    assert await here.admit(token) is Denial.EXPIRED
    with pytest.raises(FailedPrecondition, match="KEY_ENDING"):
        await here.sessions.exchange(caller, frozenset())


async def test_a_session_expires_also_where_its_token_is_remembered(here: Replica) -> None:
    token, _ = await a_token(here)
    here.pass_time(minutes=29, seconds=59)
    assert isinstance(await here.admit(token), Principal)
    here.pass_time(seconds=1)
    assert await here.admit(token) is Denial.EXPIRED


async def test_a_clock_that_is_behind_by_five_seconds_is_forgiven(here: Replica) -> None:
    token, _ = await a_token(here)
    here.shared.clock.now -= timedelta(seconds=5)
    assert isinstance(await here.admit(token), Principal)
    here.shared.clock.now -= timedelta(seconds=1)
    assert await here.admit(token) is Denial.NOT_YET_VALID


async def test_the_end_of_a_key_is_the_end_of_its_sessions(here: Replica) -> None:
    token, caller = await a_token(here)
    assert isinstance(await here.admit(token), Principal)
    key_id = caller.actor.removeprefix("apiKeys/")
    await here.ring.revoke(ADMIN, key_id)
    assert isinstance(await here.admit(token), Principal), "nobody told it yet"
    here.cache.drop_key(key_id)
    assert await here.admit(token) is Denial.REVOKED
    assert await here.admit(token) is Denial.REVOKED


async def test_the_end_of_a_tenant_is_the_end_of_its_sessions(here: Replica) -> None:
    token, _ = await a_token(here)
    assert isinstance(await here.admit(token), Principal)
    here.shared.ledger.tenants["acme"].active = False
    here.cache.drop_tenant("acme")
    assert await here.admit(token) is Denial.TENANT_INACTIVE


async def test_a_session_that_was_ended_is_out_everywhere(here: Replica) -> None:
    there = await open_replica(here.shared)
    token, caller = await a_token(here)
    other, _ = await a_token(here)
    session_id = decoded(token)[1]["jti"]
    for replica in (here, there):
        assert isinstance(await replica.admit(token), Principal)
        assert isinstance(await replica.admit(other), Principal)
    await here.sessions.revoke(caller, session_id)
    await here.sessions.revoke(caller, session_id)
    for replica in (here, there):
        replica.check.changed("sessions", session_id)
        assert await replica.admit(token) is Denial.REVOKED
        assert isinstance(await replica.admit(other), Principal)


async def test_a_replica_that_does_not_hear_asks_again_within_the_second(here: Replica) -> None:
    token, caller = await a_token(here)
    assert isinstance(await here.admit(token), Principal)
    await here.sessions.revoke(caller, decoded(token)[1]["jti"])
    here.ticks.now_s += 0.9
    assert await here.admit(token) is Denial.REVOKED


async def test_a_session_ended_during_its_look_up_is_not_remembered(
    here: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, caller = await a_token(here)
    session_id = decoded(token)[1]["jti"]
    has = here.shared.revoked.has

    async def ended_meanwhile(tenant: str, asked: str) -> bool:
        found = await has(tenant, asked)
        await here.sessions.revoke(caller, session_id)
        here.check.changed("sessions", session_id)
        return found

    monkeypatch.setattr(here.shared.revoked, "has", ended_meanwhile)
    assert isinstance(await here.admit(token), Principal)
    assert await here.admit(token) is Denial.REVOKED


async def test_who_may_end_whose_session(here: Replica) -> None:
    token, caller = await a_token(here)
    session_id = decoded(token)[1]["jti"]
    strangers = [
        Caller("other", "apiKeys/x", SCOPES),
        Caller("acme", "apiKeys/x", frozenset({"usage.read"})),
        Caller("other", "apiKeys/x", frozenset()),
    ]
    for who in strangers:
        with pytest.raises(NotFound, match="SESSION_NOT_FOUND"):
            await here.sessions.revoke(who, session_id)
    with pytest.raises(NotFound, match="SESSION_NOT_FOUND"):
        await here.sessions.revoke(ADMIN, "0" * 16 + "-" + "0" * 26)
    assert isinstance(await here.admit(token), Principal)
    await here.sessions.revoke(ADMIN, session_id)
    here.check.changed("sessions", session_id)
    assert await here.admit(token) is Denial.REVOKED
    await here.sessions.revoke(Caller("acme", caller.actor), session_id)


async def test_a_token_of_another_ledger_is_nobodys(here: Replica) -> None:
    """Same database, other name; and same name, other database."""
    namesake = await open_replica(here.shared, issuer="elsewhere")
    token, _ = await a_token(namesake)
    assert await here.admit(token) is Denial.ISSUER_UNKNOWN
    stranger = await open_replica(Shared())
    token, _ = await a_token(stranger)
    assert await here.admit(token) is Denial.SIGNER_UNKNOWN


async def test_no_algorithm_but_ours_whatever_the_key(here: Replica) -> None:
    token, _ = await a_token(here)
    header, claims = decoded(token)
    key = await here.signing_keys.signing()
    public = key.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    raw = key.stored.public_key
    forged = {
        "none": f"{part({**header, 'alg': 'none'})}.{part(claims)}.",
        "None": f"{part({**header, 'alg': 'None'})}.{token.split('.')[1]}.{token.split('.')[2]}",
        "hs256 raw": jwt.encode(claims, raw, algorithm="HS256", headers={"kid": key.kid}),
        "hs256 x": jwt.encode(claims, key.x.ljust(32), algorithm="HS256", headers={"kid": key.kid}),
        "es256": jwt.encode(
            claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": key.kid}
        ),
        "rs256": jwt.encode(claims, rsa.generate_private_key(65537, 2048), algorithm="RS256", headers={"kid": key.kid}),
        "another key": jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": key.kid}),
        "no signature": ".".join([*token.split(".")[:2], ""]),
    }
    del public
    for name, wrong in forged.items():
        assert await here.admit(wrong) is Denial.BAD_SIGNATURE, name
    assert isinstance(await here.admit(token), Principal)


async def test_a_token_that_asks_for_more_than_a_name_has_no_form(here: Replica) -> None:
    token, _ = await a_token(here)
    header, claims = decoded(token)
    unwanted = {
        "crit": ["exp"],
        "jku": "https://example.org/keys",
        "x5u": "https://example.org/cert",
        "x5c": ["MII"],
        "jwk": {"kty": "OKP"},
        "b64": False,
        "zip": "DEF",
        "cty": "JWT",
    }
    for name, value in unwanted.items():
        assert await here.admit(await resigned(here, {**header, name: value}, claims)) is Denial.MALFORMED, name
    for kid in (None, 7, "", "k" * 201, ["a"]):
        assert await here.admit(await resigned(here, {**header, "kid": kid}, claims)) is Denial.MALFORMED
    for kind in ("logout+jwt", "secevent+jwt", "", 1):
        assert await here.admit(await resigned(here, {**header, "typ": kind}, claims)) is Denial.MALFORMED
    assert await here.admit(await resigned(here, {**header, "kid": "unknown"}, claims)) is Denial.SIGNER_UNKNOWN


async def test_a_token_says_nothing_twice(here: Replica) -> None:
    token, _ = await a_token(here)
    header, claims = decoded(token)
    text = json.dumps(claims)
    twice = (text[:-1] + ', "tenant": "other"}').encode()
    assert await here.admit(await resigned(here, header, twice)) is Denial.MALFORMED
    head = (json.dumps(header)[:-1] + ', "alg": "none"}').encode()
    assert await here.admit(await resigned(here, head, claims)) is Denial.MALFORMED
    nested = text[:-1] + ', "a": {"b": 1, "b": 2}}'
    assert await here.admit(await resigned(here, header, nested.encode())) is Denial.MALFORMED


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"])
async def test_a_token_lacks_nothing(here: Replica, name: str) -> None:
    token, _ = await a_token(here)
    header, claims = decoded(token)
    del claims[name]
    why = Denial.ISSUER_UNKNOWN if name == "iss" else Denial.BAD_SIGNATURE
    assert await here.admit(await resigned(here, header, claims)) is why


@pytest.mark.parametrize(
    ("name", "value"), [("iss", "other"), ("aud", "other"), ("aud", []), ("iss", ["pagemesh"]), ("sub", 1), ("jti", 1)]
)
async def test_a_token_is_for_this_ledger(here: Replica, name: str, value: object) -> None:
    token, _ = await a_token(here)
    header, claims = decoded(token)
    why = Denial.ISSUER_UNKNOWN if name == "iss" else Denial.BAD_SIGNATURE
    assert await here.admit(await resigned(here, header, {**claims, name: value})) is why


async def test_every_changed_character_is_noticed(here: Replica) -> None:
    token, _ = await a_token(here)
    header, claims, signature = token.split(".")
    for index in range(0, len(claims), 7):
        swapped = "A" if claims[index] != "A" else "B"
        changed = f"{header}.{claims[:index]}{swapped}{claims[index + 1 :]}.{signature}"
        assert isinstance(await here.admit(changed), Denial)
    for cut in range(1, len(token), 11):
        assert isinstance(await here.admit(token[:-cut]), Denial)


@pytest.mark.parametrize(
    "token",
    [
        "eyJ..",
        "eyJ.eyJ.x",
        "eyJhbGciOiJub25lIn0.e30.",
        "eyJ" + "A" * MAX_TOKEN_BYTES + ".e30.x",
        "eyJ\u00e9.e30.x",
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.W10.x",
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ." + base64.urlsafe_b64encode(b"[" * 3000).decode() + ".x",
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ." + base64.urlsafe_b64encode(b'{"exp": NaN}').decode() + ".x",
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ." + base64.urlsafe_b64encode(b'{"exp": 1e999}').decode() + ".x",
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ." + base64.urlsafe_b64encode(b'{"iss":"\\ud800"}').decode() + ".x",
    ],
    ids=[
        "empty",
        "short",
        "no kid",
        "huge",
        "not ascii",
        "a list",
        "deep",
        "not a number",
        "infinite",
        "half a character",
    ],
)
async def test_what_is_no_token_is_malformed(here: Replica, token: str) -> None:
    assert looks_like_jwt(token)
    assert read_form(token) is None
    assert await here.admit(token) is Denial.MALFORMED


@pytest.mark.parametrize("credential", ["eyJ", "eyJ.x", "a.b.c", "eyJ.a.b.c"])
async def test_what_looks_like_no_token_is_held_to_be_a_key(here: Replica, credential: str) -> None:
    assert not looks_like_jwt(credential)
    assert await here.admit(credential) is Denial.MALFORMED


async def test_the_signature_is_checked_once(here: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    token, _ = await a_token(here)
    read, count = here.tokens.read, []

    def counting(*arguments: Any) -> Any:
        count.append(1)
        return read(*arguments)

    monkeypatch.setattr(here.tokens, "read", counting)
    for _ in range(5):
        assert isinstance(await here.admit(token), Principal)
    assert len(count) == 1
