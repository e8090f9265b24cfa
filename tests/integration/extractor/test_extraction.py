"""Pages out of the real service: what they hold, what is computed, and what a harmful file costs."""

import asyncio
import itertools
import os
import signal
from contextlib import suppress
from typing import Any

import grpc
import psutil
import pytest
from prometheus_client import REGISTRY

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, OutOfRange, PagemeshError
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Client, Extracted, Service, Start, eventually

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
    assert (await client.get(uploaded.document.name)).page_count == 5


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
    assert list(page.flags) == [page_pb2.PAGE_FLAG_NO_TEXT]


async def test_a_page_with_too_much_text_is_cut_and_says_so(client: Client) -> None:
    data = made_pdfs.document([b"".join(made_pdfs.line("a " * 50, number % 700) for number in range(4500))])
    (page,) = (await client.upload_and_extract(data, "text", "blocks", "words", timeout_s=PATIENT_S)).pages
    assert page_pb2.PAGE_FLAG_TRUNCATED in page.flags
    assert 100_000 < len(page.words) <= 200_000
    assert page.ByteSize() <= 8 * 1024 * 1024


async def test_an_image_is_one_page_without_text(client: Client) -> None:
    extracted = await client.upload_and_extract(made_pdfs.png(300, 200))
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
    assert extracted.end == extraction_pb2.ExtractionEnd(pages_sent=5, pages_failed=1)


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


async def test_a_process_that_is_killed_costs_a_retry_and_no_page(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book(150))).document.name
    extracted = Extracted()
    stream = service.client.open_extraction(name, "text")
    async for response in stream:
        extracted.take(response)
        if extracted.numbers[-1:] == [5]:
            for process in service.parsers():
                process.send_signal(signal.SIGKILL)
    assert extracted.numbers == list(range(1, 151))
    assert extracted.failed == []


async def test_the_parent_of_the_parsers_is_replaced_when_it_dies(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book(3))).document.name
    before = service.parser_parent()
    children = before.children()
    before.kill()
    await eventually(lambda: not any(child.is_running() for child in children), "its children are gone")
    await eventually(lambda: any(p.pid != before.pid for p in psutil.Process().children()), "there is another parent")
    assert (await service.client.extract(name)).numbers == [1, 2, 3]


async def until_parsing(service: Service, stream: Any) -> set[int]:
    """Reads until the next page hangs; answers the processes that are at it."""
    await stream.read()
    await eventually(lambda: any(busy(process) for process in service.parsers()), "a parser is at work")
    return {process.pid for process in service.parsers() if busy(process)}


def busy(process: psutil.Process) -> bool:
    try:
        return float(process.cpu_times().user) > 0.3
    except psutil.NoSuchProcess:
        return False


async def test_cancelling_ends_the_parser(start: Start) -> None:
    service = await start(page_timeout_s=60)
    name = (await service.client.upload(made_pdfs.with_laughing_page(0, 3))).document.name
    stream = service.client.open_extraction(name)
    working = await until_parsing(service, stream)
    stream.cancel()
    await eventually(
        lambda: not working & {process.pid for process in service.parsers()}, "the parser is gone", timeout_s=1
    )


async def test_the_deadline_ends_the_parser(start: Start) -> None:
    service = await start(page_timeout_s=60)
    name = (await service.client.upload(made_pdfs.with_laughing_page(0, 3))).document.name
    stream = service.client.open_extraction(name, timeout_s=2)
    working = await until_parsing(service, stream)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.read()
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(
        lambda: not working & {process.pid for process in service.parsers()}, "the parser is gone", timeout_s=1
    )


async def test_an_error_in_the_middle_is_an_event_and_the_status(start: Start) -> None:
    service = await start(page_timeout_s=0.2)
    forms = made_pdfs.with_laughing_page(0, 0)
    hanging = forms.replace(b"/Count 1/Kids[", b"/Count 9/Kids[" + b"23 0 R " * 8)
    name = (await service.client.upload(hanging)).document.name
    kinds = []
    stream = service.client.open_extraction(name)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for response in stream:
            kinds.append(response.WhichOneof("event"))
    assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert kinds[0] == "start"
    assert kinds[-1] == "error"
    assert "failed_page" in kinds


