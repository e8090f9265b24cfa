"""A service of the mesh as its peers meet it: over mTLS, in all four shapes of a call."""

import asyncio
import datetime as dt
import json
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pagemesh.extractor.v1 import extractor_service_pb2, extractor_service_pb2_grpc
from pagemesh.ledger.v1 import ledger_service_pb2_grpc
from pagemesh_cli.stack.certificates import CertificateAuthority
from services.runtime import errors
from services.runtime.call import acting_as, enter
from services.runtime.health import Health
from services.runtime.middleware import in_order
from tests.integration.runtime.conftest import Connect, Start
from tests.integration.runtime.servicers import ACME, DOCUMENT, HOLD, Extractor, Ledger, extractor, ledger, reserve


def test_the_order_of_the_concerns() -> None:
    def audited(*_: object) -> None: ...

    def admitted(*_: object) -> None: ...

    names = " ".join(concern.__name__ for concern in in_order(audited, admission=admitted))
    assert names == "request_id traced Told Errors audited deadline auth admitted validation"


async def test_identity_request_id_trace_and_deadline_travel(start: Start, connect: Connect) -> None:
    servicer = Ledger()
    running = await start(ledger(servicer))
    client = connect("summarizer", running.target)
    with acting_as(ACME, request_id="request-12345") as mine:
        answer = await client.unary(
            ledger_service_pb2_grpc.LedgerServiceStub(client.channel).Reserve, reserve(), cap_s=20
        )
    assert answer.hold.model == "acme"
    (call,) = servicer.seen
    assert call.peer == "summarizer"
    assert call.identity == ACME
    assert call.request_id == "request-12345"
    assert call.trace.trace_id == mine.trace.trace_id
    assert 0 < call.deadline - asyncio.get_running_loop().time() <= 20


async def test_errors_reach_the_caller_whole_and_bugs_stay_inside(
    start: Start, connect: Connect, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await start(ledger(Ledger()))
    client = connect("summarizer", running.target)
    stub = ledger_service_pb2_grpc.LedgerServiceStub(client.channel)
    with acting_as(ACME, request_id="request-12345"):
        with pytest.raises(errors.ResourceExhausted, match="BUDGET_EXCEEDED") as full:
            await client.unary(stub.Reserve, reserve("x/budget"), cap_s=20)
        assert full.value.quota == errors.QuotaViolation("tenants/acme", "hard")
        assert full.value.retry_after_s == 3
        with pytest.raises(errors.InvalidArgument, match="INVALID_FIELD") as invalid:
            await client.unary(stub.Reserve, reserve("a"), cap_s=20)
        assert [violation.field for violation in invalid.value.fields] == ["model"]
        with pytest.raises(errors.InternalError) as bug:
            await client.unary(stub.Reserve, reserve("x/bug"), cap_s=20)
    assert "planted-secret" not in str(bug.value)
    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    story = [line for line in logged if line["event"] == "internal_error"]
    assert "planted-secret" in story[0]["exception"]
    assert story[0]["request_id"] == "request-12345"
    calls = [(line["code"], line["reason"]) for line in logged if line["event"] == "call"]
    assert ("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED") in calls


async def test_bytes_that_are_no_message_are_the_callers_fault(start: Start, connect: Connect) -> None:
    running = await start(ledger(Ledger()))
    client = connect("summarizer", running.target)
    call = client.channel.unary_unary("/pagemesh.ledger.v1.LedgerService/Reserve", lambda data: data, lambda data: data)
    with acting_as(ACME, request_id="request-12345"), pytest.raises(errors.InvalidArgument, match="INVALID_REQUEST"):
        await client.unary(call, b"\x0a\x02\xff\xfe", cap_s=20)


async def test_a_call_does_not_outlive_its_deadline(start: Start, connect: Connect) -> None:
    servicer = Ledger()
    running = await start(ledger(servicer))
    client = connect("summarizer", running.target)
    stub = ledger_service_pb2_grpc.LedgerServiceStub(client.channel)
    with acting_as(ACME, request_id="request-12345"), pytest.raises(errors.Unavailable, match="LEDGER_TIMEOUT"):
        await client.unary(stub.Reserve, reserve("x/hang"), cap_s=2)
    async with asyncio.timeout(20):
        await servicer.cancelled.wait()


async def test_cancelling_a_call_cancels_its_work(start: Start, connect: Connect) -> None:
    servicer = Ledger()
    running = await start(ledger(servicer))
    client = connect("summarizer", running.target)
    stub = ledger_service_pb2_grpc.LedgerServiceStub(client.channel)
    with acting_as(ACME, request_id="request-12345"):
        task = asyncio.create_task(client.unary(stub.Reserve, reserve("x/hang"), cap_s=60))
        async with asyncio.timeout(20):
            await servicer.entered.wait()
            task.cancel()
            await servicer.cancelled.wait()


async def test_who_may_connect_and_call(start: Start, connect: Connect, mesh_pki: CertificateAuthority) -> None:
    running = await start(ledger(Ledger()), peers="edge,summarizer")
    with acting_as(ACME, request_id="request-12345"):
        for identity, reason in (("edge", "METHOD_NOT_ALLOWED"), ("extractor", "PEER_NOT_ALLOWED")):
            client = connect(identity, running.target)
            stub = ledger_service_pb2_grpc.LedgerServiceStub(client.channel)
            with pytest.raises(errors.PermissionDenied, match=reason):
                await client.unary(stub.Reserve, reserve(), cap_s=20)
    authority = mesh_pki.ca_file.read_bytes()
    async with grpc.aio.secure_channel(
        running.target,
        grpc.ssl_channel_credentials(authority),
        options=[("grpc.ssl_target_name_override", "ledger.pagemesh.local")],
    ) as nameless:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(nameless).Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_each_message_of_an_upload_is_checked(start: Start, connect: Connect) -> None:
    servicer = Extractor()
    running = await start(extractor(servicer))
    client = connect("edge", running.target)
    stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)

    def chunk(size: int) -> extractor_service_pb2.UploadDocumentRequest:
        return extractor_service_pb2.UploadDocumentRequest(content=httpbody_pb2.HttpBody(data=b"x" * size))

    with acting_as(ACME, request_id="request-12345"):
        done = await client.unary(stub.UploadDocument, iter([chunk(5), chunk(1024 * 1024)]), cap_s=20)
        assert done.created
        with pytest.raises(errors.InvalidArgument) as refused:
            await client.unary(stub.UploadDocument, iter([chunk(5), chunk(1024 * 1024 + 1)]), cap_s=20)
    assert refused.value.fields[0].field == "content"
    assert servicer.received == [5, 1024 * 1024, 5]


