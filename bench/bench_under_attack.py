"""What the extractor's users feel of bombs and of heavy uploads: how long health takes, and how much memory goes.

Health is asked over gRPC and HTTP again and again, first of an idle service and then while bombs keep every parser at
work, from the same machine: the worst answer is held against the 100 ms in which one has to come. Then as many uploads
as the service takes come at once, each of the largest size: the memory that they add is held against
what they weigh.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator

import grpc
import psutil
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.report import report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from tests.integration.extractor import made_pdfs

HEALTH_LIMIT_MS = 100
WATCHED_S = 15.0
MIB = 1024 * 1024
UPLOADS = 8
"""A quarter of the service's places, which is what one tenant may have; so four tenants fill them."""
TENANTS = 4
UPLOAD_BYTES = 50 * MIB
PIECE_BYTES = 256 * 1024
MEMORY_GOAL = 0.15


def bombs() -> list[bytes]:
    return [
        made_pdfs.with_laughing_page(0, 1),
        made_pdfs.with_swelling_page(0, 1),
        made_pdfs.double_deflate_bomb(1_000_000_000),
    ]


class Service:
    """The extractor of a running stack, called directly, as the edge calls it."""

    def __init__(self, stack: RunningStack) -> None:
        parts = [(stack.tls_dir("edge") / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
        self._http_port = stack.ports["extractor_http"]
        self.channel = grpc.aio.secure_channel(
            f"127.0.0.1:{stack.ports['extractor']}",
            grpc.ssl_channel_credentials(*parts),
            options=[("grpc.ssl_target_name_override", "extractor.pagemesh.local")],
        )
        self.stub = ExtractorServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    async def health(self) -> None:
        await self._health.Check(health_pb2.HealthCheckRequest(), timeout=30)

    async def ready(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._http_port)
        writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()

    async def upload(self, tenant: str, pieces: Iterator[bytes]) -> str:
        messages = (pb.UploadDocumentRequest(content=HttpBody(data=piece)) for piece in pieces)
        stored = await self.stub.UploadDocument(messages, metadata=metadata(tenant), timeout=300)
        return str(stored.document.name)

    async def read(self, tenant: str, name: str) -> None:
        request = pb.ExtractPagesRequest(name=name, read_mask=FieldMask(paths=["text"]))
        try:
            async for _ in self.stub.ExtractPages(request, metadata=metadata(tenant), timeout=120):
                pass
        except grpc.aio.AioRpcError as refused:
            if refused.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise


def metadata(tenant: str) -> tuple[tuple[str, str], ...]:
    return (
        ("x-pagemesh-tenant", tenant),
        ("x-pagemesh-actor", "apiKeys/bench"),
        ("x-pagemesh-scopes", "documents.read documents.write"),
    )


async def worst_ms(calls: list[Callable[[], Awaitable[None]]], *, during_s: float) -> tuple[float, float]:
    """The worst and the median of all answers in that time."""
    taken = []
    end = time.perf_counter() + during_s
    while time.perf_counter() < end:
        for call in calls:
            begun = time.perf_counter()
            await call()
            taken.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(0.005)
    return max(taken), sorted(taken)[len(taken) // 2]


async def under_bombs(service: Service) -> None:
    """More bombs than there are parsers, again and again, as new documents each time."""

    async def throw(number: int) -> None:
        kinds = bombs()
        turn = 0
        while True:
            turn += 1
            data = kinds[(number + turn) % len(kinds)] + b"\n%% %d %d" % (number, turn)
            await service.read(f"bomber{number}", await service.upload(f"bomber{number}", iter([data])))

    throwing = [asyncio.create_task(throw(number)) for number in range((os.cpu_count() or 1) + 2)]
    try:
        await asyncio.sleep(2)
        worst, median = await worst_ms([service.health, service.ready], during_s=WATCHED_S)
    finally:
        for task in throwing:
            task.cancel()
        await asyncio.gather(*throwing, return_exceptions=True)
    idle_worst, idle_median = await worst_ms([service.health, service.ready], during_s=3)
    detail = {
        "worst_ms": round(worst, 1),
        "p50_ms": round(median, 2),
        "idle_worst_ms": round(idle_worst, 1),
        "idle_p50_ms": round(idle_median, 2),
        "limit_ms": HEALTH_LIMIT_MS,
        "bombs_at_a_time": len(throwing),
        "cores": os.cpu_count(),
    }
    report("health_under_bombs", ratio=worst / HEALTH_LIMIT_MS, goal=1.0, better="lower", detail=detail)


def heavy(number: int) -> Iterator[bytes]:
    """A file of the largest size that is like no other, made as it is sent."""
    head = made_pdfs.book(1) + b"\n%% %d\n" % number
    yield head
    left = UPLOAD_BYTES - len(head)
    while left:
        size = min(left, PIECE_BYTES)
        yield b"\n" * size
        left -= size


async def heavy_uploads(service: Service, process: psutil.Process) -> None:
    await service.upload("warm", heavy(0))
    before = process.memory_info().rss
    peak = before
    uploads = [
        asyncio.create_task(service.upload(f"uploader{tenant}", heavy(1 + tenant * UPLOADS + number)))
        for tenant in range(TENANTS)
        for number in range(UPLOADS)
    ]
    begun = time.perf_counter()
    while not all(task.done() for task in uploads):
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.02)
    taken_s = time.perf_counter() - begun
    names = await asyncio.gather(*uploads)
    weight = len(set(names)) * UPLOAD_BYTES
    detail = {
        "uploads_at_once": len(set(names)),
        "weight_mib": weight // MIB,
        "before_mib": before // MIB,
        "peak_mib": peak // MIB,
        "mib_per_s": round(weight / MIB / taken_s),
    }
    report("memory_of_uploads", ratio=(peak - before) / weight, goal=MEMORY_GOAL, better="lower", detail=detail)


def extractor_of(stack: RunningStack) -> psutil.Process:
    """The process that listens on the extractor's port."""
    port = stack.ports["extractor"]
    listening = (
        c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and getattr(c.laddr, "port", 0) == port
    )
    return psutil.Process(next(c.pid for c in listening if c.pid))


async def measure(stack: RunningStack) -> None:
    service = Service(stack)
    await under_bombs(service)
    await heavy_uploads(service, extractor_of(stack))
    await service.channel.close()


def main() -> None:
    with running_stack() as stack:
        asyncio.run(measure(stack))


if __name__ == "__main__":
    main()
