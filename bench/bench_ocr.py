"""How well and how fast pages are read from their picture: the whole way from the file to the page with its words.

Pages of prose are drawn as a scanner would leave them, one picture a page, and what is recognised is compared with the
text that was drawn: recall is the part of the words of two letters and more that come back. The peer is Tesseract,
where it is there, on the same pictures. Files are those of the corpus; made pages where it is absent. With the corpus,
its files without text are read as a whole, too, each with two processes.
"""

import asyncio
import contextlib
import logging
import os
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pymupdf
import structlog

from bench.report import report, skip
from pagemesh.common.v1 import page_pb2
from services.extractor.__main__ import _OCR_DPI, _OCR_MIN_CONFIDENCE, ocr_limits, parser_limits
from services.extractor.adapters.ocr_page import RecognisedPageWriter
from services.extractor.adapters.ocr_pool import OcrPool
from services.extractor.adapters.ocr_protocol import MAX_SIDE_PX
from services.extractor.adapters.parser_pool import ParserPool
from services.extractor.config import ExtractorSettings
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import FailedPage, Page, PageFlag, Part
from services.extractor.domain.ports import ParseTask, RecogniseTask
from services.extractor.domain.recognise import RecognisePage, RecognitionLimits

GOAL_RECALL = 0.95
GOAL_CPU_S = 3.0
GOAL_FILE_S = 20.0
PROCESSES = 2
CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
_WORD = re.compile(r"\w\w+")
_PLAIN = re.compile(r"[(\"'„“]?[^\W\d_]{2,}[-.,;:)\"'”“]*")


@dataclass(frozen=True)
class Sample:
    """A page of prose as a scan, and the words that are on it."""

    scan: bytes
    words: Counter[str]


def words_of(text: str) -> Counter[str]:
    return Counter(_WORD.findall(unicodedata.normalize("NFKC", text)))


def recall(wanted: Counter[str], found: Counter[str]) -> float:
    return (wanted & found).total() / wanted.total()


def prose(document: pymupdf.Document) -> Iterator[pymupdf.Page]:
    """Pages of Latin letters, most of whose words are words."""
    for page in document:
        text = page.get_text()
        tokens = text.split()
        if not 250 <= len(tokens) <= 900 or page.rotation:
            continue
        latin = sum(char.isascii() or unicodedata.name(char, "").startswith("LATIN") for char in text)
        if latin >= 0.97 * len(text) and sum(map(bool, map(_PLAIN.fullmatch, tokens))) >= 0.75 * len(tokens):
            yield page


def scanned(page: pymupdf.Page) -> Sample:
    with pymupdf.open() as out:
        made = out.new_page(width=page.rect.width, height=page.rect.height)
        made.insert_image(made.rect, pixmap=page.get_pixmap(dpi=200, colorspace=pymupdf.csGRAY))
        return Sample(out.tobytes(), words_of(page.get_text()))


def samples() -> list[Sample]:
    """At most two pages of each file."""
    found = []
    for path in sorted(path for folder in ("clean", "papers") for path in (CORPUS / folder).glob("*.pdf")):
        with pymupdf.open(path) as document:
            found += [scanned(page) for page, _ in zip(prose(document), range(2), strict=False)]
    return found or [scanned(made_page()) for _ in range(4)]


def made_page() -> pymupdf.Page:
    page = pymupdf.open().new_page()
    for number in range(45):
        line = f"{number} the quick brown fox jumps over the lazy dog and back again"
        page.insert_text((60, 60 + 16 * number), line)
    return page


class Recognition:
    """Recognition as the service wires it."""

    def __init__(self, settings: ExtractorSettings) -> None:
        self.parser = ParserPool(parser_limits(settings))
        self.reader = OcrPool(ocr_limits(settings))
        self._recognise = RecognisePage(
            parser=self.parser,
            reader=self.reader,
            writer=RecognisedPageWriter(guess_language=lambda _: ""),
            limits=RecognitionLimits(dpi=_OCR_DPI, max_side_px=MAX_SIDE_PX, min_confidence=_OCR_MIN_CONFIDENCE),
        )

    async def pages(self, data: bytes) -> list[Page | FailedPage]:
        """All pages of a PDF that have no text, recognised; the others as they are."""
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            task = ParseTask("bench", file, MediaType.PDF, 1, 1000, Part.TEXT, wait_s=600)
            async with self.parser.parse(task) as events:
                parsed = [event async for burst in events for event in burst if isinstance(event, Page)]

            async def one(page: Page) -> Page | FailedPage:
                if PageFlag.NO_TEXT not in flags_of(page):
                    return page
                return await self._recognise.recognise(
                    RecogniseTask("bench", file, MediaType.PDF, page.number, page, wait_s=600)
                )

            return await asyncio.gather(*map(one, parsed))

    def cpu_s(self) -> float:
        """What all processes of it have computed until now."""
        parents = [psutil.Process(parent.pid) for parent in (self.parser._parent, self.reader._parent) if parent.pid]
        alive = [process for parent in parents for process in (parent, *parent.children())]
        ended = [parent.cpu_times() for parent in parents]
        computed = sum(times.children_user + times.children_system for times in ended)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                computed += sum(process.cpu_times()[:2])
        return computed


