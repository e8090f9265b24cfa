"""JSON in and out, streams while they run, uploads of any size in flat memory, and browsers."""

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from tests.edge.envoy.edge import KEY, Answer, Edge, metadata
from tests.edge.envoy.upstreams import DOCUMENT, MISSING, PIECE_BYTES, Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("request_line", "body", "rpc", "shown"),
    [
        (f"GET /v1/{DOCUMENT}", None, "GetDocument", f'"name":"{DOCUMENT}"'),
        ("GET /v1/documents?page_size=3", None, "ListDocuments", '"nextPageToken":"more"'),
        (f"DELETE /v1/{DOCUMENT}", None, "DeleteDocument", f'"document":"{DOCUMENT}"'),
        (f"POST /v1/{DOCUMENT}:summarize", {"options": {}}, "Summarize", f'"document":"{DOCUMENT}"'),
        ("GET /v1/usage?page_size=7", None, "QueryUsage", '"totalRecords":"7"'),
        ("GET /v1/whoami", None, "WhoAmI", '"tenant":"tenants/acme"'),
        ("POST /v1/apiKeys", {"displayName": "ci", "scopes": ["usage.read"]}, "CreateApiKey", '"secret":"pm_x_y"'),
        ("POST /v1/apiKeys/0123456789abcdef:revoke", {}, "RevokeApiKey", "{}"),
    ],
)
async def test_json_calls(  # noqa: PLR0917  # a table
    edge: Edge, clean: Mesh, request_line: str, body: object, rpc: str, shown: str
) -> None:
    method, path = request_line.split()
    answer = await edge.call(method, path, body=body)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert shown in answer.body.decode()
    assert clean.journal.last.method == rpc


async def test_fields_that_hold_nothing_are_shown(edge: Edge, clean: Mesh) -> None:
    assert (await edge.call("GET", "/v1/usage")).json["totalRecords"] == "0"


