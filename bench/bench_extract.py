"""How fast pages come out of the extractor: text over gRPC and mTLS, against PyMuPDF alone on the same files.

The peer is `page.get_text()` in as many processes as there are cores, each with PyMuPDF imported before the clock
starts; each document is a task of its own, whose texts come back to the caller, as anybody needs them who reads them.
The service has as many parser processes; its client, a generated stub in an event loop of uvloop, runs on the same
cores and takes its share of them, and so do Postgres and the task that store the pages and index them. A second peer is
the least that a Python service can be (bare_service): gRPC and mTLS before the same processes and nothing else, in the
same kind of loop and with the same client. What it reaches of the first is the limit. All three read the same documents
in the same order, with the same flags.

Files are those of the corpus (`clean` and `papers`), or made ones where it is absent, several times over: each copy
differs in its last bytes, so that it is a document of its own. Each round has a tenant of its own, so the first time is
the first time. Then the same documents are read again, out of the store. In each round the peer goes before the service
and after it, and the service is compared with the mean of the two, so that a machine whose speed drifts does not count;
the median of the rounds' ratios does. CPU seconds of each process are told beside them: they move less.
"""

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pymupdf
import uvloop
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask

from bench.bare_server import running
from bench.bare_service import METHOD
from bench.cpu_seconds import CpuMeter, alone, below, extractor, postgres, several, tree
from bench.report import report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1.extraction_pb2 import OCR_MODE_OFF
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CORES = os.cpu_count() or 1
STREAMS = 2 * CORES + 1
"""Calls at a time: some wait for a parser while others begin and end, so that the parsers never do."""
GOAL = 0.8
CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
COPIES = 4
STORED_GOAL = 5.0
FIRST_PAGE_GOAL_MS = 500


def readable_files(made_in: Path) -> list[Path]:
    """The corpus, or made files of dense text."""
    found = [path for folder in ("clean", "papers") for path in sorted((CORPUS / folder).glob("*.pdf"))]
    readable = [path for path in found if raw_pages(path)]
    return readable or [made_file(made_in / f"{number}.pdf", pages=40) for number in range(20)]


