"""Deadlines, retries, restarts, certificates that change, and services that are not who they should be."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography import x509

from pagemesh.extractor.v1.extractor_service_pb2 import ExtractPagesRequest, GetDocumentRequest
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from pagemesh.ledger.v1.identity_service_pb2 import CreateApiKeyRequest, WhoAmIRequest
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from pagemesh.summarizer.v1.summarizer_service_pb2 import SummarizeRequest
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import SummarizerServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.edge.envoy.edge import KEY, Edge, grpc_error, metadata, wait_for
from tests.edge.envoy.relay import Relay
from tests.edge.envoy.upstreams import DOCUMENT, Mesh

pytestmark = pytest.mark.asyncio(loop_scope="session")

NewEdge = Callable[..., Awaitable[Edge]]


@pytest.mark.parametrize(
    ("asked_s", "at_most_s", "more_than_s"), [(None, 30, 20), (5, 5, 0), (200, 200, 150), (3600, 300, 250)]
)
async def test_a_unary_call_has_30_s_or_what_it_asks_for_up_to_300_s(
    edge: Edge, clean: Mesh, asked_s: int | None, at_most_s: int, more_than_s: int
) -> None:
    async with edge.channel() as channel:
        await IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), metadata=metadata(), timeout=asked_s)
    over_grpc = clean.journal.last.remaining_s
    asked = {} if asked_s is None else {"grpc-timeout": f"{asked_s}S"}
    await edge.call("GET", "/v1/whoami", headers={**KEY, **asked})
    for seen_s in (over_grpc, clean.journal.last.remaining_s):
        assert seen_s is not None
        assert more_than_s < seen_s <= at_most_s


@pytest.mark.parametrize(("asked_s", "at_most_s", "more_than_s"), [(None, 300, 250), (5, 5, 0), (3600, 300, 250)])
async def test_a_stream_has_300_s(
    edge: Edge, clean: Mesh, asked_s: int | None, at_most_s: int, more_than_s: int
) -> None:
    async with edge.channel() as channel:
        request = ExtractPagesRequest(name=DOCUMENT)
        assert [
            m async for m in ExtractorServiceStub(channel).ExtractPages(request, metadata=metadata(), timeout=asked_s)
        ]
    seen_s = clean.journal.last.remaining_s
    assert seen_s is not None
    assert more_than_s < seen_s <= at_most_s


async def test_a_passed_deadline_ends_the_call_on_both_sides(edge: Edge, clean: Mesh) -> None:
    clean.summarizing.gate.clear()
    path = f"/v1/{DOCUMENT}:summarize"
    answer = await edge.call("POST", path, body={}, headers={**KEY, "grpc-timeout": "2S"})
    assert (answer.status, answer.json["code"]) == (504, 4)
    await asyncio.wait_for(clean.summarizing.cancelled.wait(), 10)
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await SummarizerServiceStub(channel).Summarize(
                SummarizeRequest(document=DOCUMENT), metadata=(*metadata(), ("grpc-timeout", "300m")), timeout=None
            )
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_goes_away_cancels_the_call(edge: Edge, clean: Mesh) -> None:
    clean.summarizing.gate.clear()
    connection = edge.connection()
    headers = {**KEY, "content-type": "application/json"}
    await asyncio.to_thread(connection.request, "POST", f"/v1/{DOCUMENT}:summarize", "{}", headers)
    await wait_for(lambda: bool(clean.journal.calls), "the call reached the service")
    connection.close()
    await asyncio.wait_for(clean.summarizing.cancelled.wait(), 10)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_only_what_may_be_repeated_is_retried(edge: Edge, clean: Mesh, code: grpc.StatusCode) -> None:
    """CANCELLED is what a gRPC server that stops may answer to what is under way."""
    clean.identities.fail_next = [code]
    assert (await edge.call("GET", "/v1/whoami")).status == 200
    assert [call.method for call in clean.journal.calls] == ["WhoAmI", "WhoAmI"]
    clean.journal.calls.clear()
    clean.identities.fail_next = [code]
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            request = CreateApiKeyRequest(display_name="once")
            await IdentityServiceStub(channel).CreateApiKey(request, metadata=metadata(), timeout=10)
    assert refused.value.code() is code
    assert [call.method for call in clean.journal.calls] == ["CreateApiKey"]


class Load:
    """Calls one after another until it is told to stop."""

    def __init__(self) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._stopping = False

    async def run(self, call: Callable[[], Awaitable[object]]) -> None:
        while not self._stopping:
            try:
                await call()
            except (OSError, AssertionError, grpc.aio.AioRpcError) as error:
                self.failures.append(repr(error))
            self.done += 1

    @asynccontextmanager
    async def under(self, *calls: Callable[[], Awaitable[object]]) -> AsyncIterator["Load"]:
        tasks = [asyncio.create_task(self.run(call)) for call in calls]
        try:
            yield self
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def more(self, calls: int) -> None:
        """Waits until so many more calls have been made."""
        wanted = self.done + calls
        await wait_for(lambda: self.done >= wanted, f"{calls} more calls")


def get_document(edge: Edge, channel: grpc.aio.Channel) -> list[Callable[[], Awaitable[object]]]:
    """The same call over gRPC and over JSON."""
    stub = ExtractorServiceStub(channel)

    async def over_json() -> None:
        assert (await edge.call("GET", f"/v1/{DOCUMENT}")).status == 200

    return [lambda: stub.GetDocument(GetDocumentRequest(name=DOCUMENT), metadata=metadata(), timeout=10), over_json]


@pytest.mark.parametrize("graceful", [True, False], ids=["graceful", "cut"])
async def test_a_replica_restarts_and_nobody_notices(clean: Mesh, new_edge: NewEdge, graceful: bool) -> None:
    second = clean.new_extractor()
    await second.start()
    edge = await new_edge(clean, extractor=f"{clean.extractor.address},{second.address}")
    await edge.wait_healthy("extractor", 2)
    try:
        async with edge.channel() as channel, Load().under(*get_document(edge, channel)) as load:
            await load.more(20)
            if graceful:
                await second.serving(False)
                await edge.wait_healthy("extractor", 1)
            await second.stop(10 if graceful else None)
            await load.more(20)
            await second.start()
            await edge.wait_healthy("extractor", 2)
            await load.more(20)
        assert load.failures == []
    finally:
        await second.stop()


async def test_a_call_under_way_moves_to_another_replica(clean: Mesh, new_edge: NewEdge) -> None:
    dying, steady = Relay(clean.extractor.port), clean.new_extractor()
    await dying.start()
    await steady.start()
    edge = await new_edge(clean, extractor=f"{dying.address},{steady.address}")
    try:
        await edge.wait_healthy("extractor", 2)
        await steady.serving(False)
        await edge.wait_healthy("extractor", 1)
        clean.extracting.gate.clear()
        calls = [asyncio.create_task(edge.call("GET", f"/v1/{DOCUMENT}")) for _ in range(3)]
        await wait_for(lambda: len(clean.journal.calls) == 3, "all calls at the replica that will die")
        await steady.serving(True)
        await edge.wait_healthy("extractor", 2)
        await dying.cut()
        await wait_for(lambda: len(clean.journal.calls) == 6, "the calls at the other replica")
        clean.extracting.gate.set()
        assert [answer.status for answer in await asyncio.gather(*calls)] == [200, 200, 200]
    finally:
        await dying.cut()
        await steady.stop()


async def test_with_no_replica_left_the_answer_is_503(clean: Mesh, new_edge: NewEdge) -> None:
    lonely = clean.new_extractor()
    await lonely.start()
    edge = await new_edge(clean, extractor=lonely.address)
    assert (await edge.call("GET", "/readyz", headers={})).status == 200
    await lonely.serving(False)
    await edge.wait_healthy("extractor", 0)
    answer = await edge.call("GET", f"/v1/{DOCUMENT}")
    assert (answer.status, answer.json["code"], answer.reason) == (503, 14, "UPSTREAM_UNAVAILABLE")
    assert answer.json["message"] == "The service cannot be reached. Try again."
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ExtractorServiceStub(channel).GetDocument(
                GetDocumentRequest(name=DOCUMENT), metadata=metadata(), timeout=10
            )
    assert grpc_error(refused.value) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    not_ready = await edge.call("GET", "/readyz", headers={})
    assert (not_ready.status, not_ready.json["ready"]) == (503, False)
    assert (await edge.call("GET", "/healthz", headers={})).status == 200
    assert (await edge.call("GET", "/v1/whoami")).status == 200, "the others go on"
    await lonely.serving(True)
    await edge.wait_healthy("extractor", 1)
    ready = await edge.call("GET", "/readyz", headers={})
    assert (ready.status, ready.json["ready"]) == (200, True)
    assert dt.datetime.fromisoformat(ready.json["time"]).tzinfo is not None
    await lonely.stop()


async def test_a_service_with_anothers_certificate_is_refused(clean: Mesh, new_edge: NewEdge) -> None:
    impostor = clean.new_extractor(identity="summarizer")
    await impostor.start()
    try:
        edge = await new_edge(clean, extractor=impostor.address, healthy=False)
        await edge.wait_healthy("ledger", 1)
        answer = await edge.call("GET", f"/v1/{DOCUMENT}")
        assert (answer.status, answer.reason) == (503, "UPSTREAM_UNAVAILABLE")
        assert edge.stat("cluster.extractor.ssl.fail_verify_san") > 0
        assert clean.journal.calls == []
    finally:
        await impostor.stop()


async def test_certificates_change_under_load(clean: Mesh, new_edge: NewEdge, mesh_pki: CertificateAuthority) -> None:
    edge = await new_edge(clean)

    def served_serial() -> int:
        with edge.raw() as secure:
            shown = secure.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number

    def current_serial() -> int:
        return x509.load_pem_x509_certificate((mesh_pki.tls_dir("edge") / "tls.crt").read_bytes()).serial_number

    assert served_serial() == current_serial()
    async with edge.channel() as channel, Load().under(*get_document(edge, channel)) as load:
        for _ in range(3):
            before = served_serial()
            await asyncio.to_thread(mesh_pki.rotate, "edge", now=dt.datetime.now(dt.UTC))
            assert current_serial() != before
            await wait_for(lambda: served_serial() == current_serial(), "the new certificate at the door")
            await load.more(10)
    assert load.failures == []


async def test_an_edge_can_be_taken_out_before_it_stops(clean: Mesh, new_edge: NewEdge) -> None:
    edge = await new_edge(clean)
    edge.admin("/healthcheck/fail", "POST")
    for path in ("/healthz", "/readyz"):
        answer = await edge.call("GET", path, headers={})
        assert (answer.status, answer.json["ready"]) == (503, False)
    assert (await edge.call("GET", "/v1/whoami")).status == 200, "those who still come are served"


async def test_admin_and_metrics_are_private(edge: Edge) -> None:
    socket_file = edge.directory / "admin.sock"
    assert socket_file.stat().st_mode & 0o777 == 0o600
    metrics = await asyncio.to_thread(edge.plain, "/metrics")
    assert metrics.status == 200
    assert b"envoy_cluster_membership_healthy" in metrics.body
    assert (await asyncio.to_thread(edge.plain, "/ready")).status == 200
    for path in ("/quitquitquit", "/config_dump", "/", "/metrics/../config_dump"):
        assert (await asyncio.to_thread(edge.plain, path)).status == 404
    assert (await asyncio.to_thread(edge.plain, "/ready", "POST")).status == 404
    assert json.loads(edge.admin("/server_info"))["state"] == "LIVE"
