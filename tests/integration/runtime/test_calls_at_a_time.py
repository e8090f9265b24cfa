"""A tenant has so many calls at a time in a service: the next is refused, and each end of one makes room."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from google.api import httpbody_pb2

from pagemesh.extractor.v1 import extractor_service_pb2, extractor_service_pb2_grpc
from services.admission.calls_at_a_time import CallsAtATime
from services.runtime import errors
from services.runtime.call import Identity, acting_as
from services.runtime.clients import MeshClient
from tests.integration.runtime.conftest import Connect, Start
from tests.integration.runtime.servicers import ACME, DOCUMENT, Extractor, extractor

OTHER = replace(ACME, tenant="other")


def stub_of(client: MeshClient) -> Any:
    return extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)


def pages(client: MeshClient, *, first: int = 8, cap_s: float = 60) -> AsyncGenerator[Any, None]:
    """A stream; from page 8 on it never ends, page 9 is not there, and page 7 begins thousands."""
    request = extractor_service_pb2.ExtractPagesRequest(name=DOCUMENT, first_page=first)
    return client.stream(stub_of(client).ExtractPages, request, cap_s=cap_s)


async def begun(client: MeshClient, identity: Identity) -> Any:
    """A stream of which the first message was read."""
    with acting_as(identity, request_id="request-12345"):
        stream = pages(client)
        await anext(stream)
    return stream


async def test_one_more_is_refused_to_that_tenant_alone(start: Start, connect: Connect) -> None:
    running = await start(extractor(Extractor()), calls_per_tenant=2)
    edge, summarizer = connect("edge", running.target), connect("summarizer", running.target)
    streams = [await begun(edge, ACME), await begun(edge, ACME)]
    for _ in range(3):
        with pytest.raises(errors.ResourceExhausted, match="TOO_MANY_CALLS") as refused:
            await begun(edge, ACME)
    assert refused.value.quota == errors.QuotaViolation("tenants/acme", "2 calls at a time")
    assert refused.value.retry_after_s == 1
    streams.append(await begun(edge, OTHER))
    # What the mesh itself does for the tenant is part of calls that were let in.
    streams.extend([await begun(summarizer, ACME) for _ in range(3)])
    for stream in streams:
        await stream.aclose()


async def finished(client: MeshClient, _: Extractor) -> None:
    chunk = extractor_service_pb2.UploadDocumentRequest(content=httpbody_pb2.HttpBody(data=b"x"))
    await client.unary(stub_of(client).UploadDocument, iter([chunk]), cap_s=20)


async def failed(client: MeshClient, _: Extractor) -> None:
    with pytest.raises(errors.NotFound):
        await anext(pages(client, first=9))


async def left(client: MeshClient, _: Extractor) -> None:
    """In the middle, while the service has more to send."""
    stream = pages(client, first=7)
    await anext(stream)
    await stream.aclose()


async def out_of_time(client: MeshClient, _: Extractor) -> None:
    with pytest.raises(errors.Unavailable, match="LEDGER_TIMEOUT"):
        async for _event in pages(client, cap_s=1):
            pass


async def cancelled(client: MeshClient, servicer: Extractor) -> None:
    """Before the service has all that it waits for."""

    async def endless() -> AsyncIterator[extractor_service_pb2.UploadDocumentRequest]:
        yield extractor_service_pb2.UploadDocumentRequest(content=httpbody_pb2.HttpBody(data=b"x"))
        await asyncio.Event().wait()

    upload = asyncio.create_task(client.unary(stub_of(client).UploadDocument, endless(), cap_s=60))
    while not servicer.received:
        await asyncio.sleep(0)
    upload.cancel()


@pytest.mark.parametrize("end", [finished, failed, left, out_of_time, cancelled], ids=lambda end: end.__name__)
async def test_every_end_of_a_call_makes_room(
    start: Start, connect: Connect, end: Callable[[MeshClient, Extractor], Awaitable[None]]
) -> None:
    servicer = Extractor()
    running = await start(extractor(servicer), calls_per_tenant=1)
    client = connect("edge", running.target)
    with acting_as(ACME, request_id="request-12345"):
        await end(client, servicer)
        async with asyncio.timeout(60):
            while True:
                try:
                    await failed(client, servicer)
                    return
                except errors.ResourceExhausted:
                    continue


async def test_refusals_take_no_place_and_nothing_is_kept_of_who_has_left() -> None:
    calls = CallsAtATime(2)

    def place(tenant: str, peer: str = "edge") -> Any:
        call = SimpleNamespace(peer=peer, identity=replace(ACME, tenant=tenant))
        return calls(SimpleNamespace(call=call), None)  # type: ignore[arg-type]  # all of them that it looks at

    assert place("acme", peer="summarizer") is None
    async with place("acme"), place("other"):
        async with place("acme"):
            for _ in range(3):
                with pytest.raises(errors.ResourceExhausted):
                    await place("acme").__aenter__()
            assert calls.open == {"acme": 2, "other": 1}
        assert calls.open == {"acme": 1, "other": 1}
    assert calls.open == {}
