"""How pages are best stored: codec, pages in a segment, and a row of Postgres against a file of its own.

Pages are those of the corpus (`clean` and `papers`) with their text, or made ones where it is absent. Each way writes
and reads all of them; the ratio is that of the chosen way (zstd-3, 32 pages) against no compression at all.
"""

import lzma
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pymupdf
import zstandard

from bench.bench_extract import readable_files
from bench.report import report
from pagemesh.common.v1 import page_pb2
from services.extractor.adapters import page_codec
from services.extractor.domain.pages import Page, Part

ROUNDS = 5
GOAL = 0.5
Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


def codecs() -> dict[str, Codec]:
    """Each with its way back."""
    found: dict[str, Codec] = {
        "none": (bytes, bytes),
        "zlib-1": (lambda data: zlib.compress(data, 1), zlib.decompress),
        "zlib-6": (zlib.compress, zlib.decompress),
        "lzma-0": (lambda data: lzma.compress(data, preset=0), lzma.decompress),
    }
    for level in (1, 3, 6, 9):
        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        found[f"zstd-{level}"] = (compressor.compress, zstandard.ZstdDecompressor().decompress)
    return found


def documents(made_in: Path) -> Iterator[list[Page]]:
    """The pages of each file, at most fifty."""
    for path in readable_files(made_in):
        with pymupdf.open(path) as document:
            yield [_page(number, document[number - 1]) for number in range(1, min(len(document), 50) + 1)]


def _page(number: int, page: pymupdf.Page) -> Page:
    message = page_pb2.Page(number=number, text=page.get_text("text").encode("utf-8", "replace").decode())
    return Page(number, message.SerializeToString(), parts=Part.TEXT)


def segments(pages_of: Sequence[Sequence[Page]], size: int) -> list[bytes]:
    """What is compressed at a time."""
    return [
        b"".join(page.content for page in pages[begin : begin + size])
        for pages in pages_of
        for begin in range(0, len(pages), size)
    ]


def timed_us(work: Callable[[], object], pages: int) -> float:
    """Median time for a page."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1e6 / pages)
    return round(statistics.median(taken), 2)


def files_us(data: Sequence[bytes], pages: int, folder: Path) -> float:
    """A durable file for each segment, as an object store in a directory writes it."""

    def write() -> None:
        for number, payload in enumerate(data):
            with (folder / str(number)).open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())

    return timed_us(write, pages)


def main() -> None:
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    with tempfile.TemporaryDirectory() as folder:
        pages_of = list(documents(Path(folder)))
        pages = sum(map(len, pages_of))
        detail: dict[str, object] = {"pages": pages, "documents": len(pages_of)}
        sizes: dict[str, int] = {}
        for size in (1, 16, 32):
            data = segments(pages_of, size)
            for name, (pack, unpack) in codecs().items():
                packed = [pack(one) for one in data]
                sizes[f"{name}/{size}"] = sum(map(len, packed))
                detail[f"{name}/{size}"] = {
                    "times_smaller": round(sum(map(len, data)) / sizes[f"{name}/{size}"], 2),
                    "write_us_a_page": timed_us(lambda: [pack(one) for one in data], pages),  # noqa: B023
                    "read_us_a_page": timed_us(lambda: [unpack(one) for one in packed], pages),  # noqa: B023
                }
        ours = [page_codec.encode(own[begin : begin + 32]) for own in pages_of for begin in range(0, len(own), 32)]
        detail["page_codec_read_us_a_page"] = timed_us(
            lambda: [page_codec.decode(payload, parts=Part.TEXT) for payload in ours], pages
        )
        detail["durable_files_write_us_a_page"] = files_us(ours, pages, Path(folder))
    ratio = sizes["zstd-3/32"] / sizes["none/32"]
    report("stored_page_bytes_over_raw", ratio=ratio, goal=GOAL, better="lower", detail=detail)


if __name__ == "__main__":
    main()
