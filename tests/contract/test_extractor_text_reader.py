"""What everybody who reads text in pictures promises: in memory for a kind of its own, and models for real ones."""

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise

import pymupdf
import pytest

from services.extractor.adapters.memory_ocr import MemoryTextReader
from services.extractor.adapters.ocr_pool import OcrLimits, OcrPool
from services.extractor.domain.pages import Picture, PictureFormat
from services.extractor.domain.ports import TextReader

LIMITS = OcrLimits(
    processes=1,
    budget_s=30,
    cpu_s=40,
    wall_s=60,
    memory_bytes=1 << 30,
    max_waiting=4,
    idle_s=60,
    needs_sandbox=sys.platform == "linux",
)
LINES = ("Words that are read", "and the line below them")
Draw = Callable[[Sequence[str]], Picture]


def plain(lines: Sequence[str]) -> Picture:
    rows = [line.encode().ljust(40, b"\xff") for line in lines] or [b"\xff" * 40]
    return Picture(PictureFormat.GRAY, 40, len(rows), b"".join(rows))


def drawn(lines: Sequence[str]) -> Picture:
    with pymupdf.open() as document:
        page = document.new_page(width=300, height=200)
        for number, line in enumerate(lines):
            page.insert_text((30, 50 + 60 * number), line, fontsize=16)
        pixmap = page.get_pixmap(dpi=200, colorspace=pymupdf.csGRAY)
        return Picture(PictureFormat.GRAY, pixmap.width, pixmap.height, bytes(pixmap.samples))


@pytest.fixture(params=["memory", "processes"])
async def reader(request: pytest.FixtureRequest) -> AsyncIterator[tuple[TextReader, Draw]]:
    if request.param == "memory":
        yield MemoryTextReader(), plain
        return
    pool = OcrPool(LIMITS)
    try:
        yield pool, drawn
    finally:
        await pool.stop()


async def test_the_words_of_each_line_are_found_in_the_picture(reader: tuple[TextReader, Draw]) -> None:
    real, draw = reader
    picture = draw(LINES)
    reading = await real.read("acme", picture, wait_s=30)
    assert reading.complete
    upper, lower = sorted(reading.lines, key=lambda line: line.corners[0][1])
    assert [" ".join(word.text for word in line.words) for line in (upper, lower)] == list(LINES)
    assert upper.corners[3][1] <= lower.corners[0][1]
    for line in reading.lines:
        assert 0 <= line.confidence <= 1
        assert all(0 <= x <= picture.width_px and 0 <= y <= picture.height_px for x, y in line.corners)
        assert all(0 <= word.begin < word.end <= 1 for word in line.words)
        assert all(word.end <= following.begin for word, following in pairwise(line.words))


async def test_a_picture_of_nothing_has_no_lines(reader: tuple[TextReader, Draw]) -> None:
    real, draw = reader
    reading = await real.read("acme", draw(()), wait_s=30)
    assert reading.lines == ()
    assert reading.complete