def made_file(path: Path, *, pages: int) -> Path:
    """Pages of dense text: twenty different ones, again and again."""
    with pymupdf.open() as twenty, pymupdf.open() as document:
        for number in range(20):
            text = f"page {number}: " + "the quick brown fox jumps over the lazy dog " * 80
            twenty.new_page().insert_textbox(pymupdf.Rect(50, 50, 550, 800), text)
        for _ in range(pages // 20):
            document.insert_pdf(twenty)
        document.save(path)
    return path


def raw_pages(path: Path) -> int:
    """How many pages of a file can be read."""
    with pymupdf.open(path) as document:
        return sum(1 for page in document if page.get_text("text") is not None)


def raw_texts(path: Path) -> list[str]:
    """The peer: the text of each page of a file."""
    with pymupdf.open(path) as document:
        return [page.get_text("text") for page in document]


@dataclass(frozen=True)
class Service:
    """The extractor of a running stack, called directly, as the edge calls it, for one tenant."""

    channel: grpc.aio.Channel
    tenant: str

    @property
    def stub(self) -> Any:
        return ExtractorServiceStub(self.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (
            ("x-pagemesh-tenant", self.tenant),
            ("x-pagemesh-actor", "apiKeys/bench"),
            ("x-pagemesh-scopes", "documents.read documents.write"),
        )

    async def upload(self, data: bytes) -> str:
        response = await self.stub.UploadDocument(pieces(data), metadata=self.metadata, timeout=60)
        return str(response.document.name)

    async def extract(self, names: Sequence[str]) -> int:
        """All pages of all documents over STREAMS calls at a time; answers how many there were."""
        left = iter(names)
        stub = self.stub

        async def stream() -> int:
            return sum([await self._pages(stub, name) for name in left])

        return sum(await asyncio.gather(*(stream() for _ in range(STREAMS))))

    async def stored(self, documents: int) -> None:
        """Waits until all pages are stored and indexed."""
        request = pb.ListDocumentsRequest(page_size=1000)
        while True:
            answer = await self.stub.ListDocuments(request, metadata=self.metadata, timeout=60)
            known = sum(1 for found in answer.documents if found.HasField("page_count"))
            if known == documents:
                return
            await asyncio.sleep(0.02)

    async def _pages(self, stub: Any, name: str) -> int:
        request = pb.ExtractPagesRequest(name=name, read_mask=FieldMask(paths=["text"]), ocr=OCR_MODE_OFF, bursts=True)
        pages = 0
        async for response in stub.ExtractPages(request, metadata=self.metadata, timeout=120):
            events = response.burst.events or (response,)
            pages += sum(event.HasField("page") for event in events)
        return pages

    async def first_page_ms(self, name: str) -> float:
        request = pb.ExtractPagesRequest(name=name, read_mask=FieldMask(paths=["text"]))
        begun = time.perf_counter()
        call = self.stub.ExtractPages(request, metadata=self.metadata, timeout=60)
        async for response in call:
            if response.WhichOneof("event") == "page":
                break
        taken = (time.perf_counter() - begun) * 1000
        call.cancel()
        return taken


@contextlib.contextmanager
def bare_service(stack: RunningStack) -> Iterator[int]:
    """Its port."""
    tls = CertificateAuthority(stack.root / "pki").tls_dir("extractor")
    with running("bench.bare_service", str(tls)) as port:
        yield port


async def bare_pages(opened: grpc.aio.Channel, files: Sequence[Path]) -> int:
    """All pages of all files from the bare service, over STREAMS calls at a time; answers how many there were."""
    left = iter(files)
    call: Any = opened.unary_stream(METHOD, response_deserializer=pb.ExtractPagesResponse.FromString)

    async def stream() -> int:
        pages = 0
        for path in left:
            async for response in call(str(path).encode(), timeout=120):
                pages += len(response.burst.events)
        return pages

    return sum(await asyncio.gather(*(stream() for _ in range(STREAMS))))


def channel(stack: RunningStack, port: int) -> grpc.aio.Channel:
    """To a service with the extractor's certificate, with the edge's."""
    folder = CertificateAuthority(stack.root / "pki").tls_dir("edge")
    parts = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    return grpc.aio.secure_channel(
        f"127.0.0.1:{port}",
        grpc.ssl_channel_credentials(*parts),
        options=[
            ("grpc.ssl_target_name_override", "extractor.pagemesh.local"),
            ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        ],
    )


def pieces(data: bytes) -> Iterator[pb.UploadDocumentRequest]:
    for begin in range(0, len(data), 256 * 1024):
        yield pb.UploadDocumentRequest(content=HttpBody(data=data[begin : begin + 256 * 1024]))


@dataclass
class Figures:
    """One figure a round: pages a second, and CPU seconds for 1,000 pages by who took them."""

    raw: list[float] = field(default_factory=list)
    """Mean of before and after the service."""
    bare: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    until_stored: list[float] = field(default_factory=list)
    stored: list[float] = field(default_factory=list)
    first_page_ms: list[float] = field(default_factory=list)
    cpu: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        values: list[float] = getattr(self, name)
        return statistics.median(values)

    def ratio(self, name: str, to: str) -> float:
        """The median of the rounds' ratios."""
        ours: list[float] = getattr(self, name)
        theirs: list[float] = getattr(self, to)
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

    def cpu_medians(self) -> dict[str, dict[str, float]]:
        """CPU seconds for 1,000 pages, by what was done and by whom."""
        return {
            what: {who: round(statistics.median(each[who] for each in rounds), 3) for who in rounds[0]}
            for what, rounds in self.cpu.items()
        }


@dataclass(frozen=True)
class Sides:
    """All that is measured, over the same `paths` in the same order."""

    pool: Any
    bare: grpc.aio.Channel
    service: grpc.aio.Channel
    paths: Sequence[Path]
    meter: CpuMeter
    figures: Figures

    async def raw(self) -> int:
        return sum(len(texts) for texts in self.pool.imap_unordered(raw_texts, self.paths))

    async def timed(self, what: str, work: Callable[[], Awaitable[int]], *roles: str) -> float:
        """Pages a second; the CPU time of `roles` goes to the figures."""
        self.meter.begin()
        begun = time.perf_counter()
        pages = await work()
        taken_s = time.perf_counter() - begun
        cpu = self.meter.taken()
        by_role = {role: cpu[role] * 1000 / pages for role in roles}
        self.figures.cpu.setdefault(what, []).append({**by_role, "sum": sum(by_role.values())})
        return pages / taken_s


async def measure(stack: RunningStack, files: Sequence[Path], long_file: Path) -> Figures:
    long_data = long_file.read_bytes()
    copies = [path.read_bytes() + b"\n%% copy %d\n" % copy for copy in range(COPIES) for path in files]
    with bare_service(stack) as bare_port, multiprocessing.get_context("spawn").Pool(CORES) as pool:
        await asyncio.to_thread(pool.map, raw_pages, files, 1)
        meter = cpu_meter(stack)
        async with channel(stack, stack.ports["extractor"]) as opened, channel(stack, bare_port) as bare:
            sides = Sides(pool, bare, opened, [path for _ in range(COPIES) for path in files], meter, Figures())
            for number in range(ROUNDS + 1):
                await one_round(sides, number, copies, long_data)
    return sides.figures


def cpu_meter(stack: RunningStack) -> CpuMeter:
    """Counts the processes of all sides."""
    service, database, ourselves = extractor(stack), postgres(stack), psutil.Process()
    raw = [psutil.Process(process.pid) for process in multiprocessing.active_children()]
    bare = [process for process in ourselves.children() if "bench.bare_service" in process.cmdline()]
    return CpuMeter(
        {
            "client": lambda: alone(ourselves),
            "raw": lambda: several(raw),
            "bare": lambda: several(bare),
            "service": lambda: alone(service),
            "parsers": lambda: below(service),
            "postgres": lambda: tree(database),
        }
    )


async def one_round(sides: Sides, number: int, copies: Sequence[bytes], long_data: bytes) -> None:
    """Round 0 only warms up: a service that has just started is not what is measured."""
    service, figures = Service(sides.service, f"bench-{number}"), sides.figures
    names = [await service.upload(data) for data in copies]
    if number == 0:
        await service.extract(names)
        await bare_pages(sides.bare, sides.paths)
        await service.stored(len(set(names)))
        return
    figures.bare.append(await sides.timed("bare", lambda: bare_pages(sides.bare, sides.paths), "client", "bare"))
    before = await sides.timed("raw", sides.raw, "client", "raw")
    begun = time.perf_counter()
    ours = ("client", "service", "parsers", "postgres")
    figures.first.append(await sides.timed("first", lambda: service.extract(names), *ours))
    first_s = time.perf_counter() - begun
    after = await sides.timed("raw", sides.raw, "client", "raw")
    figures.raw.append((before + after) / 2)
    begun = time.perf_counter()
    await service.stored(len(set(names)))
    figures.until_stored.append(figures.first[-1] * first_s / (first_s + time.perf_counter() - begun))
    figures.stored.append(await sides.timed("stored", lambda: service.extract(names), *ours))
    long_name = await service.upload(long_data)
    figures.first_page_ms.append(await service.first_page_ms(long_name))


def main() -> None:
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    with tempfile.TemporaryDirectory() as made_in, running_stack() as stack:
        long_file = made_file(Path(made_in) / "long.pdf", pages=10_000)
        files = readable_files(Path(made_in))
        pages = COPIES * sum(map(raw_pages, files))
        figures = uvloop.run(measure(stack, files, long_file))
    detail = {
        "files": len(files),
        "copies": COPIES,
        "pages": pages,
        "cores": CORES,
        "service_pages_per_s": round(figures.median("first")),
        "until_stored_and_indexed_pages_per_s": round(figures.median("until_stored")),
        "raw_all_cores_pages_per_s": round(figures.median("raw")),
        "bare_service_pages_per_s": round(figures.median("bare")),
        "against_bare_service": round(figures.ratio("first", "bare"), 3),
        "bare_service_against_raw": round(figures.ratio("bare", "raw"), 3),
        "cpu_s_per_1000_pages": figures.cpu_medians(),
        "rounds": ROUNDS,
    }
    ratio = figures.ratio("first", "raw")
    report("extract_text_over_raw_pymupdf", ratio=ratio, goal=GOAL, better="higher", detail=detail)
    rates = {"stored_pages_per_s": round(figures.median("stored")), "first_pages_per_s": round(figures.median("first"))}
    ratio = figures.ratio("stored", "first")
    report("stored_read_over_first_extraction", ratio=ratio, goal=STORED_GOAL, better="higher", detail=rates)
    waited = figures.median("first_page_ms")
    report(
        "first_page_of_10000_over_goal",
        ratio=waited / FIRST_PAGE_GOAL_MS,
        goal=1.0,
        better="lower",
        detail={"first_page_ms_p50": round(waited), "goal_ms": FIRST_PAGE_GOAL_MS},
    )


if __name__ == "__main__":
    main()
