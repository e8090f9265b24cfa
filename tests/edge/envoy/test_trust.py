"""What the edge believes of a request, and whom it lets in."""

import datetime as dt
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from pagemesh.ledger.v1.identity_service_pb2 import WhoAmIRequest
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.edge.envoy.edge import KEY, Edge, grpc_error, metadata
from tests.edge.envoy.upstreams import Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO_KEY = "The API key is missing, unknown, expired or revoked."
FORGED = {
    "x-pagemesh-tenant": "victim",
    "X-Pagemesh-Scopes": "keys.admin",
    "x-pagemesh-anything-new": "1",
    "x-envoy-retry-on": "5xx",
    "x-envoy-original-path": "/healthz",
    "x-forwarded-client-cert": "URI=spiffe://pagemesh.local/service/operator",
    "forwarded": "for=10.0.0.1",
}


async def test_forged_headers_reach_neither_the_ledger_nor_a_service(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("GET", "/v1/whoami", headers={**KEY, **FORGED})
    assert answer.json["tenant"] == "tenants/acme"
    seen = clean.journal.last.metadata
    assert {k: v for k, v in seen.items() if k.startswith("x-pagemesh-")} == {
        "x-pagemesh-tenant": "acme",
        "x-pagemesh-actor": "apiKeys/k1",
        "x-pagemesh-scopes": "usage.read",
    }
    assert not seen.keys() & {"x-envoy-retry-on", "x-envoy-internal", "x-forwarded-client-cert", "forwarded"}
    assert "victim" not in str(clean.authorizer.asked[0])


async def test_the_same_over_grpc(edge: Edge, clean: Mesh) -> None:
    forged = {name.lower(): value for name, value in FORGED.items()}
    async with edge.channel() as channel:
        answer = await IdentityServiceStub(channel).WhoAmI(
            WhoAmIRequest(), metadata=metadata({**KEY, **forged}), timeout=10
        )
    assert answer.tenant == "tenants/acme"
    assert clean.journal.last.metadata["x-pagemesh-scopes"] == "usage.read"
    assert "x-pagemesh-anything-new" not in clean.journal.last.metadata


async def test_a_client_does_not_choose_the_address_that_is_audited(edge: Edge, clean: Mesh) -> None:
    """What Check is told is the connection's; it becomes the keyed hash of the audit trail, and goes no further."""
    forged = {"x-forwarded-for": "203.0.113.9", "x-real-ip": "203.0.113.9", "x-pagemesh-client": "f" * 32}
    await edge.call("GET", "/v1/whoami", headers={**KEY, **forged})
    source = clean.authorizer.asked[0].attributes.source.address.socket_address
    assert source.address == "127.0.0.1"
    assert "x-pagemesh-client" not in clean.journal.last.metadata


async def test_the_credential_stays_at_the_edge(edge: Edge, clean: Mesh) -> None:
    await edge.call(
        "GET", "/v1/whoami", headers={**KEY, "x-api-key": "pm_other", "cookie": "session=1", "x-csrf-token": "t"}
    )
    assert not clean.journal.last.metadata.keys() & {"authorization", "x-api-key", "cookie", "x-csrf-token"}
    asked = clean.authorizer.asked[0].attributes.request.http.headers
    assert set(asked) == {"authorization", "cookie", "x-api-key", "x-csrf-token", "x-request-id"}


async def test_services_see_the_edge_by_its_certificate(edge: Edge, clean: Mesh) -> None:
    await edge.call("GET", "/v1/whoami")
    assert clean.journal.last.peer == "spiffe://pagemesh.local/service/edge"


@pytest.mark.parametrize("given", ["order-4711.retry_2", "x" * 128])
async def test_a_sane_request_id_is_kept(edge: Edge, clean: Mesh, given: str) -> None:
    answer = await edge.call("GET", "/v1/whoami", headers={**KEY, "x-request-id": given})
    assert answer.headers["x-request-id"] == given
    assert clean.journal.last.metadata["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "short", "x" * 129, "white space here", "inject\ted-header", "ünïcödé-id"])
async def test_any_other_request_id_is_replaced(edge: Edge, clean: Mesh, given: str | None) -> None:
    headers = KEY if given is None else {**KEY, "x-request-id": given}
    answer = await edge.call("GET", "/v1/whoami", headers=headers)
    made = answer.headers["x-request-id"]
    assert made != given
    assert len(made) == 36
    assert clean.journal.last.metadata["x-request-id"] == made


async def test_the_clients_trace_is_passed_on(edge: Edge, clean: Mesh) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await edge.call("GET", "/v1/whoami", headers={**KEY, "traceparent": trace})
    assert clean.journal.last.metadata["traceparent"] == trace


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, 16, "UNAUTHENTICATED", NO_KEY)),
        ({"authorization": "Bearer wrong"}, (401, 16, "UNAUTHENTICATED", NO_KEY)),
        ({"authorization": "Bearer forbidden"}, (403, 7, "PERMISSION_DENIED", "As the authorizer says.")),
    ],
)
async def test_who_is_not_let_in_is_told_so(
    edge: Edge, clean: Mesh, headers: dict[str, str], expected: tuple[int, int, str, str]
) -> None:
    answer = await edge.call("GET", "/v1/whoami", headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert (answer.status, answer.json["code"], answer.reason, answer.json["message"]) == expected
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), metadata=metadata(headers), timeout=10)
    assert (refused.value.code().value[0], refused.value.details()) == (expected[1], expected[3])
    assert clean.journal.calls == []


