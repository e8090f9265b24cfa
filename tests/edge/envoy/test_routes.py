"""What is reachable from outside is what the contracts call public, and nothing else; the configuration's own rules."""

import asyncio
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from pagemesh.common.v1 import access_pb2
from pagemesh.ledger.v1.credential_service_pb2 import GetJsonWebKeySetRequest
from pagemesh.ledger.v1.credential_service_pb2_grpc import CredentialServiceStub
from pagemesh_cli.stack.edge import EdgeAddresses, EdgeLimits, descriptor_set, render
from pagemesh_cli.stack.errors import StackError
from tests.edge.envoy.edge import KEY, Edge, grpc_error, metadata
from tests.edge.envoy.upstreams import DOCUMENT, Mesh

INFRASTRUCTURE = {
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/grpc.health.v1.Health/",
}
CHECK = "/envoy.service.auth.v3.Authorization/Check"


def methods() -> Iterator[MethodDescriptor]:
    """Every method of the contracts."""
    pool = descriptor_pool.Default()
    for file in descriptor_set().file:
        for service in pool.FindFileByName(file.name).services_by_name.values():
            yield from service.methods


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def is_public(method: MethodDescriptor) -> bool:
    """The edge itself as an internal caller means everybody, without a credential."""
    access = method.GetOptions().Extensions[access_pb2.access]
    return bool(access.scope) or access.any_scope or "edge" in access.internal_callers


def streams(method: MethodDescriptor) -> bool:
    return bool(method.client_streaming or method.server_streaming)


def may_repeat(method: MethodDescriptor) -> bool:
    levels = descriptor_pb2.MethodOptions
    return method.GetOptions().idempotency_level in (levels.NO_SIDE_EFFECTS, levels.IDEMPOTENT)


def http_verbs(method: MethodDescriptor) -> set[str]:
    """Those that the contract binds it to, in lower case."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    return {str(binding.WhichOneof("pattern")) for binding in (rule, *rule.additional_bindings)}


PUBLIC = [method for method in methods() if is_public(method)]
INTERNAL = [path_of(method) for method in methods() if not is_public(method)] + [CHECK]


def addresses(directory: Path, **changes: Any) -> EdgeAddresses:
    values: dict[str, Any] = {
        "listen": "127.0.0.1:8443",
        "metrics_listen": "127.0.0.1:8444",
        "ledger": "127.0.0.1:7001",
        "extractor": "127.0.0.1:7002",
        "summarizer": "127.0.0.1:7003",
        "tls_dir": directory / "tls",
        "access_log": directory / "access.log",
        "trust_domain": "pagemesh.local",
    }
    return EdgeAddresses(**values | changes)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The whole configuration as Envoy gets it."""
    directory = tmp_path_factory.mktemp("edge")
    config: dict[str, Any] = yaml.safe_load(render(directory, addresses=addresses(directory)).read_text())
    return config


def manager(config: dict[str, Any]) -> dict[str, Any]:
    listener = config["static_resources"]["listeners"][0]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@pytest.fixture
