"""What every parser promises: in memory for a format of its own, and in processes for real files."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import IO

import pytest

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.memory import MemoryParser
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import DocumentFault, Opened, Page, ParserEvent, Part, Refused
from services.extractor.domain.ports import Parser, ParseTask
from tests.bursts import each
from tests.integration.extractor import made_pdfs

LIMITS = ParserLimits(
    processes=1,
    page_cpu_s=5,
    page_wall_s=20,
    memory_bytes=512 << 20,
    recycle_bytes=256 << 20,
    recycle_pages=1000,
    max_waiting=4,
    stall_s=5,
    slice_s=2,
    needs_sandbox=False,
)
Book = Callable[[int], bytes]


def plain_book(pages: int) -> bytes:
    return b"%PDF-" + "\f".join(made_pdfs.page_text(number) for number in range(1, pages + 1)).encode()


@pytest.fixture(params=["memory", "processes"])
async def parser(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Parser, Book]]:
    if request.param == "memory":
        yield MemoryParser(), plain_book
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


async def parse(
    parser: Parser, data: bytes, file: IO[bytes], first: int, last: int, *, parts: Part = Part.TEXT
) -> list[ParserEvent]:
    file.write(data)
    file.flush()
    task = ParseTask("acme", file, MediaType.PDF, first, last, parts, wait_s=10)
    async with parser.parse(task) as events:
        return [event async for event in each(events)]


async def test_pages_follow_what_opens_them(parser: tuple[Parser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    opened, *pages = await parse(reader, book(5), file, 1, 100)
    assert isinstance(opened, Opened)
    assert opened.page_count == 5
    assert [page.number for page in pages if isinstance(page, Page)] == [1, 2, 3, 4, 5]


async def test_a_page_is_what_the_contract_says(parser: tuple[Parser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    _, page = await parse(reader, book(3), file, 2, 2)
    assert isinstance(page, Page)
    message = page_pb2.Page.FromString(page.content)
    assert message.number == 2
    assert message.text.strip() == made_pdfs.page_text(2)


async def test_what_is_not_asked_for_is_not_there(parser: tuple[Parser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    _, page = await parse(reader, book(1), file, 1, 1, parts=Part.BLOCKS)
    assert isinstance(page, Page)
    assert page_pb2.Page.FromString(page.content).text == ""


async def test_a_range_past_the_end_has_no_pages(parser: tuple[Parser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    (opened,) = await parse(reader, book(2), file, 3, 9)
    assert isinstance(opened, Opened)


async def test_a_document_without_pages_is_refused(parser: tuple[Parser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    data = book(0) if book is not plain_book else b"%PDF-"
    assert await parse(reader, data, file, 1, 9) == [Refused(DocumentFault.NO_PAGES)]


async def test_leaving_early_leaves_the_parser_usable(parser: tuple[Parser, Book], file: IO[bytes]) -> None:
    reader, book = parser
    file.write(book(50))
    file.flush()
    task = ParseTask("acme", file, MediaType.PDF, 1, 50, Part.TEXT, wait_s=10)
    for _ in range(3):
        async with reader.parse(task) as events:
            assert isinstance((await anext(events))[0], Opened)
    await reader.check()