def flags_of(page: Page) -> PageFlag:
    without = page_pb2.PAGE_FLAG_NO_TEXT in page_pb2.Page.FromString(page.content).flags
    return PageFlag.NO_TEXT if without else PageFlag.NONE


def text_of(page: Page | FailedPage) -> str:
    return page_pb2.Page.FromString(page.content).text if isinstance(page, Page) else ""


async def timed(work: Awaitable[list[Page | FailedPage]]) -> tuple[list[Page | FailedPage], float]:
    begun = time.perf_counter()
    return await work, time.perf_counter() - begun


async def measure(settings: ExtractorSettings, scans: Sequence[Sample]) -> tuple[list[float], list[float], float]:
    """Recall and wall time of each page, and CPU seconds a page of all processes together."""
    recognition = Recognition(settings)
    await recognition.parser.start()
    await recognition.pages(scans[0].scan)
    recalls, walls = [], []
    begun_s = recognition.cpu_s()
    for sample in scans:
        pages, wall_s = await timed(recognition.pages(sample.scan))
        recalls.append(recall(sample.words, words_of(" ".join(map(text_of, pages)))))
        walls.append(wall_s)
    cpu_s = recognition.cpu_s() - begun_s
    await recognition.reader.stop()
    await recognition.parser.stop()
    return recalls, walls, cpu_s / len(scans)


def ended_children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def whole_files(settings: ExtractorSettings, files: Sequence[Path]) -> list[tuple[float, float, int, int]]:
    """Seconds on the clock and of computing, pages and failed pages of each file, one file after the other."""
    recognition = Recognition(settings)
    await recognition.parser.start()
    told = []
    for path in files:
        begun_s = recognition.cpu_s()
        pages, wall_s = await timed(recognition.pages(path.read_bytes()))
        failed = sum(isinstance(page, FailedPage) for page in pages)
        told.append((wall_s, recognition.cpu_s() - begun_s, len(pages), failed))
    await recognition.reader.stop()
    await recognition.parser.stop()
    return told


def tesseract(scans: Sequence[Sample]) -> dict[str, float]:
    """The peer's recall and CPU seconds a page."""
    recalls = []
    begun = ended_children_cpu_s()
    for sample in scans:
        with tempfile.TemporaryDirectory() as folder, pymupdf.open(stream=sample.scan, filetype="pdf") as document:
            path = Path(folder) / "page.png"
            document[0].get_pixmap(dpi=200).save(path)
            done = subprocess.run(
                ["tesseract", path, "-"], capture_output=True, text=True, check=True, env={"OMP_THREAD_LIMIT": "1"}
            )
            recalls.append(recall(sample.words, words_of(done.stdout)))
    cpu_s = (ended_children_cpu_s() - begun) / len(scans)
    return {"tesseract_recall": round(statistics.mean(recalls), 4), "tesseract_cpu_s_a_page": round(cpu_s, 2)}


def main() -> None:
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    settings = ExtractorSettings.model_construct(
        parser_processes=PROCESSES, ocr_processes=PROCESSES, page_timeout_s=5.0, parser_memory_bytes=768 << 20
    )
    scans = samples()
    recalls, walls, cpu_s = asyncio.run(measure(settings, scans))
    detail: dict[str, object] = {
        "pages": len(scans),
        "recall_mean": round(statistics.mean(recalls), 4),
        "recall_least": round(min(recalls), 3),
        "pages_at_the_goal": sum(value >= GOAL_RECALL for value in recalls),
        "wall_s_a_page_p50": round(statistics.median(walls), 2),
        "cpu_s_a_page": round(cpu_s, 2),
    }
    if shutil.which("tesseract"):
        detail |= tesseract(scans)
    else:
        skip("bench_ocr", "the peer, Tesseract, is not here")
    report("ocr_word_recall", ratio=statistics.mean(recalls), goal=GOAL_RECALL, better="higher", detail=detail)
    report("ocr_cpu_seconds_a_page", ratio=cpu_s / GOAL_CPU_S, goal=1.0, better="lower", detail=detail)
    files = sorted((CORPUS / "no_text").glob("*.pdf"))
    if not files:
        skip("bench_ocr", "the corpus is not here: no whole files without text")
        return
    told = asyncio.run(whole_files(settings, files))
    slowest = max(told)
    detail = {
        "files": len(told),
        "pages": sum(file[2] for file in told),
        "failed_pages": sum(file[3] for file in told),
        "slowest_s": round(slowest[0], 1),
        "slowest_cpu_s": round(slowest[1], 1),
        "slowest_pages": slowest[2],
        "processes": PROCESSES,
    }
    report("ocr_slowest_file_seconds", ratio=slowest[0] / GOAL_FILE_S, goal=1.0, better="lower", detail=detail)


if __name__ == "__main__":
    main()
