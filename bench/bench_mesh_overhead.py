"""What Pagemesh adds to the time that a model takes: whole summaries through the edge, ten at once.

The provider is a server that speaks Mistral's API and answers each call after DELAY_S. Its own time is that of the same
client which calls it directly, ten at once, in the same run. A summary is all of it: TLS, Check, reading the document,
the hold, the call, the commit, citations. Documents are short and each is summarised once, so nothing is cached. They
were read before: what reading costs is bench_extract. What is added hardly depends on the delay, and stands in the
detail; the delay is that of a model which writes 300 tokens at 100 a second.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx2
from google.api import httpbody_pb2
from google.protobuf import field_mask_pb2

from bench.bench_cached_summary import pdf
from bench.report import report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.extractor.v1 import extractor_service_pb2_grpc
from pagemesh.summarizer.v1 import summarizer_service_pb2, summarizer_service_pb2_grpc
from tests.fakes.mistral_server import MistralServer

AT_ONCE = 10
ROUNDS = 5
DELAY_S = 3.0
GOAL = 1.10
READ = field_mask_pb2.FieldMask(paths=["text", "words", "flags"])
OPTIONS = summarizer_service_pb2.SummaryOptions(model="mistral/mistral-small-latest")


async def upload(extractor: Any, number: int, metadata: tuple[tuple[str, str], ...]) -> str:
    """A document of its own for each summary, read once."""

    async def pieces() -> AsyncIterator[extractor_pb2.UploadDocumentRequest]:
        lines = (f"Hive number {number} holds one queen and many workers.", "The workers gather nectar all summer.")
        yield extractor_pb2.UploadDocumentRequest(content=httpbody_pb2.HttpBody(data=pdf(lines)))

    answer = await extractor.UploadDocument(pieces(), metadata=metadata, timeout=30)
    name = str(answer.document.name)
    async for _ in extractor.ExtractPages(
        extractor_pb2.ExtractPagesRequest(name=name, read_mask=READ),
        metadata=metadata,
        timeout=60,
    ):
        pass
    return name


async def timed_ms(call: Callable[[int], Awaitable[object]]) -> list[float]:
    """The time of each of AT_ONCE calls."""

    async def one(number: int) -> float:
        begun = time.perf_counter()
        await call(number)
        return (time.perf_counter() - begun) * 1e3

    return list(await asyncio.gather(*map(one, range(AT_ONCE))))


async def measure(stack: RunningStack, provider: MistralServer) -> None:
    metadata = (("authorization", f"Bearer {stack.key}"),)
    credentials = grpc.ssl_channel_credentials(stack.ca_file.read_bytes())
    async with (
        grpc.aio.secure_channel(f"localhost:{stack.ports['edge']}", credentials) as channel,
        httpx2.AsyncClient(timeout=30) as http,
    ):
        extractor = extractor_service_pb2_grpc.ExtractorServiceStub(channel)
        summarizer = summarizer_service_pb2_grpc.SummarizerServiceStub(channel)
        documents = [await upload(extractor, number, metadata) for number in range(AT_ONCE * (ROUNDS + 1))]
        body: dict[str, Any] = {}

        async def summary(number: int) -> None:
            request = summarizer_service_pb2.SummarizeRequest(document=documents.pop(), options=OPTIONS)
            answer = await summarizer.Summarize(request, metadata=metadata, timeout=60)
            if answer.summary.cached or answer.summary.consumption.provider_calls != 1:
                raise RuntimeError("a summary was not made by one call")

        async def direct(number: int) -> None:
            (await http.post(f"{provider.url}/v1/chat/completions", json=body)).raise_for_status()

        await timed_ms(summary)
        body = dict(provider.books.calls[-1])
        ours: list[float] = []
        own: list[float] = []
        for _ in range(ROUNDS):
            provider.script(*[f"slow:{DELAY_S}"] * AT_ONCE)
            own += await timed_ms(direct)
            provider.script(*[f"slow:{DELAY_S}"] * AT_ONCE)
            ours += await timed_ms(summary)
    detail = {
        "at_once": AT_ONCE,
        "summaries": len(ours),
        "provider_p50_ms": round(statistics.median(own), 1),
        "summary_p50_ms": round(statistics.median(ours), 1),
        "added_p50_ms": round(statistics.median(ours) - statistics.median(own), 1),
        "summary_slowest_ms": round(max(ours), 1),
    }
    ratio = statistics.median(ours) / statistics.median(own)
    report("mesh_overhead", ratio=ratio, goal=GOAL, better="lower", detail=detail)


if __name__ == "__main__":
    with MistralServer() as server:
        settings = {"PAGEMESH_MISTRAL_URL": server.url, "PAGEMESH_MISTRAL_API_KEY": "bench"}
        with running_stack(settings) as running:
            asyncio.run(measure(running, server))
