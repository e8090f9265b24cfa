"""What spans cost a request: the same calls through the edge with their trace recorded and not recorded, in turns.

The stack exports to a collector that keeps nothing, in this process. Whether a trace is recorded, each call says in its
`traceparent`, so that both kinds meet the same processes at the same time. GetDocument is the smallest way: the edge,
Check, one service, its database. A summary that is cached asks one service more. Goal: a tenth more at most.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import grpc
from google.api import httpbody_pb2

from bench.bench_cached_summary import pdf
from bench.report import alternate_p50_us, report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2, extractor_service_pb2_grpc
from pagemesh.summarizer.v1 import summarizer_service_pb2, summarizer_service_pb2_grpc
from tests.fakes.collector import Collector, collecting

ROUNDS = 600
GOAL = 1.10


async def measure(stack: RunningStack, collector: Collector) -> None:
    key = ("authorization", f"Bearer {stack.key}")
    credentials = grpc.ssl_channel_credentials(stack.ca_file.read_bytes())

    def traced(flags: str) -> tuple[tuple[str, str], ...]:
        return key, ("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}")

    async with grpc.aio.secure_channel(f"localhost:{stack.ports['edge']}", credentials) as channel:
        extractor = extractor_service_pb2_grpc.ExtractorServiceStub(channel)
        summarizer = summarizer_service_pb2_grpc.SummarizerServiceStub(channel)

        async def pieces() -> AsyncIterator[extractor_service_pb2.UploadDocumentRequest]:
            lines = ("A hive holds one queen and many workers.", "The workers gather nectar all summer.")
            yield extractor_service_pb2.UploadDocumentRequest(content=httpbody_pb2.HttpBody(data=pdf(lines)))

        document = (await extractor.UploadDocument(pieces(), metadata=traced("00"), timeout=30)).document.name

        async def get(flags: str) -> None:
            request = extractor_service_pb2.GetDocumentRequest(name=document)
            await extractor.GetDocument(request, metadata=traced(flags), timeout=30)

        async def summary(flags: str) -> None:
            request = summarizer_service_pb2.SummarizeRequest(document=document)
            await summarizer.Summarize(request, metadata=traced(flags), timeout=30)

        calls: dict[str, Callable[[str], Awaitable[None]]] = {"get_document": get, "cached_summary": summary}
        for name, call in calls.items():
            before = len(collector.spans)
            for flags in ("00", "01"):
                await call(flags)
            off, on = await alternate_p50_us(ROUNDS, partial(call, "00"), partial(call, "01"))
            detail = {"calls": ROUNDS, "off_p50_us": round(off), "on_p50_us": round(on)}
            detail["spans"] = len(collector.spans) - before
            report(f"tracing_{name}", ratio=on / off, goal=GOAL, better="lower", detail=detail)


if __name__ == "__main__":
    with collecting() as running, running_stack({"PAGEMESH_OTLP_ENDPOINT": running.endpoint}) as started:
        asyncio.run(measure(started, running))
