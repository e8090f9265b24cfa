"""Envoy's Check, keys and what reflection shows, over real mTLS and real Postgres; with two replicas where needed."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import psycopg
import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.ledger.domain.clients import ClientHasher
from tests.integration.ledger.conftest import (
    ALL_SCOPES,
    PEPPER,
    Admit,
    Connect,
    LedgerProcess,
    Peer,
    credentials,
    eventually,
    refused,
)
from xdsapi.envoy.config.core.v3.base_pb2 import HeaderValueOption
from xdsapi.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

Code = grpc.StatusCode
ADDRESS = "203.0.113.77"
DENIED = "API key is missing, unknown, expired or revoked"


def check_request(**headers: str) -> CheckRequest:
    request = CheckRequest()
    request.attributes.request.http.method = "GET"
    request.attributes.source.address.socket_address.address = ADDRESS
    request.attributes.request.http.headers.update({name.replace("_", "-"): v for name, v in headers.items()})
    return request


async def check(edge: Peer, **headers: str) -> CheckResponse:
    answer: CheckResponse = await edge.call(edge.authorization.Check, check_request(**headers))
    return answer


async def passes(edge: Peer, credential: str) -> bool:
    return (await check(edge, authorization=f"Bearer {credential}")).HasField("ok_response")


def denied(answer: CheckResponse) -> bool:
    """Whether it is the one and only way in which a caller is turned away."""
    response = answer.denied_response
    headers = {option.header.key: option.header.value for option in response.headers}
    return (
        answer.status.code == 16
        and response.status.code == 401
        and response.body == DENIED
        and headers == {"www-authenticate": "Bearer", "content-type": "text/plain"}
        and not answer.HasField("dynamic_metadata")
    )


@pytest.fixture
def edge(service: LedgerProcess, connect: Connect) -> Peer:
    return connect(service, "edge", "")


@pytest.mark.parametrize("header", ["authorization", "x_api_key"])
async def test_a_key_is_told_as_headers_that_overwrite(edge: Peer, admit: Admit, header: str) -> None:
    tenant = await admit()
    value = f"bEaReR {tenant.secret}" if header == "authorization" else tenant.secret
    answer = await check(edge, **{header: value, "x_pagemesh_tenant": "somebody-else"})
    assert answer.status.code == 0
    assert not answer.HasField("denied_response")
    told = {option.header.key: option.header.value for option in answer.ok_response.headers}
    scopes = ALL_SCOPES.split()
    assert told == {
        "x-pagemesh-tenant": tenant.name,
        "x-pagemesh-actor": tenant.api_key,
        "x-pagemesh-project": "",
        "x-pagemesh-scopes": " ".join(scopes),
        "x-pagemesh-client": ClientHasher(PEPPER).hash(tenant.name, ADDRESS),
        "x-pagemesh-session": "",
        "x-pagemesh-certificate": "",
    }
    for option in answer.ok_response.headers:
        assert option.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert list(answer.ok_response.headers_to_remove) == ["authorization", "x-api-key", "cookie", "x-csrf-token"]
    metadata = json_format.MessageToDict(answer.dynamic_metadata)
    assert metadata == {"tenant": tenant.name, "actor": tenant.api_key, "project": "", "scopes": scopes}


async def test_everybody_else_is_denied_alike(
    service: LedgerProcess, edge: Peer, admit: Admit, connect: Connect
) -> None:
    tenant = await admit()
    admin = connect(service, "edge", tenant.name)
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(seconds=1))
    short = pb.CreateApiKeyRequest(display_name="short", scopes=["usage.read"], expire_time=soon)
    expiring = (await admin.call(admin.identity.CreateApiKey, short)).secret
    assert denied(await check(edge))
    assert denied(await check(edge, authorization=tenant.secret))
    assert denied(await check(edge, authorization=f"Basic {tenant.secret}"))
    assert denied(await check(edge, authorization="Bearer "))
    assert denied(await check(edge, authorization=f"Bearer {tenant.secret},Bearer {tenant.secret}"))
    assert denied(await check(edge, authorization="Bearer pm_" + "0" * 16 + "_" + "s" * 43))
    assert denied(await check(edge, authorization=f"Bearer {tenant.secret[:-1]}~"))
    assert denied(await check(edge, x_api_key="'; DROP TABLE ledger.api_keys; --"))

    async def expired() -> bool:
        return denied(await check(edge, authorization=f"Bearer {expiring}"))

    await eventually(expired)


@pytest.mark.parametrize("peer", ["summarizer", "extractor", "operator"])
async def test_only_the_edge_checks(service: LedgerProcess, connect: Connect, peer: str) -> None:
    stranger = connect(service, peer, "")
    async with refused(Code.PERMISSION_DENIED, "METHOD_NOT_ALLOWED"):
        await check(stranger)


async def test_a_key_is_made_used_and_ended_everywhere(
    service: LedgerProcess, replica: LedgerProcess, connect: Connect, admit: Admit
) -> None:
    tenant = await admit()
    admin, here, there = (
        connect(service, "edge", tenant.name),
        connect(service, "edge", ""),
        connect(replica, "edge", ""),
    )
    request = pb.CreateApiKeyRequest(display_name="robot 🤖", scopes=["usage.read", "documents.read"])
    made = await admin.call(admin.identity.CreateApiKey, request)
    assert made.api_key.display_name == "robot 🤖"
    assert list(made.api_key.scopes) == ["documents.read", "usage.read"]
    assert made.secret.startswith(f"pm_{made.api_key.name.removeprefix('apiKeys/')}_")
    assert await passes(here, made.secret)
    assert await passes(there, made.secret)
    revoke = pb.RevokeApiKeyRequest(name=made.api_key.name)
    ended = await admin.call(admin.identity.RevokeApiKey, revoke)
    assert ended.api_key.HasField("revoke_time")
    for replica_ in (here, there):

        async def turned_away(edge: Peer = replica_) -> bool:
            return not await passes(edge, made.secret)

        # Both have it in their cache for 30 s: only the notice can end it earlier.
        await eventually(turned_away, within_s=20)
    assert await admin.call(admin.identity.RevokeApiKey, revoke) == ended


async def test_a_lost_listener_comes_back_and_misses_nothing(
    service: LedgerProcess, connect: Connect, admit: Admit, ledger_dsn: str
) -> None:
    tenant = await admit()
    edge, admin = connect(service, "edge", ""), connect(service, "edge", tenant.name)
    assert await passes(edge, tenant.secret)
    with psycopg.connect(ledger_dsn, autocommit=True) as database:
        listeners = (
            "FROM pg_stat_activity WHERE application_name = 'pagemesh-listener' AND datname = current_database()"
        )
        database.execute(f"SELECT pg_terminate_backend(pid) {listeners}".encode())
        await admin.call(admin.identity.RevokeApiKey, pb.RevokeApiKeyRequest(name=tenant.api_key))

        async def turned_away() -> bool:
            return not await passes(edge, tenant.secret)

        await eventually(turned_away, within_s=20)

        async def listens_again() -> bool:
            return database.execute(f"SELECT 1 {listeners}".encode()).fetchone() is not None

        await eventually(listens_again)
    other = await admit()
    assert await passes(edge, other.secret)
    await admin.call(
        connect(service, "edge", other.name).identity.RevokeApiKey, pb.RevokeApiKeyRequest(name=tenant.api_key)
    )


async def test_a_switched_off_tenant_is_out(
    service: LedgerProcess, connect: Connect, admit: Admit, ledger_dsn: str
) -> None:
    tenant = await admit()
    edge = connect(service, "edge", "")
    assert await passes(edge, tenant.secret)
    with psycopg.connect(ledger_dsn) as database:
        database.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant.name,))
        database.execute("UPDATE ledger.tenants SET active = false WHERE id = %s", (tenant.name,))

    async def turned_away() -> bool:
        return not await passes(edge, tenant.secret)

    await eventually(turned_away, within_s=20)


async def test_no_key_grants_what_its_maker_lacks(service: LedgerProcess, connect: Connect, admit: Admit) -> None:
    tenant = (await admit()).name
    poor = connect(service, "edge", tenant, scopes="keys.admin usage.read")
    async with refused(Code.PERMISSION_DENIED, "SCOPE_NOT_GRANTABLE"):
        request = pb.CreateApiKeyRequest(display_name="x", scopes=["documents.read"])
        await poor.call(poor.identity.CreateApiKey, request)
    async with refused(Code.INVALID_ARGUMENT, "SCOPE_UNKNOWN") as told:
        request = pb.CreateApiKeyRequest(display_name="x", scopes=["root.all"])
        await poor.call(poor.identity.CreateApiKey, request)
    assert told.fields == ["scopes"]
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
        request = pb.CreateApiKeyRequest(display_name="\0", scopes=["usage.read"])
        await poor.call(poor.identity.CreateApiKey, request)
    assert told.fields == ["display_name"]
    reader = connect(service, "edge", tenant, scopes="usage.read")
    async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
        await reader.call(reader.identity.CreateApiKey, pb.CreateApiKeyRequest())


async def test_another_tenants_key_is_not_found(service: LedgerProcess, connect: Connect, admit: Admit) -> None:
    mine, theirs = await admit(), await admit()
    stranger = connect(service, "edge", theirs.name)
    for name in (mine.api_key, f"apiKeys/{uuid.uuid4().hex[:16]}"):
        async with refused(Code.NOT_FOUND, "KEY_NOT_FOUND"):
            await stranger.call(stranger.identity.RevokeApiKey, pb.RevokeApiKeyRequest(name=name))
    assert await passes(connect(service, "edge", ""), mine.secret)


async def test_who_am_i(service: LedgerProcess, connect: Connect) -> None:
    peer = connect(service, "edge", "acme", actor="apiKeys/abc", scopes="usage.read documents.read")
    answer = await peer.call(peer.identity.WhoAmI, pb.WhoAmIRequest())
    assert (answer.tenant, answer.actor) == ("tenants/acme", "apiKeys/abc")
    assert list(answer.scopes) == ["documents.read", "usage.read"]


async def test_secrets_are_nowhere_but_in_the_answer(
    service: LedgerProcess, connect: Connect, admit: Admit, whole_ledger: str, session_dir: Path
) -> None:
    tenant = await admit()
    assert await passes(connect(service, "edge", ""), tenant.secret)
    secret = tenant.secret.split("_", 2)[2]
    with psycopg.connect(whole_ledger) as database:
        rows = database.execute("SELECT k::text, encode(key_hash, 'escape') FROM ledger.api_keys k").fetchall()
        assert rows
    assert secret not in str(rows)
    for log in session_dir.glob("*.log"):
        assert secret not in log.read_text(errors="replace")


def test_reflection_shows_the_whole_mesh(service: LedgerProcess, mesh_pki: CertificateAuthority) -> None:
    options = (("grpc.ssl_target_name_override", "ledger.pagemesh.local"),)
    with grpc.secure_channel(service.target, credentials(mesh_pki, "edge"), options=options) as channel:
        stub = ServerReflectionStub(channel)
        asked = [
            ServerReflectionRequest(list_services=""),
            ServerReflectionRequest(file_containing_symbol="pagemesh.summarizer.v1.SummarizerService"),
        ]
        listed, described = stub.ServerReflectionInfo(iter(asked), timeout=10)
    names = {s.name for s in listed.list_services_response.service}
    assert {
        "pagemesh.extractor.v1.ExtractorService",
        "pagemesh.summarizer.v1.SummarizerService",
        "pagemesh.ledger.v1.LedgerService",
        "pagemesh.ledger.v1.IdentityService",
        "grpc.health.v1.Health",
    } <= names
    assert described.file_descriptor_response.file_descriptor_proto