async def test_a_services_error_keeps_its_status(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("GET", f"/v1/{MISSING}")
    assert answer.status == 404
    assert answer.json == {"code": 5, "message": "There is no such document.", "details": []}


async def test_what_the_contract_does_not_know_is_refused(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("GET", "/v1/usage?pageSize=1&colour=red")
    assert (answer.status, answer.json["code"], answer.reason) == (400, 3, "UNKNOWN_FIELD")
    answer = await edge.call("POST", f"/v1/{DOCUMENT}:summarize", body=b"{broken", headers=KEY)
    assert (answer.status, answer.reason) == (400, "INVALID_REQUEST")
    assert clean.journal.calls == []


@pytest.mark.parametrize(
    ("path", "content_type", "first"),
    [
        (f"/v1/{DOCUMENT}:extractPages", "application/json", b'{"start":'),
        (f"/v1/{DOCUMENT}:streamSummarize", "text/event-stream", b'data: {"textDelta":"Once\\nmore"}'),
    ],
)
async def test_a_streams_first_message_is_there_before_its_last(
    edge: Edge, clean: Mesh, path: str, content_type: str, first: bytes
) -> None:
    clean.extracting.gate.clear()
    clean.summarizing.gate.clear()
    connection = edge.connection()
    try:
        await asyncio.to_thread(connection.request, "POST", path, "{}", {**KEY, "content-type": "application/json"})
        response = await asyncio.to_thread(connection.getresponse)
        assert response.headers["content-type"] == content_type
        assert (await asyncio.to_thread(response.readline)).startswith(first)
        clean.extracting.gate.set()
        clean.summarizing.gate.set()
        rest = await asyncio.to_thread(response.read)
    finally:
        connection.close()
    lines = [line.removeprefix(b"data: ") for line in rest.split(b"\n") if line]
    assert [next(iter(json.loads(line))) for line in lines] in (["page", "page", "end"], ["summary"])


async def test_a_plus_in_an_address_is_a_space_everywhere(edge: Edge, clean: Mesh) -> None:
    for verb in ("summarize", "streamSummarize"):
        answer = await edge.call("POST", f"/v1/{DOCUMENT}:{verb}?options.focus=net+income%2B", body={})
        assert answer.status == 200
        assert clean.summarizing.focus == "net income+", verb


async def test_a_picture_in_pieces_becomes_a_raw_body(edge: Edge, clean: Mesh) -> None:
    pieces = 48
    answer = await edge.call("POST", f"/v1/{DOCUMENT}:renderPage", body={"page": pieces, "format": "FORMAT_PNG"})
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body == b"".join(bytes([number]) * PIECE_BYTES for number in range(pieces))


async def test_a_picture_that_there_is_not_is_an_error_in_json(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("POST", f"/v1/{MISSING}:renderPage", body={"page": 1})
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json["message"] == "There is no such document."


async def test_a_raw_body_becomes_an_upload(edge: Edge, clean: Mesh) -> None:
    file = os.urandom(3 * MIB + 1)
    answer = await edge.call(
        "POST",
        "/v1/documents:upload?display_name=An%20n%C3%BAal+report.pdf",
        body=file,
        headers={**KEY, "content-type": "application/pdf"},
    )
    assert answer.status == 200
    document = answer.json["document"]
    assert document["displayName"] == "An núal report.pdf"
    assert document["sizeBytes"] == str(len(file))
    assert document["sha256"] == hashlib.sha256(file).hexdigest()
    assert clean.extracting.largest_chunk_bytes <= MIB


async def test_an_upload_over_grpc(edge: Edge, clean: Mesh) -> None:
    pieces = [os.urandom(MIB) for _ in range(5)]
    requests = [extractor_pb2.UploadDocumentRequest(content=HttpBody(data=piece)) for piece in pieces]
    async with edge.channel() as channel:
        answer = await ExtractorServiceStub(channel).UploadDocument(iter(requests), metadata=metadata(), timeout=30)
    assert answer.document.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()


async def test_an_upload_that_nobody_reads_is_held_back(clean: Mesh, new_edge: Callable[..., Awaitable[Edge]]) -> None:
    edge = await new_edge(clean)
    await edge.call("POST", "/v1/documents:upload", body=bytes(MIB))
    memory_bytes = edge.memory_peak_bytes()
    clean.extracting.gate.clear()
    sent_bytes, most_under_way_bytes = 0, 0

    def file() -> Iterator[bytes]:
        nonlocal sent_bytes, most_under_way_bytes
        for _ in range(50 * 16):
            yield bytes(MIB // 16)
            sent_bytes += MIB // 16
            most_under_way_bytes = max(most_under_way_bytes, sent_bytes - clean.extracting.received_bytes)

    clean.extracting.received_bytes = 0
    upload = asyncio.create_task(edge.call("POST", "/v1/documents:upload", body=file()))
    backed_up = "cluster.extractor.upstream_flow_control_backed_up_total"
    await edge.wait_for(lambda: edge.stat(backed_up) > 0, "the edge stopped reading")
    assert sent_bytes < 40 * MIB
    assert not upload.done()
    clean.extracting.gate.set()
    answer: Answer = await upload
    assert answer.json["document"]["sizeBytes"] == str(50 * MIB)
    assert most_under_way_bytes < 25 * MIB
    assert edge.memory_peak_bytes() - memory_bytes < 25 * MIB


async def test_answers_are_compressed_where_the_client_can(edge: Edge, clean: Mesh) -> None:
    plain = await edge.call("GET", "/v1/whoami")
    for encoding in ("gzip", "br", "zstd"):
        packed = await edge.call("GET", "/v1/whoami", headers={**KEY, "accept-encoding": encoding})
        assert packed.headers["content-encoding"] == encoding
        assert len(packed.body) < len(plain.body) / 10
    gzipped = await edge.call("GET", "/v1/whoami", headers={**KEY, "accept-encoding": "gzip"})
    assert json.loads(gzip.decompress(gzipped.body)) == plain.json


async def test_every_answer_carries_the_security_headers(edge: Edge, clean: Mesh) -> None:
    for path, headers in (("/v1/whoami", KEY), ("/v1/whoami", {}), ("/nothing", KEY), ("/healthz", {})):
        answer = await edge.call("GET", path, headers=headers)
        expected = {
            "strict-transport-security": "max-age=31536000; includeSubDomains",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
            "server": "pagemesh",
        }
        assert {name: answer.headers.get(name) for name in expected} == expected
        assert not [name for name in answer.headers if name.startswith("x-envoy") or name == "grpc-accept-encoding"]


GRPC_WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
EMPTY_FRAME = bytes(5)


async def test_grpc_web(edge: Edge, clean: Mesh) -> None:
    path = "/pagemesh.ledger.v1.IdentityService/WhoAmI"
    answer = await edge.call("POST", path, body=EMPTY_FRAME, headers={**KEY, **GRPC_WEB})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    assert b"tenants/acme" in answer.body
    assert b"grpc-status:0" in answer.body


async def test_no_web_page_may_call_unless_its_origin_is_listed(
    edge: Edge, clean: Mesh, new_edge: Callable[..., Awaitable[Edge]]
) -> None:
    open_edge = await new_edge(clean, allowed_origins=("https://app.example.org",))
    preflight = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
    for path in ("/v1/whoami", "/v1/documents:upload", "/pagemesh.ledger.v1.IdentityService/WhoAmI"):
        allowed = await open_edge.call("OPTIONS", path, headers=preflight)
        assert allowed.status == 200
        assert allowed.headers["access-control-allow-origin"] == "https://app.example.org"
        assert allowed.headers["access-control-allow-credentials"] == "true"
        assert "x-csrf-token" in allowed.headers["access-control-allow-headers"]
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        for refusing, origin in ((edge, "https://app.example.org"), (open_edge, "https://evil.example.org")):
            refused = await refusing.call("OPTIONS", path, headers={**preflight, "origin": origin})
            assert "access-control-allow-origin" not in refused.headers
    got = await open_edge.call("GET", "/v1/whoami", headers={**KEY, "origin": "https://app.example.org"})
    assert got.headers["access-control-allow-origin"] == "https://app.example.org"
    assert "retry-after" in got.headers["access-control-expose-headers"]


async def test_grpc_errors_reach_grpc_callers_whole(edge: Edge, clean: Mesh) -> None:
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await ExtractorServiceStub(channel).GetDocument(
                extractor_pb2.GetDocumentRequest(name=MISSING), metadata=metadata(), timeout=10
            )
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert missing.value.details() == "There is no such document."
