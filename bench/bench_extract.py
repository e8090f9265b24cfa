"""How fast pages come out of the extractor: text over gRPC and mTLS, against PyMuPDF alone on the same files.

The peer is `page.get_text()` in as many processes as there are cores, each with PyMuPDF imported before the clock
starts. The service has as many parser processes; its client runs on the same cores and takes its share of them. Files
are those of the corpus (`clean` and `papers`), or made ones where it is absent. Rounds alternate; medians count.
"""

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pymupdf
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask

from bench.report import report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from pagemesh_cli.stack.certificates import CertificateAuthority

ROUNDS = 5
CORES = os.cpu_count() or 1
STREAMS = CORES + 1
GOAL = 0.8
CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
METADATA = (
    ("x-pagemesh-tenant", "bench"),
    ("x-pagemesh-actor", "apiKeys/bench"),
    ("x-pagemesh-scopes", "documents.read documents.write"),
)


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
    """The peer: all text of a file; answers how many pages there were."""
    with pymupdf.open(path) as document:
        return sum(1 for page in document if page.get_text("text") is not None)


def timed(work: Callable[[], int]) -> float:
    """Pages a second."""
    begun = time.perf_counter()
    pages = work()
    return pages / (time.perf_counter() - begun)


class Service:
    """The extractor of a running stack, called directly, as the edge calls it."""

    def __init__(self, stack: RunningStack) -> None:
        folder = CertificateAuthority(stack.root / "pki").tls_dir("edge")
        parts = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
        self.channel = grpc.aio.secure_channel(
            f"127.0.0.1:{stack.ports['extractor']}",
            grpc.ssl_channel_credentials(*parts),
            options=[
                ("grpc.ssl_target_name_override", "extractor.pagemesh.local"),
                ("grpc.max_receive_message_length", 16 * 1024 * 1024),
            ],
        )
        self._stub = ExtractorServiceStub(self.channel)

    async def upload(self, path: Path) -> str:
        response = await self._stub.UploadDocument(pieces(path.read_bytes()), metadata=METADATA, timeout=60)
        return str(response.document.name)

    async def extract(self, names: Sequence[str]) -> float:
        """All pages of all documents over STREAMS calls at a time; pages a second."""
        begun = time.perf_counter()
        left = iter(names)

        async def stream() -> int:
            return sum([await self._pages(name) for name in left])

        pages = sum(await asyncio.gather(*(stream() for _ in range(STREAMS))))
        return pages / (time.perf_counter() - begun)

    async def _pages(self, name: str) -> int:
        request = pb.ExtractPagesRequest(name=name, read_mask=FieldMask(paths=["text"]))
        pages = 0
        async for response in self._stub.ExtractPages(request, metadata=METADATA, timeout=120):
            pages += response.WhichOneof("event") == "page"
        return pages

    async def first_page_ms(self, name: str) -> float:
        request = pb.ExtractPagesRequest(name=name, read_mask=FieldMask(paths=["text"]))
        begun = time.perf_counter()
        call = self._stub.ExtractPages(request, metadata=METADATA, timeout=60)
        async for response in call:
            if response.WhichOneof("event") == "page":
                break
        taken = (time.perf_counter() - begun) * 1000
        call.cancel()
        return taken


def pieces(data: bytes) -> Iterator[pb.UploadDocumentRequest]:
    for begin in range(0, len(data), 256 * 1024):
        yield pb.UploadDocumentRequest(content=HttpBody(data=data[begin : begin + 256 * 1024]))


async def measure(stack: RunningStack, files: Sequence[Path], long_file: Path) -> None:
    service = Service(stack)
    names = [await service.upload(path) for path in files]
    long_name = await service.upload(long_file)
    one, all_cores, through = [], [], []
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(raw_pages, files, chunksize=1)
        await service.extract(names)
        for _ in range(ROUNDS):
            one.append(timed(lambda: sum(map(raw_pages, files))))
            all_cores.append(timed(lambda: sum(pool.imap_unordered(raw_pages, files))))
            through.append(await service.extract(names))
    first = [await service.first_page_ms(long_name) for _ in range(ROUNDS)]
    await service.channel.close()
    peer_one, peer, ours = (statistics.median(values) for values in (one, all_cores, through))
    detail = {
        "files": len(files),
        "pages": sum(map(raw_pages, files)),
        "cores": CORES,
        "service_pages_per_s": round(ours),
        "raw_all_cores_pages_per_s": round(peer),
        "raw_one_process_pages_per_s": round(peer_one),
        "against_one_process": round(ours / peer_one, 3),
        "first_page_of_10000_ms_p50": round(statistics.median(first)),
        "rounds": ROUNDS,
    }
    report("extract_text_over_raw_pymupdf", ratio=ours / peer, goal=GOAL, better="higher", detail=detail)


def main() -> None:
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    with tempfile.TemporaryDirectory() as made_in, running_stack() as stack:
        long_file = made_file(Path(made_in) / "long.pdf", pages=10_000)
        asyncio.run(measure(stack, readable_files(Path(made_in)), long_file))


if __name__ == "__main__":
    main()
