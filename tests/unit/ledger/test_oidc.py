"""Tokens of OpenID Connect issuers: whose they are, and whose they are not."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.identity_providers import StandingUser
from services.ledger.domain.issuer_keys import FRESH_S, RETRY_FAILED_S, RETRY_S, STALE_S, read_keys
from services.ledger.domain.roles import Role
from services.ledger.domain.values import Caller
from services.runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from tests.fakes.oidc_issuer import Signer, jwk, new_key
from tests.unit.ledger.credentials import SCOPES, Replica, Shared, open_replica
from tests.unit.ledger.samples import NOW

ISSUER = "https://issuer.example.org"
ANN = "ann@example.org"
ADMIN = Caller("acme", "apiKeys/admin", Role.ADMIN.scopes)
NOW_S = NOW.timestamp()


@pytest.fixture
def signer() -> Signer:
    return Signer(ISSUER)


@pytest.fixture
async def here(signer: Signer) -> AsyncIterator[Replica]:
    replica = await open_replica(Shared())
    replica.shared.source.published[ISSUER] = signer.published()
    replica.shared.users.users["acme", ANN] = StandingUser("u" * 16, Role.AUDITOR, True, True)
    await replica.providers.create(ADMIN, "our issuer", ISSUER, "pagemesh-app")
    yield replica
    await replica.issuer_keys.close()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_is_the_user_with_its_address(here: Replica, signer: Signer, algorithm: str) -> None:
    signer.rotate(algorithm)
    here.shared.source.published[ISSUER] = signer.published()
    here.pass_time(seconds=RETRY_S)
    name = "users/" + "u" * 16
    (provider,), _ = await here.providers.list(ADMIN, 0, "")
    scopes, ident = frozenset({"usage.read"}), provider.provider_id
    wanted = Principal("acme", name, "", scopes, user=name, role=Role.AUDITOR, provider=ident)
    now = here.shared.clock.now.timestamp()
    for _ in range(3):
        assert await here.admit(signer.token(ANN, now)) == wanted
    assert await here.admit(signer.token("ANN@Example.org", now)) == wanted


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "another-app"}, Denial.ISSUER_UNKNOWN),
        ({"aud": ["another-app"]}, Denial.ISSUER_UNKNOWN),
        ({"aud": []}, Denial.ISSUER_UNKNOWN),
        ({"aud": None}, Denial.ISSUER_UNKNOWN),
        ({"aud": ["pagemesh-app"] * 11}, Denial.ISSUER_UNKNOWN),
        ({"aud": ["pagemesh-app", "another-app"]}, Denial.ISSUER_UNKNOWN),
        ({"aud": ["pagemesh-app", "another-app"], "azp": "another-app"}, Denial.ISSUER_UNKNOWN),
        ({"aud": "a\0b"}, Denial.ISSUER_UNKNOWN),
        ({"iss": "https://elsewhere.example.org"}, Denial.ISSUER_UNKNOWN),
        ({"iss": ISSUER + "/"}, Denial.ISSUER_UNKNOWN),
        ({"sub": None}, Denial.BAD_SIGNATURE),
        ({"exp": None}, Denial.BAD_SIGNATURE),
        ({"iat": None}, Denial.BAD_SIGNATURE),
        ({"exp": "tomorrow"}, Denial.MALFORMED),
        ({"exp": True}, Denial.MALFORMED),
        ({"exp": -1}, Denial.MALFORMED),
        ({"exp": 10**30}, Denial.MALFORMED),
        ({"nbf": "now"}, Denial.MALFORMED),
        ({"exp": NOW_S // 1 - 60}, Denial.MALFORMED),
        ({"exp": int(NOW_S) - 60}, Denial.EXPIRED),
        ({"nbf": int(NOW_S) + 61}, Denial.NOT_YET_VALID),
        ({"iat": int(NOW_S) + 61}, Denial.NOT_YET_VALID),
        ({"email_verified": None}, Denial.EMAIL_UNVERIFIED),
        ({"email_verified": False}, Denial.EMAIL_UNVERIFIED),
        ({"email_verified": "true"}, Denial.EMAIL_UNVERIFIED),
        ({"email": None}, Denial.EMAIL_UNVERIFIED),
        ({"email": [ANN]}, Denial.EMAIL_UNVERIFIED),
        ({"email": "x" * 255}, Denial.EMAIL_UNVERIFIED),
        ({"email": "a\0b"}, Denial.MALFORMED),
        ({"email": "bob@example.org"}, Denial.USER_UNKNOWN),
        ({"email": "' OR true --"}, Denial.USER_UNKNOWN),
    ],
    ids=lambda value: value.value if isinstance(value, Denial) else "",
)
async def test_whose_it_is_not(here: Replica, signer: Signer, changes: dict[str, Any], why: Denial) -> None:
    found = await here.admit(signer.token(ANN, NOW_S, **changes))
    # A number with a fraction has no form; the library's own refusals count as a signature that is none.
    assert found is why or (why is Denial.MALFORMED and found is Denial.BAD_SIGNATURE)


async def test_a_minute_is_forgiven_and_no_more(here: Replica, signer: Signer) -> None:
    for changes in ({"exp": int(NOW_S) - 59}, {"iat": int(NOW_S) + 60}, {"nbf": int(NOW_S) + 60}):
        assert isinstance(await here.admit(signer.token(ANN, NOW_S, **changes)), Principal)
    token = signer.token(ANN, NOW_S)
    assert isinstance(await here.admit(token), Principal)
    here.pass_time(seconds=359)
    assert isinstance(await here.admit(token), Principal)
    here.pass_time(seconds=1)
    assert await here.admit(token) is Denial.EXPIRED


async def test_several_audiences_take_the_party_it_was_given_to(here: Replica, signer: Signer) -> None:
    token = signer.token(ANN, NOW_S, aud=["other", "pagemesh-app"], azp="pagemesh-app")
    assert isinstance(await here.admit(token), Principal)
    assert isinstance(await here.admit(signer.token(ANN, NOW_S, azp="their web page")), Principal)


async def test_two_tenants_share_an_issuer_by_their_audiences(here: Replica, signer: Signer) -> None:
    other = Caller("other", "apiKeys/admin", Role.ADMIN.scopes)
    await here.providers.create(other, "the same", ISSUER, "other-app")
    here.shared.users.users["other", ANN] = StandingUser("o" * 16, Role.ADMIN, True, True)
    mine, theirs = (
        await here.admit(signer.token(ANN, NOW_S)),
        await here.admit(signer.token(ANN, NOW_S, aud="other-app")),
    )
    assert isinstance(mine, Principal)
    assert isinstance(theirs, Principal)
    assert (mine.tenant, theirs.tenant) == ("acme", "other")
    both = signer.token(ANN, NOW_S, aud=["other-app", "pagemesh-app"], azp="pagemesh-app")
    assert await here.admit(both) is Denial.ISSUER_UNKNOWN, "which of the two?"
    with pytest.raises(AlreadyExists, match="ISSUER_IN_USE"):
        await here.providers.create(other, "to catch their users", ISSUER, "pagemesh-app")


async def test_another_issuers_key_signs_nothing_for_this_one(here: Replica, signer: Signer) -> None:
    evil = Signer("https://evil.example.org", kid=signer.kid)
    here.shared.source.published[evil.issuer] = evil.published()
    await here.providers.create(Caller("other", "x", Role.ADMIN.scopes), "evil", evil.issuer, "pagemesh-app")
    assert await here.admit(evil.token(ANN, NOW_S, iss=ISSUER)) is Denial.BAD_SIGNATURE
    assert await here.admit(evil.token(ANN, NOW_S)) is Denial.USER_UNKNOWN


async def test_the_algorithm_is_that_of_the_key(here: Replica, signer: Signer) -> None:
    claims, headers = signer.claims(ANN, NOW_S), {"kid": signer.kid}
    public = signer.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    def hmac_with(secret: bytes) -> str:
        import hashlib
        import hmac

        signed = f"{part({'alg': 'HS256', 'kid': signer.kid})}.{part(claims)}"
        mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
        return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    forged = [
        hmac_with(pem),
        hmac_with(json.dumps(signer.published()[0]).encode()),
        f"{part({'alg': 'none', 'kid': signer.kid})}.{part(claims)}.",
        jwt.encode(claims, new_key("RS256"), algorithm="RS256", headers=headers),
        jwt.encode(claims, new_key("EdDSA"), algorithm="EdDSA", headers=headers),
        jwt.encode(claims, new_key("ES256"), algorithm="ES256", headers=headers),
    ]
    for token in forged:
        assert await here.admit(token) is Denial.BAD_SIGNATURE
    assert isinstance(await here.admit(signer.token(ANN, NOW_S)), Principal)


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
async def test_of_rsa_there_is_one(here: Replica, signer: Signer, algorithm: str) -> None:
    signer.rotate("RS256")
    here.shared.source.published[ISSUER] = signer.published()
    here.pass_time(seconds=RETRY_S)
    claims = signer.claims(ANN, here.shared.clock.now.timestamp())
    token = jwt.encode(claims, signer.key, algorithm=algorithm, headers={"kid": signer.kid})
    assert await here.admit(token) is Denial.BAD_SIGNATURE


def test_which_keys_count() -> None:
    good = {algorithm: new_key(algorithm) for algorithm in ("RS256", "ES256", "EdDSA")}
    keys: list[dict[str, Any]] = [jwk(key, f"good {algorithm}", algorithm) for algorithm, key in good.items()]
    keys += [{**key, "kid": f"bare {key['kid']}"} for key in keys]
    for key in keys[3:]:
        del key["alg"], key["use"]
    rsa_key, ec_key = keys[0], keys[1]
    weak = jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
    other_curve = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)
    other_edwards = jwt.algorithms.OKPAlgorithm.to_jwk(Ed448PrivateKey.generate().public_key(), as_dict=True)
    private = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    bad: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {**weak, "kid": "weak"},
        {**other_curve, "kid": "p-384"},
        {**other_edwards, "kid": "ed448"},
        {**private, "kid": "private"},
        {**rsa_key, "kid": "encrypts", "use": "enc"},
        {**rsa_key, "kid": "another algorithm", "alg": "PS256"},
        {**ec_key, "kid": "off the curve", "x": ec_key["y"]},
        {**ec_key, "kid": "no point", "x": "!"},
        {**ec_key, "kid": "missing", "x": None},
        {**ec_key, "kid": 7},
        {**rsa_key, "kid": "twice"},
        {**ec_key, "kid": "twice"},
        {"kid": "empty"},
        {name: value for name, value in ec_key.items() if name != "kid"},
    ]
    found = read_keys([*keys, *bad])
    assert {kid: key.algorithm for kid, key in found.items()} == {
        f"{bare}good {algorithm}": algorithm for bare in ("", "bare ") for algorithm in good
    }


async def test_a_new_key_is_fetched_and_made_up_ones_are_not(here: Replica, signer: Signer) -> None:
    source = here.shared.source
    assert source.fetches == 1
    old = signer.token(ANN, NOW_S)
    for number in range(50):
        made_up = replace(signer, kid=f"made-up-{number}")
        assert await here.admit(made_up.token(ANN, NOW_S)) is Denial.SIGNER_UNKNOWN
    assert source.fetches == 1, "it was asked a moment ago"
    signer.rotate()
    source.published[ISSUER] += signer.published()
    here.pass_time(seconds=RETRY_S)
    now = here.shared.clock.now.timestamp()
    assert isinstance(await here.admit(signer.token(ANN, now)), Principal)
    assert isinstance(await here.admit(old), Principal), "both keys are published"
    for number in range(50):
        made_up = replace(signer, kid=f"made-up-{number}")
        assert await here.admit(made_up.token(ANN, now)) is Denial.SIGNER_UNKNOWN
    assert source.fetches == 2


async def test_a_key_that_the_issuer_took_back_is_believed_no_longer(here: Replica, signer: Signer) -> None:
    old = signer.token(ANN, NOW_S, exp=int(NOW_S) + 10_000)
    assert isinstance(await here.admit(old), Principal)
    signer.rotate()
    here.shared.source.published[ISSUER] = signer.published()
    here.pass_time(seconds=FRESH_S)
    assert isinstance(await here.admit(old), Principal)
    for _ in range(5):
        await asyncio.sleep(0)  # the keys are fetched behind it
    here.pass_time(seconds=31)
    assert await here.admit(old) is Denial.SIGNER_UNKNOWN


async def test_an_issuer_that_is_down_is_believed_by_what_is_known_for_a_day(here: Replica, signer: Signer) -> None:
    del here.shared.source.published[ISSUER]
    here.pass_time(seconds=FRESH_S)
    lasting = int(NOW_S) + 10**6
    assert isinstance(await here.admit(signer.token(ANN, NOW_S, exp=lasting)), Principal)
    here.pass_time(seconds=STALE_S - FRESH_S - 1)
    assert isinstance(await here.admit(signer.token(ANN, NOW_S, exp=lasting)), Principal)
    here.pass_time(seconds=31)
    with pytest.raises(Unavailable, match="ISSUER_UNREACHABLE"):
        await here.admit(signer.token(ANN, NOW_S, exp=lasting))


async def test_without_keys_nobody_passes_and_the_issuer_is_left_in_peace(here: Replica, signer: Signer) -> None:
    del here.shared.source.published[ISSUER]
    there = await open_replica(here.shared)
    fetches = here.shared.source.fetches
    for _ in range(20):
        with pytest.raises(Unavailable, match="ISSUER_UNREACHABLE"):
            await there.admit(signer.token(ANN, NOW_S))
    assert here.shared.source.fetches == fetches + 1
    here.shared.source.published[ISSUER] = signer.published()
    there.pass_time(seconds=RETRY_FAILED_S)
    assert isinstance(await there.admit(signer.token(ANN, NOW_S)), Principal)
    await there.issuer_keys.close()


async def test_changes_of_users_and_providers_count_at_once(here: Replica, signer: Signer) -> None:
    token, users = signer.token(ANN, NOW_S), here.shared.users.users
    assert isinstance(await here.admit(token), Principal)
    users["acme", ANN] = StandingUser("u" * 16, Role.ADMIN, True, True)
    here.issuers.changed("tenants", "acme")
    promoted = await here.admit(token)
    assert isinstance(promoted, Principal)
    assert promoted.scopes == SCOPES
    users["acme", ANN] = StandingUser("u" * 16, Role.ADMIN, False, True)
    here.issuers.changed("tenants", "acme")
    assert await here.admit(token) is Denial.USER_INACTIVE
    users["acme", ANN] = StandingUser("u" * 16, Role.ADMIN, True, False)
    here.issuers.changed("tenants", "acme")
    assert await here.admit(token) is Denial.TENANT_INACTIVE
    users["acme", ANN] = StandingUser("u" * 16, Role.ADMIN, True, True)
    here.issuers.changed("tenants", "acme")
    assert isinstance(await here.admit(token), Principal)
    (provider,), _ = await here.providers.list(ADMIN, 0, "")
    await here.providers.delete(ADMIN, provider.provider_id)
    here.issuers.changed("identityProviders", provider.provider_id)
    assert await here.admit(token) is Denial.ISSUER_UNKNOWN


@pytest.mark.parametrize(
    "issuer",
    [
        "http://issuer.example.org",
        "https://",
        "https://user@issuer.example.org",
        "https://issuer.example.org?x=1",
        "https://issuer.example.org#x",
        "https://issuer.example.org:port",
        "https://[::1",
        "ftp://issuer.example.org",
        "issuer",
        "https://ledger.example.org",
    ],
)
async def test_what_can_be_no_issuer(here: Replica, issuer: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await here.providers.create(ADMIN, "x", issuer, "app")
    assert [field.field for field in refused.value.fields] == ["issuer"]


async def test_an_issuer_without_keys_is_refused(here: Replica) -> None:
    with pytest.raises(FailedPrecondition, match="ISSUER_REFUSED"):
        await here.providers.create(ADMIN, "x", "https://down.example.org", "app")


async def test_a_tenant_lists_and_drops_its_own(here: Replica) -> None:
    for number in range(9):
        await here.providers.create(ADMIN, "x", ISSUER, f"app-{number}")
    with pytest.raises(ResourceExhausted, match="TOO_MANY_ISSUERS"):
        await here.providers.create(ADMIN, "x", ISSUER, "one more")
    first, token = await here.providers.list(ADMIN, 6, "")
    rest, end = await here.providers.list(ADMIN, 6, token)
    assert (len(first), len(rest), end) == (6, 4, "")
    assert len({provider.audience for provider in (*first, *rest)}) == 10
    stranger = Caller("other", "x", SCOPES)
    assert await here.providers.list(stranger, 0, "") == ([], "")
    with pytest.raises(NotFound, match="ISSUER_NOT_FOUND"):
        await here.providers.delete(stranger, first[0].provider_id)
    await here.providers.delete(ADMIN, first[0].provider_id)
    with pytest.raises(NotFound, match="ISSUER_NOT_FOUND"):
        await here.providers.delete(ADMIN, first[0].provider_id)


async def test_who_adds_an_issuer_could_have_been_any_user(here: Replica) -> None:
    weaker = Caller("acme", "apiKeys/weaker", frozenset({"tenants.admin"}))
    with pytest.raises(PermissionDenied, match="SCOPE_NOT_GRANTABLE"):
        await here.providers.create(weaker, "mine", ISSUER, "my-app")
    with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
        await here.providers.create(ADMIN, "mine", ISSUER, "my-app", within="sessions/x")