async def test_a_document_that_is_deleted_while_it_is_read_is_read_to_its_end_or_not_found(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book(600))).document.name
    extracted = Extracted()
    stream = service.client.open_extraction(name)
    async for response in stream:
        extracted.take(response)
        if extracted.numbers == [1]:
            await service.client.delete(name)
    assert extracted.numbers == list(range(1, 601))
    assert service.stored() == set()
    with pytest.raises(NotFound):
        await service.client.extract(name)


async def test_a_queue_that_is_full_says_when_to_come_back(start: Start) -> None:
    service = await start(page_timeout_s=60, parser_processes=1)
    name = (await service.client.upload(made_pdfs.with_laughing_page(0, 0))).document.name
    waiting = [service.client.open_extraction(name) for _ in range(33)]
    first = [asyncio.create_task(stream.read()) for stream in waiting]
    refused: PagemeshError | None = None
    for _ in range(200):
        try:
            await service.client.extract(name, timeout_s=1)
        except PagemeshError as exc:
            refused = exc
            if exc.reason == "PARSER_BUSY":
                break
    assert refused is not None
    assert refused.reason == "PARSER_BUSY"
    assert refused.retry_after_s
    for stream in waiting:
        stream.cancel()
    await asyncio.gather(*first, return_exceptions=True)
    assert (await service.client.upload_and_extract(made_pdfs.book(2), timeout_s=PATIENT_S)).numbers == [1, 2]


async def test_nothing_is_left_behind(start: Start) -> None:
    service = await start(page_timeout_s=0.3)
    client = service.client
    good = (await client.upload(made_pdfs.book(20))).document.name
    bad = (await client.upload(made_pdfs.with_laughing_page(1, 1))).document.name

    async def round_of_everything() -> None:
        await asyncio.gather(
            client.extract(good), client.extract(bad), client.of("other").upload_and_extract(made_pdfs.book(2))
        )
        stream = client.open_extraction(good)
        await stream.read()
        stream.cancel()
        with pytest.raises(InvalidArgument):
            await client.upload(b"not a PDF")

    await round_of_everything()
    here = psutil.Process()
    descriptors, threads = here.num_fds(), here.num_threads()
    for _ in range(4):
        await round_of_everything()
    await eventually(lambda: here.num_fds() <= descriptors + 2, "no more descriptors than before")
    assert here.num_threads() <= threads + 8  # asyncio's threads for files come up to its own limit
    await eventually(lambda: len(service.parsers()) <= 3, "as many processes as slots and a spare one")
    assert service.spooled() == []
    zombies = [p for p in service.parser_parent().children() if p.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []


async def test_ten_thousand_pages_are_read_in_flat_memory(service: Service) -> None:
    name = (await service.client.upload(made_pdfs.book_of_many_fonts(10_000))).document.name

    async def peak_rss_bytes(last_page: int) -> int:
        peak = 0
        numbers = itertools.count(1)
        async for response in service.client.open_extraction(name, "text", last_page=last_page, timeout_s=100):
            if response.WhichOneof("event") == "page":
                assert response.page.number == next(numbers)
                if response.page.number % 50 == 0:
                    peak = max(peak, *(process.memory_info().rss for process in service.parsers()))
        assert next(numbers) == last_page + 1
        return peak

    few = await peak_rss_bytes(500)
    many = await peak_rss_bytes(10_000)
    # Left open, the document would add 500 MB.
    assert many < few + 60 * 1024 * 1024


def pages_parsed() -> float:
    return REGISTRY.get_sample_value("pagemesh_extractor_page_seconds_count") or 0.0


async def test_a_process_is_a_few_pages_ahead_of_its_reader_and_no_more(service: Service) -> None:
    """A client that does not read stops the parser, once what lies between them is full."""
    parsed_before = pages_parsed()
    full = b"".join(made_pdfs.line("x " * 60, y) for y in range(1, 781, 3))
    big = made_pdfs.document([full] * 120)
    name = (await service.client.upload(big)).document.name
    stream = service.client.open_extraction(name, "words", timeout_s=100)
    await stream.read()
    before = -1.0

    async def stands_still() -> bool:
        nonlocal before
        await asyncio.sleep(0.3)
        now = sum(sum(process.cpu_times()[:2]) for process in service.parsers())
        still, before = now == before, now
        return still

    still = 0
    async with asyncio.timeout(60):
        while still < 5:
            still = still + 1 if await stands_still() else 0
    assert pages_parsed() - parsed_before < 60
    pages = 0
    while (response := await stream.read()) is not grpc.aio.EOF:
        pages += response.WhichOneof("event") == "page"
    assert pages == 120
