"""Pages out of the real service: what they hold, what is computed, and what a harmful file costs."""

import asyncio
import os
from contextlib import suppress

import pytest

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from services.runtime.errors import FailedPrecondition, InvalidArgument, OutOfRange
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client, Extracted, Start

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENT_S = 60


async def test_pages_come_between_start_and_end(client: Client) -> None:
    uploaded = await client.upload(made_pdfs.book(5))
    extracted = await client.extract(uploaded.document.name)
    assert extracted.start is not None
    assert (extracted.start.page_count, extracted.start.first_page, extracted.start.last_page) == (5, 1, 5)
    assert extracted.start.flags == []
    assert [page.text.strip() for page in extracted.pages] == [made_pdfs.page_text(n) for n in range(1, 6)]
    assert extracted.end == extraction_pb2.ExtractionEnd(pages_sent=5)
    # It is stored a moment later, with the pages.
    async with asyncio.timeout(PATIENT_S):
        while not (found := await client.get(uploaded.document.name)).HasField("page_count"):
            await asyncio.sleep(0.01)
    assert found.page_count == 5


async def test_text_is_what_mupdf_says(client: Client) -> None:
    import pymupdf

    data = made_pdfs.book(4)
    extracted = await client.upload_and_extract(data, "text", "words", "blocks")
    with pymupdf.open(stream=data, filetype="pdf") as document:
        for page, peer in zip(extracted.pages, document, strict=True):
            assert page.text == peer.get_text("text")
            assert [word.text for word in page.words] == [word[4] for word in peer.get_text("words")]
            assert [block.text for block in page.blocks] == [block[4] for block in peer.get_text("blocks")]


@pytest.mark.parametrize("parts", [("text",), ("blocks",), ("words",), ("text", "words"), ()])
async def test_only_what_is_asked_for_is_there(client: Client, parts: tuple[str, ...]) -> None:
    (page,) = (await client.upload_and_extract(made_pdfs.book(1), *parts)).pages
    wanted = set(parts or ("text", "blocks"))
    assert {name for name in ("text", "blocks", "words") if getattr(page, name)} == wanted
    assert (page.number, page.width_pt, page.height_pt) == (1, 612, 792)


async def test_words_know_their_block_and_boxes_hold_them(client: Client) -> None:
    data = made_pdfs.document([made_pdfs.line("first block", 700) + made_pdfs.line("second block", 300)])
    (page,) = (await client.upload_and_extract(data, "blocks", "words")).pages
    assert [word.block for word in page.words] == [0, 0, 1, 1]
    for word in page.words:
        box = page.blocks[word.block].box
        assert box.x0 <= word.box.x0 < word.box.x1 <= box.x1 + 0.01
        assert box.y0 <= word.box.y0 < word.box.y1 <= box.y1 + 0.01
        assert word.text in page.blocks[word.block].text


async def test_boxes_are_those_of_the_page_as_it_is_shown(client: Client) -> None:
    (page,) = (await client.upload_and_extract(made_pdfs.rotated(), "words")).pages
    (word,) = page.words
    assert (page.width_pt, page.height_pt) == (792, 612)
    # Written at x 72, y 92 from the top; turned clockwise that is 700 from the left and 72 from the top.
    assert word.box.x0 < 700 < word.box.x1 + 5
    assert word.box.y0 == pytest.approx(72, abs=1)
    assert word.box.y1 - word.box.y0 > word.box.x1 - word.box.x0


async def test_a_page_without_text_says_so(client: Client) -> None:
    (page,) = (await client.upload_and_extract(made_pdfs.document([b""]))).pages
    assert list(page.flags) == [page_pb2.PAGE_FLAG_BLANK, page_pb2.PAGE_FLAG_NO_TEXT]


async def test_a_page_with_too_much_text_is_cut_and_says_so(client: Client) -> None:
    data = made_pdfs.document([b"".join(made_pdfs.line("a " * 50, number % 700) for number in range(4500))])
    (page,) = (await client.upload_and_extract(data, "text", "blocks", "words", timeout_s=PATIENT_S)).pages
    assert page_pb2.PAGE_FLAG_TRUNCATED in page.flags
    assert len(page.words) == 50_000
    assert page.ByteSize() <= 8 * 1024 * 1024


async def test_an_image_is_one_page_without_text(client: Client) -> None:
    extracted = await client.upload_and_extract(made_pdfs.png(300, 200), ocr=extraction_pb2.OCR_MODE_OFF)
    (page,) = extracted.pages
    assert list(page.flags) == [page_pb2.PAGE_FLAG_NO_TEXT]
    assert page.width_pt / page.height_pt == pytest.approx(1.5)


