"""Signed requests: the vectors of RFC 9421, and everything that a signature may lack."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pagemesh_cli.request_signing import RequestSigner
from services.ledger.domain.gate import Request
from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.request_signatures import Message, read_signature
from services.ledger.domain.values import Caller
from services.runtime.errors import FailedPrecondition, NotFound, PermissionDenied
from tests.unit.ledger.credentials import SCOPES, Replica, Shared, open_replica
from tests.unit.ledger.samples import NOW

ADMIN = Caller("acme", "apiKeys/admin", SCOPES)
PATH = "/v1/documents?page_size=3"
NONCE = "n" * 16

# RFC 9421, appendices B.1.4 (the key) and B.2.6 (the request and its signature).
RFC_KEY = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
"""
RFC_INPUT = (
    'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
RFC_SIGNATURE = "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"
RFC_FIELDS = {
    "date": "Tue, 20 Apr 2021 02:07:55 GMT",
    "content-type": "application/json",
    "content-length": "18",
    "signature-input": RFC_INPUT,
    "signature": RFC_SIGNATURE,
}


def rfc_key() -> Ed25519PublicKey:
    key = serialization.load_pem_public_key(RFC_KEY)
    assert isinstance(key, Ed25519PublicKey)
    return key


def test_the_vector_of_the_rfc() -> None:
    message = Message("POST", "example.com", "/foo?param=Value&Pet=dog", RFC_FIELDS)
    signature = read_signature(RFC_FIELDS)
    assert signature is not None
    assert (signature.created, signature.keyid) == (1618884473, "test-key-ed25519")
    assert signature.base(message) == (
        b'"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
        b'"@method": POST\n'
        b'"@path": /foo\n'
        b'"@authority": example.com\n'
        b'"content-type": application/json\n'
        b'"content-length": 18\n'
        b'"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length")'
        b';created=1618884473;keyid="test-key-ed25519"'
    )
    assert signature.fits(message, rfc_key())
    assert signature.fits(Message("POST", "EXAMPLE.com", "/foo", RFC_FIELDS), rfc_key())
    for wrong in (
        Message("GET", "example.com", "/foo", RFC_FIELDS),
        Message("POST", "example.org", "/foo", RFC_FIELDS),
        Message("POST", "example.com", "/bar", RFC_FIELDS),
        Message("POST", "example.com", "/foo", {**RFC_FIELDS, "content-length": "19"}),
        Message("POST", "example.com", "/foo", {k: v for k, v in RFC_FIELDS.items() if k != "date"}),
    ):
        assert not signature.fits(wrong, rfc_key())
    assert not signature.fits(message, Ed25519PrivateKey.generate().public_key())


def test_the_query_of_the_rfc() -> None:
    """RFC 9421, section 2.2.7."""
    fields = {"signature-input": 'sig=("@query")', "signature": RFC_SIGNATURE.replace("sig-b26", "sig")}
    signature = read_signature(fields)
    assert signature is not None
    for path, value in (
        ("/path?param=value&foo=bar&baz=batman", b"?param=value&foo=bar&baz=batman"),
        ("/path?queryString", b"?queryString"),
        ("/path?", b"?"),
        ("/path", b"?"),
    ):
        base = signature.base(Message("GET", "www.example.com", path, {}))
        assert base is not None
        assert base.splitlines()[0] == b'"@query": ' + value


@pytest.mark.parametrize(
    ("told", "value"),
    [
        ("", ""),
        (RFC_INPUT, ""),
        ("", RFC_SIGNATURE),
        (RFC_INPUT + ", " + RFC_INPUT.replace("b26", "b27"), RFC_SIGNATURE),
        (RFC_INPUT, RFC_SIGNATURE + ", " + RFC_SIGNATURE.replace("b26", "b27")),
        (RFC_INPUT, RFC_SIGNATURE.replace("b26", "b27")),
        (RFC_INPUT, "sig-b26=:AAAA:"),
        (RFC_INPUT, "sig-b26=:" + "A" * 87 + "!:"),
        (RFC_INPUT, RFC_SIGNATURE[:-1]),
        (RFC_INPUT.replace('("date" ', '("date"  '), RFC_SIGNATURE),
        (RFC_INPUT.replace('"date"', "date"), RFC_SIGNATURE),
        (RFC_INPUT.replace('"date"', '"date";sf'), RFC_SIGNATURE),
        (RFC_INPUT.replace('"date"', '"@method"'), RFC_SIGNATURE),
        (RFC_INPUT + ";created=1", RFC_SIGNATURE),
        (RFC_INPUT + ";unknown=1", RFC_SIGNATURE),
        (RFC_INPUT.replace("1618884473", '"1618884473"'), RFC_SIGNATURE),
        (RFC_INPUT.replace("1618884473", "-1"), RFC_SIGNATURE),
        (RFC_INPUT.replace("1618884473", "1" * 16), RFC_SIGNATURE),
        (RFC_INPUT + ";alg=ed25519", RFC_SIGNATURE),
        (RFC_INPUT + ";nonce=7", RFC_SIGNATURE),
        (RFC_INPUT + ';nonce="a\\"b"', RFC_SIGNATURE),
        (RFC_INPUT + "\n", RFC_SIGNATURE),
        (RFC_INPUT + ";" + "a" * 3000, RFC_SIGNATURE),
    ],
    ids=range(23),
)
def test_what_is_written_otherwise_has_no_form(told: str, value: str) -> None:
    assert read_signature({"signature-input": told, "signature": value}) is None


@dataclass
class Signed:
    """An API key that demands signatures, and what signs for it."""

    replica: Replica
    credential: str
    key_name: str
    private: Ed25519PrivateKey

    @property
    def now_s(self) -> float:
        return self.replica.shared.clock.now.timestamp()

    def headers(self, *, nonce: str = "", key_name: str = "", ahead_s: float = 0, **message: str) -> dict[str, str]:
        signer = RequestSigner(self.private, key_name or self.key_name, clock=lambda: self.now_s + ahead_s, nonce=nonce)
        method, authority = message.get("method", "GET"), message.get("authority", "localhost:8443")
        digest = message.get("content_digest", "")
        return signer.headers(method, authority, message.get("path", PATH), content_digest=digest)

    def raw(self, params: str, lines: list[str]) -> dict[str, str]:
        """A signature over exactly these lines, whatever they are."""
        base = "\n".join([*lines, f'"@signature-params": {params}'])
        value = base64.b64encode(self.private.sign(base.encode())).decode()
        return {"signature-input": f"sig={params}", "signature": f"sig=:{value}:"}

    async def send(
        self, fields: Mapping[str, str], *, method: str = "GET", host: str = "localhost", path: str = PATH
    ) -> Principal | Denial:
        message = Message(method, host, path, fields)
        return await self.replica.gate.admit(Request(self.credential, message, 8443))


async def demanding(replica: Replica) -> Signed:
    key, credential = await replica.ring.create(Caller("acme", "bootstrap", SCOPES), "robot", SCOPES, None)
    private = Ed25519PrivateKey.generate()
    await replica.request_keys.set(ADMIN, key.key_id, private.public_key().public_bytes_raw())
    replica.signatures.changed("requestKeys", key.key_id)
    return Signed(replica, credential, key.name, private)


@pytest.fixture
async def signed() -> Signed:
    return await demanding(await open_replica(Shared()))


async def test_a_signed_request_passes_once_whichever_replica_sees_it(signed: Signed) -> None:
    fields = signed.headers()
    assert isinstance(await signed.send(fields), Principal)
    assert await signed.send(fields) is Denial.SIGNATURE_REPLAYED
    there = await open_replica(signed.replica.shared)
    other = Signed(there, signed.credential, signed.key_name, signed.private)
    assert await other.send(fields) is Denial.SIGNATURE_REPLAYED
    assert isinstance(await other.send(signed.headers()), Principal)


async def test_a_nonce_is_a_keys_own(signed: Signed) -> None:
    other = await demanding(signed.replica)
    for who in (signed, other):
        assert isinstance(await who.send(who.headers(nonce=NONCE)), Principal)
        assert await who.send(who.headers(nonce=NONCE)) is Denial.SIGNATURE_REPLAYED


async def test_the_port_may_be_signed_or_not(signed: Signed) -> None:
    assert isinstance(await signed.send(signed.headers(authority="localhost")), Principal)
    assert isinstance(await signed.send(signed.headers(authority="LOCALHOST:8443")), Principal)
    assert await signed.send(signed.headers(authority="localhost:443")) is Denial.SIGNATURE_WRONG
    assert await signed.send(signed.headers(authority="elsewhere")) is Denial.SIGNATURE_WRONG


async def test_a_key_that_demands_nothing_passes_unsigned(signed: Signed) -> None:
    _, credential = await signed.replica.ring.create(Caller("acme", "bootstrap", SCOPES), "robot", SCOPES, None)
    assert isinstance(await signed.replica.admit(credential), Principal)


async def test_unsigned_is_refused_for_the_key_and_for_its_sessions(signed: Signed) -> None:
    assert await signed.send({}) is Denial.REQUEST_UNSIGNED
    _, token = await signed.replica.sessions.exchange(Caller("acme", signed.key_name, SCOPES), frozenset())
    session = Signed(signed.replica, token, signed.key_name, signed.private)
    assert await session.send({}) is Denial.REQUEST_UNSIGNED
    assert isinstance(await session.send(session.headers()), Principal)
    wrong = Signed(signed.replica, signed.credential[:-1] + "~", signed.key_name, signed.private)
    assert await wrong.send({}) is Denial.MALFORMED, "only who has the key hears of signatures"


async def test_half_a_signature_is_none(signed: Signed) -> None:
    fields = signed.headers()
    for name in fields:
        assert await signed.send({name: fields[name]}) is Denial.SIGNATURE_MALFORMED


async def test_a_signature_is_for_one_request(signed: Signed) -> None:
    assert await signed.send(signed.headers(), method="DELETE") is Denial.SIGNATURE_WRONG
    assert await signed.send(signed.headers(), path="/v1/documents?page_size=4") is Denial.SIGNATURE_WRONG
    assert await signed.send(signed.headers(), path="/v1/keys?page_size=3") is Denial.SIGNATURE_WRONG
    assert await signed.send(signed.headers(), host="other") is Denial.SIGNATURE_WRONG
    stranger = Signed(signed.replica, signed.credential, signed.key_name, Ed25519PrivateKey.generate())
    assert await stranger.send(stranger.headers()) is Denial.SIGNATURE_WRONG


async def test_a_wrong_signature_uses_no_nonce(signed: Signed) -> None:
    stranger = Signed(signed.replica, signed.credential, signed.key_name, Ed25519PrivateKey.generate())
    assert await stranger.send(stranger.headers(nonce=NONCE)) is Denial.SIGNATURE_WRONG
    assert isinstance(await signed.send(signed.headers(nonce=NONCE)), Principal)


@pytest.mark.parametrize(
    ("ahead_s", "passes"), [(-300, True), (-301, False), (60, True), (61, False), (-(10**9), False), (10**9, False)]
)
async def test_a_signature_is_of_now(signed: Signed, ahead_s: int, passes: bool) -> None:
    found = await signed.send(signed.headers(ahead_s=ahead_s))
    assert isinstance(found, Principal) if passes else found is Denial.SIGNATURE_EXPIRED


async def test_a_nonce_is_forgotten_only_when_its_signature_is_too_old(signed: Signed) -> None:
    fields = signed.headers(ahead_s=60)
    assert isinstance(await signed.send(fields), Principal)
    signed.replica.pass_time(seconds=360)
    assert await signed.replica.shared.request_keys.forget(10) == 0
    assert await signed.send(fields) is Denial.SIGNATURE_REPLAYED
    signed.replica.pass_time(seconds=60)
    assert await signed.replica.shared.request_keys.forget(10) == 1
    assert await signed.send(fields) is Denial.SIGNATURE_EXPIRED


def lines() -> Iterator[tuple[str, str]]:
    yield "@method", "GET"
    yield "@authority", "localhost"
    yield "@path", "/v1/documents"
    yield "@query", "?page_size=3"


@pytest.mark.parametrize("lacking", [name for name, _ in lines()])
async def test_a_signature_covers_the_whole_request(signed: Signed, lacking: str) -> None:
    covered = {name: value for name, value in lines() if name != lacking}
    names = " ".join(f'"{name}"' for name in covered)
    params = f'({names});created={int(signed.now_s)};keyid="{signed.key_name}";nonce="{NONCE}"'
    fields = signed.raw(params, [f'"{name}": {value}' for name, value in covered.items()])
    assert await signed.send(fields) is Denial.SIGNATURE_INCOMPLETE


@pytest.mark.parametrize(
    "rest",
    [
        ';keyid="{key}";nonce="{nonce}"',
        ';created={now};nonce="{nonce}"',
        ';created={now};keyid="{key}"',
        ';created={now};keyid="{key}";nonce="short"',
        ';created={now};keyid="apiKeys/0000000000000000";nonce="{nonce}"',
        ';created={now};keyid="{key}";nonce="{nonce}";alg="hmac-sha256"',
        ';created={now};keyid="{key}";nonce="{nonce}";alg="rsa-pss-sha512"',
    ],
)
async def test_a_signature_says_whose_it_is_when_it_was_made_and_its_nonce(signed: Signed, rest: str) -> None:
    names = " ".join(f'"{name}"' for name, _ in lines())
    told = rest.format(key=signed.key_name, nonce=NONCE, now=int(signed.now_s))
    fields = signed.raw(f"({names}){told}", [f'"{name}": {value}' for name, value in lines()])
    assert await signed.send(fields) is Denial.SIGNATURE_MALFORMED


async def test_expires_is_kept_to(signed: Signed) -> None:
    names = " ".join(f'"{name}"' for name, _ in lines())
    for left_s, passes in ((1, True), (0, False)):
        now = int(signed.now_s)
        told = f';created={now};expires={now + left_s};keyid="{signed.key_name}";nonce="{NONCE}{left_s}";tag="x"'
        fields = signed.raw(f"({names}){told}", [f'"{name}": {value}' for name, value in lines()])
        assert isinstance(await signed.send(fields), Principal) is passes


async def test_the_digest_of_a_body_is_covered(signed: Signed) -> None:
    path, digest = "/v1/apiKeys", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    fields = signed.headers(method="POST", path=path)
    body = {"content-type": "application/json", "content-length": "18"}
    assert await signed.send({**fields, **body}, method="POST", path=path) is Denial.SIGNATURE_INCOMPLETE
    with_digest = {**fields, **body, "content-digest": digest}
    assert await signed.send(with_digest, method="POST", path=path) is Denial.SIGNATURE_INCOMPLETE
    fields = signed.headers(method="POST", path=path, content_digest=digest)
    swapped = {**fields, **body, "content-digest": digest.replace("X48", "X49")}
    assert await signed.send(swapped, method="POST", path=path) is Denial.SIGNATURE_WRONG
    assert isinstance(await signed.send({**fields, **body}, method="POST", path=path), Principal)


async def test_calls_without_a_digest(signed: Signed) -> None:
    path = "/pagemesh.ledger.v1.IdentityService/WhoAmI"
    fields = {**signed.headers(method="POST", path=path), "content-type": "application/grpc+proto"}
    assert isinstance(await signed.send(fields, method="POST", path=path), Principal)
    path = "/v1/sessions/x:revoke"
    fields = {**signed.headers(method="POST", path=path), "content-length": "0"}
    assert isinstance(await signed.send(fields, method="POST", path=path), Principal)
    fields = signed.headers(method="POST", path=path)
    assert await signed.send(fields, method="POST", path=path) is Denial.SIGNATURE_INCOMPLETE, "chunked, perhaps"


async def test_what_a_key_demands_counts_when_it_is_told(signed: Signed) -> None:
    key_id = signed.key_name.removeprefix("apiKeys/")
    with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
        await signed.replica.request_keys.set(Caller("other", "x", SCOPES), key_id, b"")
    with pytest.raises(NotFound, match="KEY_NOT_FOUND"):
        await signed.replica.request_keys.set(ADMIN, "0" * 16, b"")
    assert await signed.send({}) is Denial.REQUEST_UNSIGNED
    await signed.replica.request_keys.set(ADMIN, key_id, b"")
    signed.replica.signatures.changed("requestKeys", key_id)
    assert isinstance(await signed.send({}), Principal)
    another = Ed25519PrivateKey.generate()
    await signed.replica.request_keys.set(ADMIN, key_id, another.public_key().public_bytes_raw())
    signed.replica.ticks.now_s += 0.9  # it hears of nothing
    assert await signed.send(signed.headers()) is Denial.SIGNATURE_WRONG
    renewed = Signed(signed.replica, signed.credential, signed.key_name, another)
    assert isinstance(await renewed.send(renewed.headers()), Principal)


def test_the_clock_of_these_tests_is_in_whole_seconds() -> None:
    assert NOW.microsecond == 0


async def test_who_decides_what_a_key_demands_could_have_made_it(signed: Signed) -> None:
    key_id = signed.key_name.removeprefix("apiKeys/")
    weaker = Caller("acme", "apiKeys/weaker", frozenset({"keys.admin"}))
    with pytest.raises(PermissionDenied, match="SCOPE_NOT_GRANTABLE"):
        await signed.replica.request_keys.set(weaker, key_id, b"")
    with pytest.raises(FailedPrecondition, match="KEY_NEEDED"):
        await signed.replica.request_keys.set(ADMIN, key_id, b"", within="sessions/x")