async def test_an_error_in_mid_stream_is_an_event_and_a_status(start: Start, connect: Connect) -> None:
    servicer = Extractor()
    running = await start(extractor(servicer))
    client = connect("summarizer", running.target)
    stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)
    events: list[str] = []
    with acting_as(ACME, request_id="request-12345"):
        with pytest.raises(errors.Unavailable, match="STORE_UNAVAILABLE"):
            async for event in client.stream(
                stub.ExtractPages, extractor_service_pb2.ExtractPagesRequest(name=DOCUMENT), cap_s=20
            ):
                events.append(event.WhichOneof("event"))
        assert events == ["start", "page", "page", "error"]
        with pytest.raises(errors.NotFound, match="DOCUMENT_NOT_FOUND"):
            async for event in client.stream(
                stub.ExtractPages, extractor_service_pb2.ExtractPagesRequest(name=DOCUMENT, first_page=9), cap_s=20
            ):
                pytest.fail(f"an error before the first message is a status alone, not {event}")


async def test_a_deadline_in_mid_stream_is_an_event_too(start: Start, connect: Connect) -> None:
    running = await start(extractor(Extractor()))
    client = connect("summarizer", running.target)
    stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)
    request = extractor_service_pb2.ExtractPagesRequest(name=DOCUMENT, first_page=8)
    events = []
    with acting_as(ACME, request_id="request-12345"), pytest.raises(errors.Unavailable, match="LEDGER_TIMEOUT"):
        async for event in client.stream(stub.ExtractPages, request, cap_s=3):
            events.append(event)
    assert [event.WhichOneof("event") for event in events] == ["start", "error"]
    assert events[-1].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_callers_hurry_does_not_trip_the_breaker(start: Start, connect: Connect) -> None:
    running = await start(ledger(Ledger()))
    client = connect("summarizer", running.target)
    stub = ledger_service_pb2_grpc.LedgerServiceStub(client.channel)
    loop = asyncio.get_running_loop()
    with acting_as(ACME, request_id="request-12345") as call:
        for _ in range(8):
            enter(replace(call, deadline=loop.time() + 0.05))
            with pytest.raises(errors.DeadlineExceeded):
                await client.unary(stub.Reserve, reserve("x/hang"), cap_s=20)
        enter(replace(call, deadline=None))
        assert (await client.unary(stub.Reserve, reserve(), cap_s=20)).hold.hold_id == HOLD