async def test_a_broken_image_is_a_page_that_failed(client: Client) -> None:
    extracted = await client.upload_and_extract(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    assert [(page.number, page.reason) for page in extracted.failed] == [(1, "PAGE_CORRUPT")]
    assert extracted.pages == []


@pytest.mark.parametrize(
    ("first", "last", "wanted"), [(0, 0, [1, 2, 3, 4]), (2, 3, [2, 3]), (3, 0, [3, 4]), (0, 2, [1, 2]), (4, 99, [4])]
)
async def test_a_range_is_what_comes(client: Client, first: int, last: int, wanted: list[int]) -> None:
    extracted = await client.upload_and_extract(made_pdfs.book(4), first_page=first, last_page=last)
    assert extracted.numbers == wanted
    assert extracted.start is not None
    assert (extracted.start.first_page, extracted.start.last_page) == (wanted[0], wanted[-1])


async def test_a_range_past_the_end_is_out_of_range(client: Client) -> None:
    with pytest.raises(OutOfRange) as refused:
        await client.upload_and_extract(made_pdfs.book(4), first_page=5)
    assert refused.value.fields[0].field == "first_page"


async def test_a_range_backwards_and_an_unknown_part_are_the_callers_mistakes(client: Client) -> None:
    name = (await client.upload(made_pdfs.book(4))).document.name
    with pytest.raises(InvalidArgument):
        await client.extract(name, first_page=3, last_page=2)
    with pytest.raises(InvalidArgument) as refused:
        await client.extract(name, "pictures")
    assert refused.value.fields[0].field == "read_mask"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (made_pdfs.encrypted(), "DOCUMENT_ENCRYPTED"),
        (made_pdfs.without_pages(), "DOCUMENT_HAS_NO_PAGES"),
        (b"%PDF-1.7\n", "DOCUMENT_CORRUPT"),
        (b"%PDF-1.7\n" + os.urandom(5000), "DOCUMENT_CORRUPT"),
    ],
    ids=["encrypted", "no pages", "header only", "noise"],
)
async def test_a_document_that_cannot_be_read_says_why(client: Client, data: bytes, reason: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await client.upload_and_extract(data)
    assert refused.value.reason == reason


async def test_a_truncated_file_is_repaired_or_refused(client: Client) -> None:
    data = made_pdfs.book(30)
    extracted = await client.upload_and_extract(data[: len(data) * 2 // 3] + data[-300:])
    assert extracted.start is not None
    assert extraction_pb2.DOCUMENT_FLAG_REPAIRED in extracted.start.flags
    with pytest.raises(FailedPrecondition):
        await client.upload_and_extract(data[:200])


async def test_encryption_without_a_password_is_flagged(client: Client) -> None:
    extracted = await client.upload_and_extract(made_pdfs.encrypted(owner_only=True))
    assert extracted.start is not None
    assert list(extracted.start.flags) == [extraction_pb2.DOCUMENT_FLAG_ENCRYPTED]
    assert extracted.numbers == [1, 2]


async def test_too_many_pages_are_refused(start: Start) -> None:
    service = await start(max_pages=9)
    with pytest.raises(FailedPrecondition) as refused:
        await service.client.upload_and_extract(made_pdfs.book(10))
    assert refused.value.reason == "TOO_MANY_PAGES"
    assert len((await service.client.upload_and_extract(made_pdfs.book(9))).pages) == 9


async def test_a_broken_page_costs_itself(client: Client) -> None:
    extracted = await client.upload_and_extract(made_pdfs.with_broken_page(2, 3))
    assert extracted.numbers == [1, 2, 4, 5, 6]
    assert [(page.number, page.reason) for page in extracted.failed] == [(3, "PAGE_CORRUPT")]
    flags = [extraction_pb2.DOCUMENT_FLAG_PARTIAL]
    assert extracted.end == extraction_pb2.ExtractionEnd(pages_sent=5, pages_failed=1, flags=flags)


@pytest.mark.usefixtures("no_clock")
async def test_a_page_that_hangs_costs_itself(start: Start) -> None:
    service = await start(page_timeout_s=0.5)
    extracted = await service.client.upload_and_extract(made_pdfs.with_laughing_page(2, 3))
    assert extracted.numbers == [1, 2, 4, 5, 6]
    assert [(page.number, page.reason) for page in extracted.failed] == [(3, "PAGE_TIMEOUT")]


async def test_a_page_that_swells_costs_itself(start: Start) -> None:
    service = await start(page_timeout_s=20, parser_memory_bytes=200 * 1024 * 1024)
    extracted = await service.client.upload_and_extract(made_pdfs.with_swelling_page(2, 3))
    assert extracted.numbers == [1, 2, 4, 5, 6]
    assert [(page.number, page.reason) for page in extracted.failed] == [(3, "PAGE_MEMORY")]


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize(
    "data",
    [made_pdfs.double_deflate_bomb(400_000_000), made_pdfs.page_tree_of_itself()],
    ids=["deflated twice", "page tree of itself"],
)
async def test_other_bombs_end_with_a_reason(start: Start, data: bytes) -> None:
    service = await start(page_timeout_s=1)
    name = (await service.client.upload(data)).document.name
    extracted = Extracted()
    with suppress(FailedPrecondition):
        await service.client.extract(name, into=extracted)
    assert extracted.pages == [] or extracted.end is not None
    assert [page.reason for page in extracted.failed] in ([], ["PAGE_CORRUPT"], ["PAGE_TIMEOUT"])
    assert (await service.client.upload_and_extract(made_pdfs.book(1))).numbers == [1]


@pytest.mark.usefixtures("no_clock")
async def test_good_files_beside_bombs_are_unharmed(start: Start) -> None:
    service = await start(page_timeout_s=0.5)
    good = service.client.of("other")
    name = (await good.upload(made_pdfs.book(40))).document.name
    bombs = [
        asyncio.create_task(service.client.upload_and_extract(made_pdfs.with_laughing_page(n, 0))) for n in range(3)
    ]
    for _ in range(5):
        extracted = await good.extract(name, timeout_s=PATIENT_S)
        assert extracted.numbers == list(range(1, 41))
        assert extracted.failed == []
    for bomb in bombs:
        assert [page.reason for page in (await bomb).failed] == ["PAGE_TIMEOUT"]
