"""What every parser promises of pictures: in memory for a format of its own, and in processes for real files."""

import asyncio
import re
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import IO

import pytest

from services.extractor.adapters.memory_pictures import MemoryPictureParser
from services.extractor.adapters.parser_pool import ParserPool
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import DocumentFault, Picture, PictureFormat, Refused
from services.extractor.domain.ports import PictureParser, PictureTask
from services.runtime.errors import OutOfRange
from tests.contract.test_extractor_parser import LIMITS, Book, plain_book
from tests.integration.extractor import made_pdfs

LETTER_AT_72 = (612, 792)


@pytest.fixture(params=["memory", "processes"])
async def parser(request: pytest.FixtureRequest) -> AsyncIterator[tuple[PictureParser, Book]]:
    if request.param == "memory":
        yield MemoryPictureParser(), lambda pages: plain_book(pages) if pages else b"%PDF-"
        return
    pool = ParserPool(LIMITS)
    await pool.start()
    try:
        yield pool, lambda pages: made_pdfs.book(pages) if pages else made_pdfs.without_pages()
    finally:
        await pool.stop()


@pytest.fixture
def file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as opened:
        yield opened


def task_of(data: bytes, file: IO[bytes], picture_format: PictureFormat = PictureFormat.PNG) -> PictureTask:
    file.write(data)
    file.flush()
    return PictureTask("acme", file, MediaType.PDF, 1, picture_format, dpi=72, wait_s=10)


async def picture(parser: PictureParser, task: PictureTask) -> Picture:
    drawn = await parser.picture(task)
    assert isinstance(drawn, Picture)
    assert drawn.format is task.format
    return drawn


def size_in(drawn: Picture) -> tuple[int, int]:
    """What the file itself says."""
    if drawn.format is PictureFormat.PNG:
        assert drawn.content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", drawn.content[16:24])
        return width, height
    assert drawn.content.startswith(b"\xff\xd8")
    assert drawn.content.endswith(b"\xff\xd9")
    frame = re.search(rb"\xff[\xc0-\xc2]\x00[\x0b\x11]\x08", drawn.content)
    assert frame is not None
    height, width = struct.unpack_from(">HH", drawn.content, frame.end())
    return width, height


@pytest.mark.parametrize("picture_format", [PictureFormat.PNG, PictureFormat.JPEG])
async def test_a_page_is_as_large_as_its_dots_per_inch_say(
    parser: tuple[PictureParser, Book], file: IO[bytes], picture_format: PictureFormat
) -> None:
    reader, book = parser
    task = task_of(book(2), file, picture_format)
    for times in (1, 2):
        drawn = await picture(reader, replace(task, page=2, dpi=72 * times))
        wanted = (LETTER_AT_72[0] * times, LETTER_AT_72[1] * times)
        assert (drawn.width_px, drawn.height_px) == size_in(drawn) == wanted


async def test_gray_is_one_byte_a_pixel(parser: tuple[PictureParser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    drawn = await picture(reader, task_of(book(1), file, PictureFormat.GRAY))
    assert (drawn.width_px, drawn.height_px) == LETTER_AT_72
    assert len(drawn.content) == drawn.width_px * drawn.height_px
    assert drawn.content.count(255) > len(drawn.content) * 0.9


async def test_no_side_is_longer_than_asked_for(parser: tuple[PictureParser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    task = replace(task_of(book(1), file), dpi=1200, max_side_px=1000)
    drawn = await picture(reader, task)
    assert drawn.height_px == 1000
    assert drawn.width_px in (773, 774)


async def test_a_page_past_the_end_is_out_of_range(parser: tuple[PictureParser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    with pytest.raises(OutOfRange) as told:
        await reader.picture(replace(task_of(book(2), file), page=3))
    assert (told.value.reason, told.value.fields[0].field) == ("PAGE_OUT_OF_RANGE", "page")


async def test_an_image_past_the_last_is_out_of_range(parser: tuple[PictureParser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    with pytest.raises(OutOfRange) as told:
        await reader.picture(replace(task_of(book(1), file), index=0))
    assert (told.value.reason, told.value.fields[0].field) == ("IMAGE_OUT_OF_RANGE", "index")


async def test_a_document_without_pages_is_refused(parser: tuple[PictureParser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    assert await reader.picture(task_of(book(0), file)) == Refused(DocumentFault.NO_PAGES)


async def test_leaving_early_leaves_the_parser_usable(parser: tuple[PictureParser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    task = task_of(book(1), file)
    for _ in range(3):
        leaving = asyncio.ensure_future(reader.picture(task))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
    await picture(reader, task)