async def test_leaving_a_stream_stops_its_work(start: Start, connect: Connect) -> None:
    servicer = Extractor()
    running = await start(extractor(servicer))
    client = connect("summarizer", running.target)
    stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)
    request = extractor_service_pb2.ExtractPagesRequest(name=DOCUMENT, first_page=7)
    with acting_as(ACME, request_id="request-12345"):
        stream = client.stream(stub.ExtractPages, request, cap_s=60)
        await anext(stream)
        await stream.aclose()
    async with asyncio.timeout(20):
        await servicer.closed.wait()


async def test_reflection_and_health_answer_an_operator(start: Start, connect: Connect) -> None:
    running = await start(ledger(Ledger()))
    client = connect("operator", running.target)
    reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in reflection.ServerReflectionInfo(iter([asked]), timeout=20)]
    names = {service.name for service in answers[0].list_services_response.service}
    assert "pagemesh.ledger.v1.LedgerService" in names
    health = health_pb2_grpc.HealthStub(client.channel)
    told = await health.Check(health_pb2.HealthCheckRequest(service="pagemesh.ledger.v1.LedgerService"), timeout=20)
    assert told.status == health_pb2.HealthCheckResponse.SERVING
    every = (await health.List(health_pb2.HealthListRequest(), timeout=20)).statuses
    assert {name: told.status for name, told in every.items()} == dict.fromkeys(
        ("", "pagemesh.ledger.v1.LedgerService"), health_pb2.HealthCheckResponse.SERVING
    )


async def http_get(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_required_component_decides_readiness(start: Start, connect: Connect) -> None:
    health = Health()
    up = {"database": False, "cache": False}

    def check(name: str) -> Any:
        async def probe() -> None:
            if not up[name]:
                raise ConnectionError("down")

        return probe

    health.add("database", check("database"))
    health.add("cache", check("cache"), required=False)
    running = await start(ledger(Ledger()), health=health)
    client = connect("operator", running.target)
    stub = health_pb2_grpc.HealthStub(client.channel)
    code, body = await http_get(running.server.http_port, "/readyz")
    assert code == 503
    assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == 2
    up["database"] = True
    await health.probe()
    code, body = await http_get(running.server.http_port, "/readyz")
    report = json.loads(body)
    assert (code, report["ready"], report["components"]["cache"]["up"]) == (200, True, False)
    assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)).status == 1
    assert (await http_get(running.server.http_port, "/livez"))[0] == 200
    code, metrics = await http_get(running.server.http_port, "/metrics")
    assert b'pagemesh_component_up{component="database"} 1.0' in metrics
    assert (await http_get(running.server.http_port, "/etc/passwd"))[0] == 404
    up["database"] = False
    await health.probe()
    assert health.ready, "one failed probe is not yet an outage"
    await health.probe()
    assert not health.ready


async def test_stopping_says_so_first_and_lets_calls_end(start: Start, connect: Connect) -> None:
    running = await start(ledger(Ledger()), drain_s=30)
    client = connect("operator", running.target)
    stub = health_pb2_grpc.HealthStub(client.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    running.stop.set()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    worker = connect("summarizer", running.target)
    with acting_as(ACME, request_id="request-12345"):
        late = await worker.unary(
            ledger_service_pb2_grpc.LedgerServiceStub(worker.channel).Reserve, reserve(), cap_s=20
        )
    assert late.hold.hold_id == HOLD
    watch.cancel()
    running.task.cancel()
    await asyncio.wait([running.task])
    running.task = asyncio.create_task(asyncio.sleep(0))


async def test_a_port_in_use_is_an_error(start: Start) -> None:
    running = await start(ledger(Ledger()))
    with pytest.raises(OSError, match="in use"):
        await start(ledger(Ledger()), grpc_listen=running.target)


async def test_new_certificates_are_taken_up_without_a_restart(start: Start, connect: Connect, tmp_path: Any) -> None:
    authority = CertificateAuthority(tmp_path / "pki")
    authority.ensure(now=dt.datetime.now(dt.UTC))
    running = await start(ledger(Ledger()), tls_dir=authority.tls_dir("ledger"))

    async def served_certificate() -> bytes:
        import ssl

        context = ssl.create_default_context(cafile=str(authority.ca_file))
        context.check_hostname = False
        folder = authority.tls_dir("operator")
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.set_alpn_protocols(["h2"])
        host, port = running.target.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return bytes(certificate)

    before = await served_certificate()
    authority.rotate("ledger", now=dt.datetime.now(dt.UTC))
    after = await served_certificate()
    assert after != before
    foreign_key = (authority.tls_dir("edge") / "tls.key").read_bytes()
    (authority.tls_dir("ledger") / "tls.key").write_bytes(foreign_key)
    assert await served_certificate() == after, "a key that is another certificate's is left alone"
