"""What a summary costs that is cached already, against what cannot be saved: a gRPC echo and a Redis GET.

All on one machine, one call at a time, from one Python client over mTLS, with every concern of the services on. The
echo is a bare server of Python's gRPC with the same certificates that answers with the bytes of such a summary; the GET
is of the same bytes. Beside it stands a call of the mesh that reads a row (WhoAmI). One document is asked for again and
again: the extractor says once a second that it is still there.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import redis.asyncio as redis
from google.api import httpbody_pb2

from bench.bare_server import running
from bench.echo import METHOD
from bench.report import alternate_p50_us, report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.extractor.v1 import extractor_service_pb2_grpc
from pagemesh.ledger.v1 import identity_service_pb2, identity_service_pb2_grpc
from pagemesh.summarizer.v1 import summarizer_service_pb2, summarizer_service_pb2_grpc
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.credentials import load_credentials
from pagemesh_cli.stack.layout import DataDir

ROUNDS = 1_500
GOAL = 2.5
IDENTITY = (
    ("x-pagemesh-tenant", "local"),
    ("x-pagemesh-actor", "apiKeys/bench"),
    ("x-pagemesh-scopes", "documents.read documents.write summaries.create"),
)
SENTENCES = (
    "Bees make honey from the nectar of many flowers.",
    "A hive holds one queen and thousands of workers.",
    "The workers gather nectar and pollen all summer.",
    "Their dance points to the sun and to the distance.",
    "Honey feeds the whole hive through a long winter.",
    "The queen lays all the eggs of the hive in spring.",
    "Beekeepers take only what the bees can well spare.",
    "Meadows with many flowers keep the hives healthy.",
)


def pdf(lines: tuple[str, ...]) -> bytes:
    """A document of one page with the lines as its text (ISO 32000-1, 7.5)."""
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    content = f"BT /F1 12 Tf 14 TL 50 780 Td {shown} ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    parts = [b"%d 0 obj\n%s\nendobj\n" % (number, body) for number, body in enumerate(objects, start=1)]
    starts = list(itertools.accumulate([9, *map(len, parts)]))
    table = b"".join(b"%010d 00000 n \n" % start for start in starts[:-1])
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, starts[-1])
    return b"%PDF-1.4\n" + b"".join(parts) + head + table + trailer


def channel(stack: RunningStack, service: str, port: int | None = None) -> grpc.aio.Channel:
    folder = CertificateAuthority(stack.root / "pki").tls_dir("edge")
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    )
    options = [("grpc.ssl_target_name_override", f"{service}.pagemesh.local")]
    return grpc.aio.secure_channel(f"127.0.0.1:{port or stack.ports[service]}", credentials, options=options)


async def upload(extractor: Any) -> str:
    async def pieces() -> AsyncIterator[extractor_pb2.UploadDocumentRequest]:
        yield extractor_pb2.UploadDocumentRequest(content=httpbody_pb2.HttpBody(data=pdf(SENTENCES)))

    answer = await extractor.UploadDocument(pieces(), metadata=IDENTITY, timeout=30)
    return str(answer.document.name)


async def cached_bytes(cache: "redis.Redis") -> bytes:
    """The name under which the one summary is cached."""
    async with asyncio.timeout(10):
        while not (names := [name async for name in cache.scan_iter("pagemesh:summary:*")]):
            await asyncio.sleep(0.05)
    return bytes(names[0])


async def measure(stack: RunningStack) -> None:
    channels = {service: channel(stack, service) for service in ("summarizer", "extractor", "ledger")}
    summarizer = summarizer_service_pb2_grpc.SummarizerServiceStub(channels["summarizer"])
    identity = identity_service_pb2_grpc.IdentityServiceStub(channels["ledger"])
    document = await upload(extractor_service_pb2_grpc.ExtractorServiceStub(channels["extractor"]))
    request = summarizer_service_pb2.SummarizeRequest(document=document)
    password = load_credentials(DataDir(stack.root)).valkey_password
    cache = redis.Redis(port=stack.ports["valkey"], password=password, protocol=3)
    fresh = await summarizer.Summarize(request, metadata=IDENTITY, timeout=60)
    name = await cached_bytes(cache)
    async with asyncio.timeout(30):
        # On a busy machine the cache may be too slow for its 50 ms, which says nothing of what a hit takes.
        while not (await summarizer.Summarize(request, metadata=IDENTITY, timeout=10)).summary.cached:
            pass
    nothing = identity_service_pb2.WhoAmIRequest()

    async def cached() -> None:
        answer = await summarizer.Summarize(request, metadata=IDENTITY, timeout=10)
        if not answer.summary.cached:
            raise RuntimeError("the summary was not cached")

    async def call() -> None:
        await identity.WhoAmI(nothing, metadata=IDENTITY, timeout=10)

    async def get() -> None:
        await cache.get(name)

    with running("bench.echo", str(stack.tls_dir("summarizer")), str(fresh.ByteSize())) as port:
        channels["echo"] = channel(stack, "summarizer", port)
        bare: Any = channels["echo"].unary_unary(METHOD)

        async def echo() -> None:
            await bare(request.SerializeToString(), metadata=IDENTITY, timeout=10)

        cached_us, call_us, echo_us, get_us = await alternate_p50_us(ROUNDS, cached, call, echo, get)
    detail = {
        "cached_summary_p50_us": round(cached_us),
        "mesh_call_p50_us": round(call_us),
        "echo_p50_us": round(echo_us),
        "redis_get_p50_us": round(get_us),
        "ratio_to_mesh_call_and_get": round(cached_us / (call_us + get_us), 3),
        "summary_bytes": len(await cache.get(name) or b""),
        "rounds": ROUNDS,
    }
    await cache.aclose()
    await asyncio.gather(*(open_channel.close() for open_channel in channels.values()))
    report("cached_summary", ratio=cached_us / (echo_us + get_us), goal=GOAL, better="lower", detail=detail)


if __name__ == "__main__":
    with running_stack() as own_stack:
        asyncio.run(measure(own_stack))
