"""Sessions over real mTLS and real Postgres, with two replicas, restarts and keys that rotate under them."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pagemesh.ledger.v1 import credential_service_pb2 as pb
from pagemesh.ledger.v1 import identity_service_pb2
from pagemesh.ledger.v1.credential_service_pb2_grpc import CredentialServiceStub
from pagemesh_cli.request_signing import RequestSigner
from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.conftest import Databases
from tests.integration.ledger.conftest import (
    Admit,
    Connect,
    LedgerProcess,
    Peer,
    Tenant,
    environment,
    eventually,
    refused,
    run_command,
)
from tests.integration.ledger.test_access import check, denied, passes
from xdsapi.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def replica(ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path) -> Iterator[LedgerProcess]:
    process = LedgerProcess(ledger_dsn, mesh_pki, session_dir / "ledger-replica.log")
    process.start()
    yield process
    process.stop()


def as_key(connect: Connect, service: LedgerProcess, tenant: Tenant) -> Peer:
    return connect(service, "edge", tenant.name, actor=tenant.api_key)


async def exchange(peer: Peer, *scopes: str) -> pb.ExchangeTokenResponse:
    stub = CredentialServiceStub(peer.edge)
    answer: pb.ExchangeTokenResponse = await peer.call(stub.ExchangeToken, pb.ExchangeTokenRequest(scopes=scopes))
    return answer


async def revoke(peer: Peer, name: str) -> None:
    await peer.call(CredentialServiceStub(peer.edge).RevokeSession, pb.RevokeSessionRequest(name=name))


async def test_a_session_is_let_in_as_its_key(
    service: LedgerProcess, replica: LedgerProcess, connect: Connect, admit: Admit
) -> None:
    tenant = await admit()
    made = await exchange(as_key(connect, service, tenant), "usage.read")
    assert (made.token_type, made.expires_in) == ("Bearer", 1800)
    assert made.issued_token_type == "urn:ietf:params:oauth:token-type:jwt"
    assert made.session.api_key == tenant.api_key
    for where in (service, replica):
        answer = await check(connect(where, "edge", ""), authorization=f"Bearer {made.access_token}")
        told = {option.header.key: option.header.value for option in answer.ok_response.headers}
        assert len(told.pop("x-pagemesh-client")) == 32
        assert told == {
            "x-pagemesh-tenant": tenant.name,
            "x-pagemesh-actor": tenant.api_key,
            "x-pagemesh-project": "",
            "x-pagemesh-scopes": "usage.read",
            "x-pagemesh-session": made.session.name,
            "x-pagemesh-certificate": "",
        }


async def test_the_public_keys_check_a_session(service: LedgerProcess, connect: Connect, admit: Admit) -> None:
    tenant = await admit()
    peer = as_key(connect, service, tenant)
    made = await exchange(peer)
    # Nobody is named: it is for everybody.
    keys = await CredentialServiceStub(peer.edge).GetJsonWebKeySet(pb.GetJsonWebKeySetRequest(), timeout=10)
    kid = jwt.get_unverified_header(made.access_token)["kid"]
    (key,) = [k for k in keys.keys if k.kid == kid]
    public = jwt.PyJWK({"kty": key.kty, "crv": key.crv, "x": key.x, "alg": key.alg})
    claims = jwt.decode(made.access_token, public, algorithms=["EdDSA"], audience="pagemesh", issuer="pagemesh")
    assert claims["sub"] == tenant.api_key
    stranger = connect(service, "summarizer", tenant.name)
    async with refused(Code.PERMISSION_DENIED, "METHOD_NOT_ALLOWED"):
        await stranger.call(CredentialServiceStub(stranger.channel).GetJsonWebKeySet, pb.GetJsonWebKeySetRequest())


async def test_an_ended_session_is_out_everywhere(
    service: LedgerProcess, replica: LedgerProcess, connect: Connect, admit: Admit
) -> None:
    tenant = await admit()
    peer = as_key(connect, service, tenant)
    made, other = await exchange(peer), await exchange(peer)
    edges = [connect(where, "edge", "") for where in (service, replica)]
    for edge in edges:
        assert await passes(edge, made.access_token)
        assert await passes(edge, other.access_token)
    await revoke(peer, made.session.name)
    for edge in edges:

        async def turned_away(edge: Peer = edge) -> bool:
            return denied(await check(edge, authorization=f"Bearer {made.access_token}"))

        # Both remember it for 30 s: only the notice can end it earlier.
        await eventually(turned_away, within_s=20)
        assert await passes(edge, other.access_token)
    await revoke(peer, made.session.name)


async def test_the_end_of_the_key_is_the_end_of_its_sessions(
    service: LedgerProcess, replica: LedgerProcess, connect: Connect, admit: Admit
) -> None:
    tenant = await admit()
    peer = as_key(connect, service, tenant)
    made = await exchange(peer)
    edges = [connect(where, "edge", "") for where in (service, replica)]
    for edge in edges:
        assert await passes(edge, made.access_token)
    await peer.call(peer.identity.RevokeApiKey, identity_service_pb2.RevokeApiKeyRequest(name=tenant.api_key))
    for edge in edges:

        async def turned_away(edge: Peer = edge) -> bool:
            return denied(await check(edge, authorization=f"Bearer {made.access_token}"))

        await eventually(turned_away, within_s=20)


async def test_a_switched_off_tenant_has_no_sessions(
    service: LedgerProcess, connect: Connect, admit: Admit, ledger_dsn: str
) -> None:
    tenant = await admit()
    made = await exchange(as_key(connect, service, tenant))
    edge = connect(service, "edge", "")
    assert await passes(edge, made.access_token)
    with psycopg.connect(ledger_dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant.name,))
        database.execute("UPDATE ledger.tenants SET active = false WHERE id = %s", (tenant.name,))

    async def turned_away() -> bool:
        return not await passes(edge, made.access_token)

    await eventually(turned_away, within_s=20)


async def test_who_may_not(service: LedgerProcess, connect: Connect, admit: Admit) -> None:
    mine, theirs = await admit(), await admit()
    made = await exchange(as_key(connect, service, mine))
    async with refused(Code.NOT_FOUND, "SESSION_NOT_FOUND"):
        await revoke(as_key(connect, service, theirs), made.session.name)
    reader = connect(service, "edge", mine.name, actor="apiKeys/" + "r" * 16, scopes="usage.read")
    async with refused(Code.NOT_FOUND, "SESSION_NOT_FOUND"):
        await revoke(reader, made.session.name)
    async with refused(Code.FAILED_PRECONDITION, "KEY_NEEDED"):
        await exchange(connect(service, "edge", mine.name, actor="users/" + "u" * 16))
    async with refused(Code.PERMISSION_DENIED, "SCOPE_NOT_GRANTABLE"):
        await exchange(connect(service, "edge", mine.name, actor=mine.api_key, scopes="usage.read"), "keys.admin")
    peer = as_key(connect, service, mine)
    within = (
        ("x-pagemesh-tenant", mine.name),
        ("x-pagemesh-actor", mine.api_key),
        ("x-pagemesh-scopes", "usage.read"),
        ("x-pagemesh-session", made.session.name),
    )
    async with refused(Code.FAILED_PRECONDITION, "KEY_NEEDED"):
        await CredentialServiceStub(peer.edge).ExchangeToken(pb.ExchangeTokenRequest(), metadata=within, timeout=10)
    assert await passes(connect(service, "edge", ""), made.access_token)


Alone = Callable[..., Awaitable[tuple[list[LedgerProcess], Tenant]]]


@pytest.fixture
async def alone(postgres_server: Databases, mesh_pki: CertificateAuthority, session_dir: Path) -> AsyncIterator[Alone]:
    """`await alone(2, PAGEMESH_…="…")`: replicas with a database and settings of their own, and a tenant."""
    started: list[LedgerProcess] = []
    name = postgres_server.create("ledger")
    dsn = postgres_server.dsn("ledger", name)

    async def start(replicas: int, **settings: str) -> tuple[list[LedgerProcess], Tenant]:
        for number in range(replicas):
            started.append(LedgerProcess(dsn, mesh_pki, session_dir / f"ledger-{name}-{number}.log", **settings))
            started[-1].start()
        _, output = await run_command(["bootstrap", "--tenant", "acme"], environment(dsn))
        told = json.loads(output)
        return started, Tenant(told["tenant"], told["api_key"], told["secret"])

    yield start
    for process in started:
        process.stop()
    postgres_server.drop(name)


async def test_a_restart_ends_no_session(alone: Alone, connect: Connect) -> None:
    (process,), tenant = await alone(1)
    made = await exchange(as_key(connect, process, tenant))
    process.kill()
    process.start()
    assert await passes(connect(process, "edge", ""), made.access_token)


async def test_tokens_live_while_keys_rotate(alone: Alone, connect: Connect) -> None:
    """Two replicas whose keys sign for two seconds: whoever signs, both believe."""
    replicas, tenant = await alone(2, PAGEMESH_SESSION_KEY_S="2")
    peers = [as_key(connect, process, tenant) for process in replicas]
    edges = [connect(process, "edge", "") for process in replicas]
    tokens: list[str] = []

    async def three_keys_have_signed() -> bool:
        for peer in peers:
            tokens.append((await exchange(peer)).access_token)
        for edge in edges:
            for token in tokens[-2:]:
                assert await passes(edge, token)
        return len({jwt.get_unverified_header(token)["kid"] for token in tokens}) >= 3

    await eventually(three_keys_have_signed, within_s=60)
    for edge in edges:
        assert await passes(edge, tokens[0])


async def test_no_private_key_and_no_token_is_anywhere(
    service: LedgerProcess, connect: Connect, admit: Admit, ledger_dsn: str, session_dir: Path
) -> None:
    tenant = await admit()
    made = await exchange(as_key(connect, service, tenant))
    assert await passes(connect(service, "edge", ""), made.access_token)
    signature = made.access_token.split(".")[2]
    for log in session_dir.glob("*.log"):
        assert signature not in log.read_text(errors="replace")
    with psycopg.connect(ledger_dsn) as database:
        rows = database.execute("SELECT sealed_private_key, public_key FROM ledger.signing_keys").fetchall()
    assert rows
    assert all(public not in sealed for sealed, public in rows)
    assert json.dumps(str(rows)).count(signature) == 0


async def test_a_signed_request_passes_at_one_replica_only(
    service: LedgerProcess, replica: LedgerProcess, connect: Connect, admit: Admit
) -> None:
    tenant, private = await admit(), Ed25519PrivateKey.generate()
    admin = as_key(connect, service, tenant)
    edges = [connect(where, "edge", "") for where in (service, replica)]
    for edge in edges:
        assert await passes(edge, tenant.secret)
    public = private.public_key().public_bytes_raw()
    request = pb.SetSigningKeyRequest(name=tenant.api_key, public_key=public)
    await admin.call(CredentialServiceStub(admin.edge).SetSigningKey, request)
    for edge in edges:

        async def demands(edge: Peer = edge) -> bool:
            return not await passes(edge, tenant.secret)

        await eventually(demands)
    signer = RequestSigner(private, tenant.api_key)

    async def send(edge: Peer, signed: dict[str, str]) -> int:
        asked = CheckRequest()
        http = asked.attributes.request.http
        http.method, http.host, http.path = "GET", "localhost", "/v1/usage?page_size=1"
        http.headers.update({"authorization": f"Bearer {tenant.secret}", **signed})
        answer = await edge.call(edge.authorization.Check, asked)
        return int(answer.denied_response.status.code)

    for first, second in (edges, edges[::-1]):
        signed = signer.headers("GET", "localhost", "/v1/usage?page_size=1")
        assert [await send(first, signed), await send(second, signed)] == [0, 403]
    assert await send(edges[0], {}) == 403
