"""Tokens of a real issuer over HTTPS, with two replicas of the ledger."""

import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import psycopg
import pytest

from pagemesh.ledger.v1 import browser_session_service_pb2 as browser_pb2
from pagemesh.ledger.v1 import browser_session_service_pb2_grpc as browser_pb2_grpc
from pagemesh.ledger.v1 import credential_service_pb2 as pb
from pagemesh.ledger.v1.credential_service_pb2_grpc import CredentialServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.ledger.domain.roles import Role
from tests.fakes.oidc_issuer import Issuer, running_issuer
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess, Peer, eventually, refused
from tests.integration.ledger.test_access import check, denied, passes
from xdsapi.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

Code = grpc.StatusCode
SCOPES = " ".join(sorted(Role.ADMIN.scopes))
USER = "u" * 16


@pytest.fixture(scope="module")
def issuer(session_dir: Path) -> Iterator[tuple[Issuer, Path]]:
    directory = session_dir / f"issuer-{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    with running_issuer(directory) as running:
        yield running


@pytest.fixture(scope="module")
def replicas(
    ledger_dsn: str, mesh_pki: CertificateAuthority, session_dir: Path, issuer: tuple[Issuer, Path]
) -> Iterator[list[LedgerProcess]]:
    settings = {"PAGEMESH_OIDC_PRIVATE_ADDRESSES": "true", "PAGEMESH_OIDC_CA_FILE": str(issuer[1])}
    started = [LedgerProcess(ledger_dsn, mesh_pki, session_dir / f"ledger-oidc{n}.log", **settings) for n in range(2)]
    for process in started:
        process.start()
    yield started
    for process in started:
        process.stop()


async def believe(peer: Peer, issuer: str, audience: str) -> str:
    request = pb.CreateIdentityProviderRequest(display_name="ours", issuer=issuer, audience=audience)
    answer = await peer.call(CredentialServiceStub(peer.edge).CreateIdentityProvider, request)
    return str(answer.identity_provider.name)


def add_user(dsn: str, tenant: str, email: str, role: str) -> None:
    with psycopg.connect(dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
        database.execute(
            "INSERT INTO ledger.users (tenant, id, email, display_name, role, create_time, update_time)"
            " VALUES (%s, %s, %s, 'x', %s, now(), now())",
            (tenant, USER, email, role),
        )


def change_user(dsn: str, tenant: str, change: str) -> None:
    with psycopg.connect(dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))
        database.execute(f"UPDATE ledger.users SET {change} WHERE tenant = %s".encode(), (tenant,))


async def told(edge: Peer, token: str) -> dict[str, str]:
    return headers_of(await check(edge, authorization=f"Bearer {token}"))


def headers_of(answer: CheckResponse) -> dict[str, str]:
    options = (*answer.ok_response.headers, *answer.denied_response.headers)
    return {option.header.key: option.header.value for option in options}


async def sign_in(process: LedgerProcess, connect: Connect, tenant: str, provider: str) -> str:
    """The cookie of a browser that the user signs in with the token of that provider."""
    user = connect(process, "edge", tenant, actor=f"users/{USER}")
    stub = browser_pb2_grpc.BrowserSessionServiceStub(user.edge)
    metadata = (*user.metadata, ("x-pagemesh-provider", provider.removeprefix("identityProviders/")))
    call = stub.CreateBrowserSession(
        browser_pb2.CreateBrowserSessionRequest(scopes=["usage.read"]), timeout=10, metadata=metadata
    )
    return str(dict(await call.initial_metadata())["set-cookie"]).partition(";")[0]


def turned_away(edge: Peer, token: str) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return denied(await check(edge, authorization=f"Bearer {token}"))

    return condition