def routes(rendered: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Route actions by gRPC path or prefix."""
    table = manager(rendered)["route_config"]["virtual_hosts"][0]["routes"]
    by_match = {r["match"].get("path") or r["match"].get("prefix"): r["route"] for r in table if "route" in r}
    return {match: route for match, route in by_match.items() if match and not match.startswith("/v1/")}


def test_the_routes_are_the_public_methods(routes: dict[str, dict[str, Any]]) -> None:
    assert routes.keys() == {path_of(m) for m in PUBLIC} | INFRASTRUCTURE | {"/"}
    assert "cluster" not in routes["/"]


@pytest.mark.parametrize("method", PUBLIC, ids=[m.name for m in PUBLIC])
def test_each_route_is_what_the_contract_asks_for(routes: dict[str, dict[str, Any]], method: MethodDescriptor) -> None:
    route = routes[path_of(method)]
    assert route["cluster"] == method.containing_service.full_name.split(".")[1]
    assert route["timeout"] == "0s"
    assert route["max_stream_duration"]["max_stream_duration"] == ("300s" if streams(method) else "30s")
    assert route["max_stream_duration"]["grpc_timeout_header_max"] == "300s"
    assert ("retry_policy" in route) == (may_repeat(method) and not streams(method))


@pytest.mark.parametrize(
    "path",
    ["/pagemesh.summarizer.v1.SummarizerService/Summarize", "/pagemesh.extractor.v1.ExtractorService/DeleteDocument"],
)
def test_what_acts_is_sent_again_only_if_it_never_arrived(routes: dict[str, dict[str, Any]], path: str) -> None:
    """When its answer is lost a model may have been paid, or a receipt given."""
    assert routes[path]["retry_policy"]["retry_on"] == "connect-failure,refused-stream"


def test_every_public_method_speaks_json(rendered: dict[str, Any]) -> None:
    filters = {f["name"]: f["typed_config"] for f in manager(rendered)["http_filters"]}
    transcoded = filters["envoy.filters.http.grpc_json_transcoder"]["services"]
    assert set(transcoded) == {m.containing_service.full_name for m in PUBLIC}
    assert [m.name for m in PUBLIC if not m.GetOptions().HasExtension(annotations_pb2.http)] == []


def test_both_transcoders_read_requests_alike(rendered: dict[str, Any]) -> None:
    """That of server-sent events prints otherwise, and that is all."""
    name = "envoy.filters.http.grpc_json_transcoder"
    everywhere = next(f["typed_config"] for f in manager(rendered)["http_filters"] if f["name"] == name)
    routes = manager(rendered)["route_config"]["virtual_hosts"][0]["routes"]
    own = [r.get("typed_per_filter_config", {}).get(name, {}) for r in routes]
    [of_events] = [config for config in own if "services" in config]
    assert of_events.pop("print_options") != everywhere["print_options"]
    assert of_events == {key: value for key, value in everywhere.items() if key != "print_options"}


def test_no_internal_method_speaks_json() -> None:
    internal = [m for m in methods() if not is_public(m)]
    of_ledger = {"Reserve", "Settle", "Release", "RecordUsage", "PublishEvents", "RecordEvents"}
    of_summarizer = {"PurgeDocument", "TopTenantQueues", "EmbedQuery"}
    wanted = {*of_ledger, *of_summarizer, "HoldDocument", "ReleaseDocument", "StorePageVectors"}
    assert {m.name for m in internal} == wanted
    assert [m.name for m in internal if m.GetOptions().HasExtension(annotations_pb2.http)] == []


def fields(message: Descriptor, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """All fields as a query names them."""
    for field in message.fields:
        yield field.name
        if field.message_type is not None and field.message_type.full_name not in above:
            for name in fields(field.message_type, above | {message.full_name}):
                yield f"{field.name}.{name}"


WITH_PASSWORD = [m for m in PUBLIC if any("password" in name for name in fields(m.input_type))]


def test_only_the_public_keys_are_there_for_everybody() -> None:
    access = {m.name: m.GetOptions().Extensions[access_pb2.access] for m in PUBLIC}
    assert {name for name, a in access.items() if "edge" in a.internal_callers} == {"GetJsonWebKeySet"}


@pytest.mark.asyncio(loop_scope="session")
async def test_the_public_keys_take_no_credential(edge: Edge, clean: Mesh) -> None:
    path = "/v1/.well-known/jwks.json"
    told = {"x-pagemesh-tenant": "acme", "x-pagemesh-scopes": "keys.admin", "authorization": "Bearer nonsense"}
    for headers in ({}, KEY, told):
        answer = await edge.call("GET", path, headers=headers)
        assert (answer.status, answer.json) == (200, {"keys": []})
        seen = clean.journal.last.metadata
        assert not [name for name in seen if name.startswith("x-pagemesh-") or name == "authorization"]
    assert (await edge.call("POST", path, body=b"{}")).status == 404
    async with edge.channel() as channel:
        await CredentialServiceStub(channel).GetJsonWebKeySet(GetJsonWebKeySetRequest(), timeout=10)
    assert clean.authorizer.asked == []


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    "path", ["/v1/.well-known/jwks.json/", "/v1/.well-known/x/../jwks.json/../whoami", "/v1/whoami"]
)
async def test_everything_beside_the_public_keys_takes_one(edge: Edge, clean: Mesh, path: str) -> None:
    assert (await edge.call("GET", path, headers={})).status == 401
    assert clean.journal.calls == []


def test_a_password_has_one_name_in_a_query() -> None:
    """The one that the edge looks for."""
    assert {m.name for m in WITH_PASSWORD} >= {"ExtractPages", "RenderPage", "ExtractImage"}
    assert {n for m in PUBLIC for n in fields(m.input_type) if "password" in n} == {"password"}


def json_path(method: MethodDescriptor) -> str:
    """Its address for JSON, for some document."""
    pattern: str = method.GetOptions().Extensions[annotations_pb2.http].post
    return re.sub(r"\{.*?\}", DOCUMENT, pattern)


IN_QUERY = [
    "password=s3cret",
    "page=2&password=s3cret&format=FORMAT_PNG",
    "password",
    "pass%77%6Frd=s3cret",
    "&password=",
]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("query", IN_QUERY)
@pytest.mark.parametrize("method", WITH_PASSWORD, ids=[m.name for m in WITH_PASSWORD])
async def test_a_password_in_the_address_is_refused(
    edge: Edge, clean: Mesh, method: MethodDescriptor, query: str
) -> None:
    for body in (b"", b"{}", b'{"password": "s3cret"}'):
        answer = await edge.call("POST", f"{json_path(method)}?{query}", body=body)
        assert (answer.status, answer.json["code"], answer.reason) == (400, 3, "PASSWORD_IN_ADDRESS")
        assert "body" in answer.json["message"]
        assert b"s3cret" not in answer.body
    assert (await edge.call("POST", f"{json_path(method)}?{query}", headers={})).status == 401
    assert clean.journal.calls == []


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", ["Password", "passWord", "pass%2577ord", "pass+word", "password.", "a.password"])
async def test_what_is_spelled_otherwise_is_no_password(edge: Edge, clean: Mesh, name: str) -> None:
    answer = await edge.call("POST", f"/v1/{DOCUMENT}:extractPages?{name}=s3cret", body={})
    assert (answer.status, answer.reason) == (400, "INVALID_REQUEST" if name == "password." else "UNKNOWN_FIELD")
    assert clean.journal.calls == []


@pytest.mark.asyncio(loop_scope="session")
async def test_a_password_in_the_body_passes_and_so_does_the_word_itself(edge: Edge, clean: Mesh) -> None:
    calls = [
        (f"/v1/{DOCUMENT}:extractPages", {"password": "s3cret"}),
        (f"/v1/{DOCUMENT}:extractPages?first_page=1", {"password": "s3cret"}),
        ("/v1/documents:upload?display_name=password=", b"%PDF"),
    ]
    for path, body in calls:
        assert (await edge.call("POST", path, body=body)).status == 200
    assert [call.method for call in clean.journal.calls] == ["ExtractPages", "ExtractPages", "UploadDocument"]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_password_in_the_address_of_a_grpc_call_is_refused(edge: Edge, clean: Mesh) -> None:
    async with edge.channel() as channel:
        call = channel.unary_unary(
            f"{path_of(WITH_PASSWORD[0])}?password=s3cret", request_serializer=bytes, response_deserializer=bytes
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=metadata(), timeout=10)
    assert grpc_error(refused.value) == ("INVALID_ARGUMENT", "PASSWORD_IN_ADDRESS")
    assert clean.journal.calls == []


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("path", [*INTERNAL, "/pagemesh.ledger.v1.LedgerService/NoSuchMethod", "/no.such.Service/Call"])
async def test_what_is_not_public_is_not_there(edge: Edge, clean: Mesh, path: str) -> None:
    async with edge.channel() as channel:
        call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=metadata(), timeout=10)
    assert grpc_error(refused.value) == ("UNIMPLEMENTED", "NO_ROUTE")
    for headers in (KEY, {**KEY, "content-type": "application/json"}):
        answer = await edge.call("POST", path, body=b"{}", headers=headers)
        assert (answer.status, answer.json["code"], answer.reason) == (404, 5, "NO_ROUTE")
    web = {**KEY, "content-type": "application/grpc-web+proto"}
    assert "grpc-status" in (await edge.call("POST", path, body=bytes(5), headers=web)).headers
    assert clean.journal.calls == []
    assert len(clean.authorizer.asked) == 4, "the edge's own questions only"


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    "path", ["/", "/v1/nothing", "/v1/documents/x/y", "/v2/documents", "/metrics", "/stats", "/ready"]
)
async def test_unknown_paths_are_404(edge: Edge, clean: Mesh, path: str) -> None:
    answer = await edge.call("GET", path)
    assert (answer.status, answer.json["code"], answer.reason) == (404, 5, "NO_ROUTE")


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    "path", ["/v1/documents%2Fx", "/v1/documents/..%2f..%2fadmin", "/v1/documents%5cx", "/v1/documents#x", "/v1/x%00"]
)
async def test_paths_that_could_be_read_two_ways_are_refused(edge: Edge, clean: Mesh, path: str) -> None:
    answer = await edge.call("GET", path)
    assert (answer.status, answer.reason) == (400, "INVALID_REQUEST")
    assert "without #, %2F, %5C and %00" in answer.json["message"]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("request_text", "status", "said"),
    [
        (b"GET /v1/whoami HTTP/1.1\r\n\r\n", 400, "The Host header is missing."),
        (b"GET /v1/whoami HTTP/1.1\r\nhost: localhost\r\na_b: 1\r\n\r\n", 400, "underscore"),
        (b"BREW /v1/whoami HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "This is not valid HTTP."),
        (b"GET /v1/whoami HTTP/1.0\r\nhost: localhost\r\n\r\n", 426, "Use HTTP/1.1 or HTTP/2."),
    ],
)
async def test_what_is_no_request_is_told_why(
    edge: Edge, clean: Mesh, request_text: bytes, status: int, said: str
) -> None:
    def talk() -> tuple[int, Any]:
        with edge.raw() as connection:
            connection.sendall(request_text)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, json.loads(response.read())

    answered, told = await asyncio.to_thread(talk)
    assert (answered, told["code"], told["details"][0]["reason"]) == (status, 3, "INVALID_REQUEST")
    assert said in told["message"]


def test_the_defaults_are_100_a_minute_and_2_uploads_a_second_and_5_exchanges_a_minute() -> None:
    defaults = EdgeLimits()
    assert (defaults.sessions.burst, defaults.sessions.refill / defaults.sessions.every_s * 60) == (5, 5)
    for bucket in (defaults.key, defaults.tenant):
        assert bucket.burst == 10
        assert bucket.refill / bucket.every_s * 60 == 100
    assert defaults.uploads.burst == 2
    assert defaults.uploads.refill / defaults.uploads.every_s == 2
    assert defaults.upload_bytes == 50 * 1024 * 1024


def test_descriptors_come_after_what_they_import() -> None:
    seen: set[str] = set()
    for file in descriptor_set().file:
        assert seen.issuperset(file.dependency)
        seen.add(file.name)
    assert "google/rpc/error_details.proto" in seen


def test_several_replicas(tmp_path: Path) -> None:
    replicas = addresses(tmp_path, extractor="10.0.0.1:7002, extractor.internal:7002,[::1]:7002")
    config = yaml.safe_load(render(tmp_path, addresses=replicas).read_text())
    cluster = next(c for c in config["static_resources"]["clusters"] if c["name"] == "extractor")
    endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    hosts = [e["endpoint"]["address"]["socket_address"]["address"] for e in endpoints]
    assert hosts == ["10.0.0.1", "extractor.internal", "::1"]


@pytest.mark.parametrize("wrong", ["", "localhost", ":7001", "host:", "host:port", "host:70000", "a:1,,b:2"])
def test_a_wrong_address_is_told(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(StackError, match="host:port"):
        render(tmp_path, addresses=addresses(tmp_path, ledger=wrong))


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="too long"):
        render(tmp_path, addresses=addresses(tmp_path, admin_socket=tmp_path / ("x" * 120)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: ${NOBODY}", r"\$\{NOBODY\}"),
        ("a: ${LISTEN", "nobody fills"),
        ("a: ${listen}", "nobody fills"),
        ("a: 1", "no place"),
    ],
)
def test_templates_and_values_fit_each_other(tmp_path: Path, text: str, message: str) -> None:
    for name in ("envoy.yaml", "tls_identity.yaml", "tls_authority.yaml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(StackError, match=message):
        render(tmp_path / "out", addresses=addresses(tmp_path), templates=tmp_path)