async def test_without_the_ledger_nothing_passes(
    new_edge: Callable[..., Awaitable[Edge]], mesh_pki: CertificateAuthority
) -> None:
    mesh = Mesh(mesh_pki.tls_dir)
    await mesh.start()
    edge = await new_edge(mesh)
    document = f"/v1/documents/{'a' * 32}"
    assert (await edge.call("GET", document)).status == 200
    await mesh.ledger.stop()
    try:
        answer = await edge.call("GET", document)
        assert (answer.status, answer.json["code"], answer.reason) == (503, 14, "AUTHORIZER_UNAVAILABLE")
        async with edge.channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), metadata=metadata(), timeout=10)
        assert grpc_error(refused.value) == ("UNAVAILABLE", "AUTHORIZER_UNAVAILABLE")
        assert len(mesh.journal.calls) == 1
        await mesh.ledger.start()
        await edge.wait_healthy("ledger", 1)
        assert (await edge.call("GET", document)).status == 200
    finally:
        await mesh.stop()


async def test_a_client_certificate_of_the_mesh_is_welcome(
    edge: Edge, clean: Mesh, mesh_pki: CertificateAuthority
) -> None:
    answer = await edge.call("GET", "/v1/whoami", client=mesh_pki.tls_dir("operator"))
    assert answer.status == 200
    source = clean.authorizer.asked[0].attributes.source
    assert source.principal == "spiffe://pagemesh.local/service/operator"


async def test_a_certificate_of_another_ca_fails_the_handshake(edge: Edge, tmp_path: Path) -> None:
    foreign = CertificateAuthority(tmp_path)
    foreign.ensure(now=dt.datetime.now(dt.UTC))
    failed = edge.stat("listener.*ssl.fail_verify_error")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await edge.call("GET", "/healthz", client=foreign.tls_dir("operator"))
    assert edge.stat("listener.*ssl.fail_verify_error") == failed + 1


@pytest.mark.parametrize(("offered", "spoken"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")])
async def test_tls_1_3_with_http_2_and_http_1_1(edge: Edge, offered: list[str], spoken: str) -> None:
    context = edge.tls()
    context.set_alpn_protocols(offered)
    with edge.raw(context) as secure:
        assert secure.version() == "TLSv1.3"
        assert secure.selected_alpn_protocol() == spoken


async def test_tls_1_2_is_refused(edge: Edge) -> None:
    context = edge.tls()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.raw(context)


async def test_the_log_tells_who_and_what_but_no_secret(edge: Edge, clean: Mesh) -> None:
    headers = {"authorization": "Bearer pm_acme_topsecret", "x-request-id": "log-test-1", "x-api-key": "alsosecret"}
    await edge.call("GET", "/v1/usage?page_size=7&page_token=private", headers=headers)

    def entry() -> dict[str, object] | None:
        lines = edge.access_log.read_text().splitlines() if edge.access_log.exists() else []
        return next((e for e in map(json.loads, lines) if e.get("request_id") == "log-test-1"), None)

    await edge.wait_for(lambda: entry() is not None, "the request in the access log")
    logged = entry()
    assert logged is not None
    expected = {
        "method": "GET",
        "path": "/v1/usage",
        "rpc": "/pagemesh.ledger.v1.LedgerService/QueryUsage",
        "status": 200,
        "grpc_status": "OK",
        "tenant": "acme",
        "actor": "apiKeys/topsecret",
        "upstream": "ledger",
    }
    assert {key: logged.get(key) for key in expected} == expected
    text = edge.access_log.read_text()
    assert "private" not in text
    assert "alsosecret" not in text
    assert "Bearer" not in text


GRPC = "application/grpc"
METHODS = [
    "/pagemesh.extractor.v1.ExtractorService/ExtractPages",
    "/pagemesh.ledger.v1.LedgerService/Reserve",
    "/grpc.health.v1.Health/Check",
]


@pytest.mark.parametrize("path", METHODS)
async def test_only_post_is_grpc(edge: Edge, clean: Mesh, path: str) -> None:
    """Whatever the caller says that it is; the ledger, which takes a GET for safe, is not asked."""
    for content_type in (GRPC, "application/grpc-web+proto", "application/json"):
        for verb in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "QUERY"):
            answer = await edge.call(verb, f"{path}?name=x", headers={**KEY, "content-type": content_type})
            # Envoy answers 200 to whom it takes for a gRPC client, and says the rest in headers.
            assert (answer.status, answer.headers["allow"]) == (200 if content_type == GRPC else 405, "POST"), verb
            if content_type == GRPC:
                assert answer.headers["grpc-status"] == "12"
            elif content_type == "application/json" and verb != "HEAD":
                assert (answer.json["code"], answer.reason) == (12, "POST_ONLY")
        assert clean.authorizer.asked == []
        for headers in ({}, {"origin": "https://app.example.org", "access-control-request-method": "POST"}):
            answer = await edge.call("OPTIONS", path, headers={**KEY, "content-type": content_type, **headers})
            assert answer.status == 404 or answer.headers["grpc-status"] == "12"
        clean.authorizer.asked.clear()
    assert clean.journal.calls == []
