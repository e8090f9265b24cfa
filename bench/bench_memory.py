"""Whether memory stays flat: peak of the service and its parsers for 10,000 pages against that for 500.

Resident memory of the extractor and of all processes below it is summed up every 20 ms while the text and the words of
a document are read over gRPC; pages that processes share are counted in each of them. Made pages of dense text.
"""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import psutil
from google.protobuf.field_mask_pb2 import FieldMask

from bench.bench_extract import Service, channel, made_file
from bench.cpu_seconds import extractor
from bench.report import report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2 as pb

GOAL = 1.15
EVERY_S = 0.02
_MIB = 1024 * 1024


def rss_bytes(service: psutil.Process) -> int:
    """Of the service and what is below it."""
    total = 0
    for process in (service, *service.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


async def peak_bytes(service: psutil.Process, caller: Service, path: Path, *, pages: int) -> int:
    """While the document is read and until it is stored."""
    name = await caller.upload(made_file(path, pages=pages).read_bytes())
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, rss_bytes(service))
            await asyncio.sleep(EVERY_S)

    watching = asyncio.create_task(watch())
    try:
        request = pb.ExtractPagesRequest(name=name, read_mask=FieldMask(paths=["text", "words"]))
        seen = 0
        async for response in caller.stub.ExtractPages(request, metadata=caller.metadata, timeout=290):
            seen += response.WhichOneof("event") == "page"
        await caller.stored(1)
    finally:
        watching.cancel()
    if seen != pages:
        raise RuntimeError(f"{seen} of {pages} pages came")
    return peak


async def measure(stack: RunningStack, made_in: Path) -> None:
    service = extractor(stack)
    async with channel(stack, stack.ports["extractor"]) as opened:
        await peak_bytes(service, Service(opened, "warm"), made_in / "warm.pdf", pages=500)
        few = await peak_bytes(service, Service(opened, "few"), made_in / "few.pdf", pages=500)
        many = await peak_bytes(service, Service(opened, "many"), made_in / "many.pdf", pages=10_000)
    detail = {"peak_mib_500_pages": round(few / _MIB), "peak_mib_10000_pages": round(many / _MIB)}
    report("peak_memory_10000_pages_over_500", ratio=many / few, goal=GOAL, better="lower", detail=detail)


def main() -> None:
    with tempfile.TemporaryDirectory() as made_in, running_stack() as stack:
        asyncio.run(measure(stack, Path(made_in)))


if __name__ == "__main__":
    main()