async def test_a_user_logs_in_with_the_tenants_issuer_until_somebody_ends_it(
    replicas: list[LedgerProcess], connect: Connect, admit: Admit, ledger_dsn: str, issuer: tuple[Issuer, Path]
) -> None:
    signer, tenant, other = issuer[0].signer, await admit(), await admit()
    admin = connect(replicas[0], "edge", tenant.name, scopes=SCOPES)
    edges = [connect(process, "edge", "") for process in replicas]
    email, audience = f"ann@{tenant.name}.org", f"app-{tenant.name}"
    token = signer.token(email, aud=audience)
    assert not await passes(edges[0], token), "nobody believes the issuer yet"
    name = await believe(admin, signer.issuer, audience)
    assert not await passes(edges[0], token), "there is no such user yet"
    add_user(ledger_dsn, tenant.name, email, "member")
    for edge in edges:
        headers = await told(edge, token)
        del headers["x-pagemesh-client"]
        assert headers == {
            "x-pagemesh-tenant": tenant.name,
            "x-pagemesh-actor": f"users/{USER}",
            "x-pagemesh-project": "",
            "x-pagemesh-scopes": " ".join(sorted(Role.MEMBER.scopes)),
            "x-pagemesh-session": "",
            "x-pagemesh-certificate": "",
            "x-pagemesh-provider": name.removeprefix("identityProviders/"),
        }
        assert not await passes(edge, signer.token(email, aud="another-app"))
    cookie = await sign_in(replicas[0], connect, tenant.name, name)
    for edge in edges:
        browser = await check(edge, cookie=cookie)
        assert {"x-pagemesh-actor": f"users/{USER}"}.items() <= headers_of(browser).items()

    change_user(ledger_dsn, tenant.name, "role = 'auditor'")
    for edge in edges:

        async def demoted(edge: Peer = edge) -> bool:
            return (await told(edge, token))["x-pagemesh-scopes"] == " ".join(sorted(Role.AUDITOR.scopes))

        await eventually(demoted)
    change_user(ledger_dsn, tenant.name, "active = false")
    for edge in edges:
        await eventually(turned_away(edge, token))
        assert not (await check(edge, cookie=cookie)).HasField("ok_response")
    change_user(ledger_dsn, tenant.name, "active = true")
    for edge in edges:
        assert await passes(edge, token)

    stranger = connect(replicas[0], "edge", other.name, scopes=SCOPES)
    delete = pb.DeleteIdentityProviderRequest(name=name)
    async with refused(Code.NOT_FOUND, "ISSUER_NOT_FOUND"):
        await stranger.call(CredentialServiceStub(stranger.edge).DeleteIdentityProvider, delete)
    async with refused(Code.ALREADY_EXISTS, "ISSUER_IN_USE"):
        await believe(stranger, signer.issuer, audience)
    stub = CredentialServiceStub(admin.edge)
    listed = await admin.call(stub.ListIdentityProviders, pb.ListIdentityProvidersRequest())
    assert [provider.name for provider in listed.identity_providers] == [name]
    for edge in edges:

        async def back(edge: Peer = edge) -> bool:
            return (await check(edge, cookie=cookie)).HasField("ok_response")

        await eventually(back)
    await admin.call(stub.DeleteIdentityProvider, delete)
    for edge in edges:
        await eventually(turned_away(edge, token))

        async def forgotten(edge: Peer = edge) -> bool:
            return "set-cookie" in headers_of(await check(edge, cookie=cookie))

        await eventually(forgotten)


async def test_the_issuers_keys_rotate_and_made_up_ones_do_not_trouble_it(
    replicas: list[LedgerProcess], connect: Connect, admit: Admit, ledger_dsn: str, issuer: tuple[Issuer, Path]
) -> None:
    server, tenant = issuer[0], await admit()
    signer = server.signer
    admin, edge = connect(replicas[0], "edge", tenant.name, scopes=SCOPES), connect(replicas[0], "edge", "")
    audience = f"app-{tenant.name}"
    add_user(ledger_dsn, tenant.name, "ann@example.org", "admin")
    signer.rotate("RS256")
    await believe(admin, signer.issuer, audience)
    assert await passes(edge, signer.token("ann@example.org", aud=audience))
    server.asked.clear()
    kid = signer.kid
    for number in range(20):
        signer.kid = f"made-up-{number}"
        assert not await passes(edge, signer.token("ann@example.org", aud=audience))
    signer.kid = kid
    assert server.asked == [], "it was asked a moment ago"
    assert await passes(edge, signer.token("ann@example.org", aud=audience))


async def test_an_issuer_that_cannot_be_reached_lets_nobody_in(
    replicas: list[LedgerProcess], connect: Connect, admit: Admit, ledger_dsn: str, issuer: tuple[Issuer, Path]
) -> None:
    """The first replica knows the keys; the second never had them."""
    server, tenant = issuer[0], await admit()
    signer, audience = server.signer, f"app-{tenant.name}"
    first, second = (connect(process, "edge", "") for process in replicas)
    add_user(ledger_dsn, tenant.name, "ann@example.org", "admin")
    # A path of its own, so that no replica knows it from other tests.
    signer.issuer = f"{server.url}/down"
    server.answers["/down/.well-known/openid-configuration"] = (
        200,
        {},
        f'{{"issuer": "{signer.issuer}", "jwks_uri": "{server.url}/keys"}}'.encode(),
    )
    await believe(connect(replicas[0], "edge", tenant.name, scopes=SCOPES), signer.issuer, audience)
    token = signer.token("ann@example.org", aud=audience)
    server.answers["/down/.well-known/openid-configuration"] = (503, {}, b"")
    try:
        assert await passes(first, token)
        async with refused(Code.UNAVAILABLE, "ISSUER_UNREACHABLE"):
            await passes(second, token)
        async with refused(Code.FAILED_PRECONDITION, "ISSUER_REFUSED"):
            await believe(connect(replicas[1], "edge", tenant.name, scopes=SCOPES), signer.issuer, "x")
    finally:
        server.answers.clear()
        signer.issuer = server.url


async def test_private_addresses_are_refused_unless_set_otherwise(
    service: LedgerProcess, connect: Connect, admit: Admit, issuer: tuple[Issuer, Path]
) -> None:
    issuer[0].asked.clear()
    admin = connect(service, "edge", (await admit()).name, scopes=SCOPES)
    async with refused(Code.FAILED_PRECONDITION, "ISSUER_REFUSED"):
        await believe(admin, issuer[0].url, "app")
    assert issuer[0].asked == []
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as fields:
        await believe(admin, "http://localhost", "app")
    assert fields.fields == ["issuer"]
    poor = connect(service, "edge", "x", scopes="keys.admin")
    async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
        await believe(poor, issuer[0].url, "app")
