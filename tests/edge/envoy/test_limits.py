"""How many, how large, and what is said where it is too much."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pagemesh.extractor.v1.extractor_service_pb2 import GetDocumentRequest
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from pagemesh.ledger.v1.credential_service_pb2 import ExchangeTokenRequest
from pagemesh.ledger.v1.credential_service_pb2_grpc import CredentialServiceStub
from pagemesh.ledger.v1.identity_service_pb2 import CreateApiKeyRequest, WhoAmIRequest
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from pagemesh_cli.stack.edge import EdgeLimits, TokenBucket
from tests.edge.envoy.edge import KEY, Edge, grpc_error, metadata
from tests.edge.envoy.upstreams import DOCUMENT, Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

NewEdge = Callable[..., Awaitable[Edge]]
MIB = 1024 * 1024
# No refill while a test runs, however slow the machine is.
THREE = TokenBucket(3, 1, 3600)
TWO = TokenBucket(2, 1, 3600)
FREE = EdgeLimits.lifted().key


def limits(address: TokenBucket = FREE, tenant: TokenBucket = FREE, key: TokenBucket = FREE) -> EdgeLimits:
    return EdgeLimits(address=address, tenant=tenant, key=key, uploads=FREE)


async def statuses(edge: Edge, key: str, count: int) -> list[int]:
    headers = {"authorization": f"Bearer {key}"}
    return [(await edge.call("GET", "/v1/whoami", headers=headers)).status for _ in range(count)]


async def test_a_key_has_its_own_limit(clean: Mesh, new_edge: NewEdge) -> None:
    edge = await new_edge(clean, limits=limits(key=THREE))
    assert await statuses(edge, "pm_acme_k1", 5) == [200, 200, 200, 429, 429]
    assert await statuses(edge, "pm_acme_k2", 1) == [200]
    assert len(clean.journal.calls) == 4


async def test_the_keys_of_a_tenant_share_one(clean: Mesh, new_edge: NewEdge) -> None:
    edge = await new_edge(clean, limits=limits(tenant=THREE))
    assert await statuses(edge, "pm_acme_k1", 2) == [200, 200]
    assert await statuses(edge, "pm_acme_k2", 2) == [200, 429]
    assert await statuses(edge, "pm_other_k3", 1) == [200]


async def test_an_address_is_limited_before_it_is_asked_who_it_is(clean: Mesh, new_edge: NewEdge) -> None:
    edge = await new_edge(clean, limits=limits(address=THREE))
    assert await statuses(edge, "wrong", 4) == [401, 401, 401, 429]
    assert len(clean.authorizer.asked) == 3


async def test_uploads_have_a_limit_besides(clean: Mesh, new_edge: NewEdge) -> None:
    edge = await new_edge(clean, limits=EdgeLimits(address=FREE, tenant=FREE, key=FREE, uploads=TWO))
    paths = ["/v1/documents:upload", "/v1/documents:upload?display_name=a.pdf"]
    assert [(await edge.call("POST", path, body=b"%PDF")).status for path in paths] == [200, 200]
    assert (await edge.call("POST", paths[0], body=b"%PDF")).status == 429
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ExtractorServiceStub(channel).UploadDocument(iter([]), metadata=metadata(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await statuses(edge, "pm_acme_k1", 1) == [200]


async def test_exchanges_of_a_key_have_a_limit_besides(clean: Mesh, new_edge: NewEdge) -> None:
    limits = EdgeLimits(address=FREE, tenant=FREE, key=FREE, uploads=FREE, sessions=TWO)
    edge = await new_edge(clean, limits=limits)
    paths = ["/v1/sessions:exchange", "/v1/sessions:exchange?scopes=usage.read"]
    assert [(await edge.call("POST", path, body={})).status for path in paths] == [200, 200]
    assert (await edge.call("POST", paths[0], body={})).status == 429
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await CredentialServiceStub(channel).ExchangeToken(ExchangeTokenRequest(), metadata=metadata(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    other = {"authorization": "Bearer pm_acme_k2"}
    assert (await edge.call("POST", paths[0], body={}, headers=other)).status == 200
    # Signing a browser in counts with them, listing browsers does not. (The service behind this edge has neither.)
    browsers = [("GET", 501), ("GET", 501), ("POST", 501), ("POST", 429), ("GET", 501)]
    for verb, status in browsers:
        body: object = {} if verb == "POST" else None
        assert (await edge.call(verb, "/v1/browserSessions", body=body, headers=other)).status == status
    assert await statuses(edge, "pm_acme_k1", 1) == [200]


async def test_who_is_limited_is_told_for_how_long(clean: Mesh, new_edge: NewEdge) -> None:
    edge = await new_edge(clean, limits=limits(key=THREE))
    await statuses(edge, "pm_acme_k1", 3)
    answer = await edge.call("GET", "/v1/whoami")
    wait_s = int(answer.headers["retry-after"])
    assert 0 < wait_s <= 3600
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert (answer.json["code"], answer.reason) == (8, "RATE_LIMITED")
    assert answer.json["details"][1] == {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": f"{wait_s}s",
    }
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), metadata=metadata(), timeout=10)
    assert grpc_error(refused.value) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert "retry-after" in dict(refused.value.initial_metadata() or refused.value.trailing_metadata())


async def test_a_quota_that_is_used_up_is_told_to_json_and_to_grpc_callers(edge: Edge, clean: Mesh) -> None:
    exhausted = {"authorization": "Bearer exhausted"}
    answer = await edge.call("GET", "/v1/whoami", headers=exhausted)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1234")
    assert (answer.json["code"], answer.reason, answer.json["message"]) == (
        8,
        "QUOTA_EXCEEDED",
        "As the authorizer says.",
    )
    assert answer.json["details"][1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1234s"}
    assert "grpc-status-details-bin" not in answer.headers
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), metadata=tuple(exhausted.items()), timeout=10)
    assert grpc_error(refused.value) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert refused.value.details() == "As the authorizer says."
    status = rpc_status.from_call(refused.value)
    retry = error_details_pb2.RetryInfo()
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds == 1234
    assert clean.journal.calls == []


def chunked(size: int) -> Iterator[bytes]:
    for _ in range(size // (MIB // 4)):
        yield bytes(MIB // 4)


@pytest.mark.parametrize("body", [bytes(MIB + 1), lambda: chunked(2 * MIB)], ids=["declared", "undeclared"])
async def test_an_ordinary_body_is_at_most_1_mib(edge: Edge, clean: Mesh, body: bytes | Callable[[], object]) -> None:
    content = body if isinstance(body, bytes) else body()
    answer = await early_answer(edge, f"/v1/{DOCUMENT}:summarize", content)
    assert answer == (413, 3, "BODY_TOO_LARGE")
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            request = CreateApiKeyRequest(display_name="x" * 2 * MIB)
            await IdentityServiceStub(channel).CreateApiKey(request, metadata=metadata(), timeout=10)
    assert grpc_error(refused.value) == ("INVALID_ARGUMENT", "BODY_TOO_LARGE")
    assert clean.journal.calls == []


async def early_answer(edge: Edge, path: str, body: object) -> tuple[int, int, str]:
    """Status, code and reason of an answer that comes before the body was read."""

    def exchange() -> tuple[int, int, str]:
        connection = edge.connection()
        try:
            # The edge may have answered and stopped reading: the answer is there all the same.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", path, body, KEY)  # type: ignore[arg-type]
            response = connection.getresponse()
            parsed = json.loads(response.read())
            return response.status, parsed["code"], parsed["details"][0]["reason"]
        finally:
            connection.close()

    return await asyncio.to_thread(exchange)


async def test_a_declared_upload_past_the_limit_is_refused_unread(edge: Edge, clean: Mesh) -> None:
    with edge.raw() as secure:
        secure.sendall(
            b"POST /v1/documents:upload HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer pm_acme_k1\r\n"
            b"content-length: 52428801\r\n\r\n"
        )
        received = await asyncio.to_thread(secure.recv, 65536)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"BODY_TOO_LARGE" in received
    assert clean.journal.calls == []


async def test_an_undeclared_upload_past_the_limit_is_cut(edge: Edge, clean: Mesh) -> None:
    assert await early_answer(edge, "/v1/documents:upload", chunked(51 * MIB)) == (413, 3, "BODY_TOO_LARGE")


async def test_an_upload_of_exactly_the_limit_passes(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("POST", "/v1/documents:upload", body=bytes(50 * MIB))
    assert answer.json["document"]["sizeBytes"] == str(50 * MIB)


async def test_headers_are_bounded(edge: Edge, clean: Mesh) -> None:
    answer = await edge.call("GET", "/v1/whoami", headers={**KEY, "x-long": "x" * 40_000})
    assert (answer.status, answer.reason) == (431, "HEADERS_TOO_LARGE")
    answer = await edge.call("GET", "/v1/whoami", headers={**KEY, **{f"x-{n}": "1" for n in range(101)}})
    assert (answer.status, answer.reason) == (431, "HEADERS_TOO_LARGE")


async def test_an_unlimited_edge_never_says_429(edge: Edge, clean: Mesh) -> None:
    async with edge.channel() as channel:
        stub = ExtractorServiceStub(channel)
        request = GetDocumentRequest(name=DOCUMENT)

        async def answered() -> bool:
            try:
                await stub.GetDocument(request, metadata=metadata(), timeout=60)
            except grpc.aio.AioRpcError as error:
                # A busy machine's authorizer, which shares this process with all callers, took longer than a second.
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
            return True

        left = 300
        for _ in range(30):
            left -= sum(await asyncio.gather(*(answered() for _ in range(left))))
            if not left:
                return
    pytest.fail(f"{left} calls were never answered")
