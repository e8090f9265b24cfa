"""Pages out of memory, out of the store and out of parsers: each is parsed once, whoever asks and however many."""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.domain.extract import Extraction
from services.extractor.domain.pages import (
    DocumentFault,
    DocumentFlag,
    ExtractionEnd,
    OcrMode,
    Page,
    PageFlag,
    Part,
)
from services.runtime.errors import FailedPrecondition
from tests.bursts import each
from tests.unit.extractor.reading_world import (
    DOCUMENT,
    PAGES,
    SHA256,
    Read,
    World,
    once,
)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    documents, store = MemoryDocuments(), MemoryObjectStore()
    (tmp_path / "bytes").write_bytes(b"bytes")
    await store.put(f"acme/{SHA256}", tmp_path / "bytes")
    async with documents.locked("acme", DOCUMENT.id) as record:
        await record.insert(DOCUMENT)
    return World(documents, store)


async def test_the_second_time_costs_no_parser_and_says_so(world: World) -> None:
    world.parser.broken = {7}
    first = await world.run()
    await world.keeper.flush()
    world.store.objects.clear()  # not even the file is needed
    second = await world.run()
    assert [replace(p) for p in second.pages] == first.pages
    assert world.parser.parsed == once()
    assert first.end == ExtractionEnd(PAGES - 1, 1, 0, DocumentFlag.PARTIAL)
    assert second.end == ExtractionEnd(PAGES - 1, 1, PAGES - 1, DocumentFlag.PARTIAL)
    assert second.start == first.start


async def test_pages_that_are_not_written_yet_are_read_all_the_same(world: World) -> None:
    await world.run()
    assert (await world.run()).numbers == list(range(1, PAGES + 1))
    assert world.parser.parsed == once()


@pytest.mark.parametrize("written", [True, False])
async def test_only_what_is_missing_is_parsed(world: World, written: bool) -> None:
    await world.run(10, 20)
    await world.run(40, 45)
    if written:
        await world.keeper.flush()
        world.restart()
    read = await world.run()
    assert read.numbers == list(range(1, PAGES + 1))
    if written:
        assert world.parser.parsed == once()
        assert read.end is not None
        assert read.end.pages_reused == 17
    else:
        # A page or two ahead of what is in memory may be read twice; never all of it.
        assert world.parser.parsed.total() <= PAGES + 17


async def test_a_run_that_broke_off_goes_on_behind_the_last_stored_page(world: World) -> None:
    await world.run(leave_after=30)
    assert world.parser.under_way == 0
    await world.keeper.flush()
    world.restart()
    assert (await world.run()).numbers == list(range(1, PAGES + 1))
    assert world.parser.parsed.total() <= PAGES + 1


async def test_many_at_the_same_time_share_one_run(world: World) -> None:
    reads = await asyncio.gather(*(world.run() for _ in range(20)))
    for read in reads:
        assert read.numbers == list(range(1, PAGES + 1))
    assert world.parser.parsed == once()


async def test_who_leaves_takes_the_others_pages_with_him_not(world: World) -> None:
    reads = await asyncio.gather(*(world.run(leave_after=n) for n in (1, 5, 9)), world.run(), world.run())
    assert reads[-1].numbers == reads[-2].numbers == list(range(1, PAGES + 1))
    assert world.parser.under_way == 0


async def test_a_driver_that_is_cancelled_amid_a_page_hands_over(world: World) -> None:
    world.parser.held[20] = asyncio.Event()
    driver = asyncio.create_task(world.run())
    while world.parser.parsed[19] == 0:
        await asyncio.sleep(0)
    other = asyncio.create_task(world.run())
    while not world.parser.under_way or len(world.parser.tasks) < 1:
        await asyncio.sleep(0)
    for _ in range(200):
        await asyncio.sleep(0)
    driver.cancel()
    await asyncio.gather(driver, return_exceptions=True)
    world.parser.held.pop(20).set()
    async with asyncio.timeout(10):
        assert (await other).numbers == list(range(1, PAGES + 1))
    assert world.parser.parsed == once()


async def test_the_last_reader_who_leaves_ends_the_run(world: World) -> None:
    world.parser.held[20] = asyncio.Event()
    readers = [asyncio.create_task(world.run()) for _ in range(3)]
    while world.parser.parsed[19] == 0:
        await asyncio.sleep(0)
    for reader in readers:
        assert world.parser.under_way == 1
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await asyncio.sleep(0)
    assert world.parser.under_way == 0


async def test_pages_that_are_written_while_they_are_read_are_not_parsed_again(world: World) -> None:
    await world.run()
    extraction = Extraction("acme", DOCUMENT.name, 0, 0, Part.TEXT)
    async with aclosing(world.extract(extraction, remaining_s=lambda: None)) as bursts:
        events = each(bursts)
        for _ in range(6):
            await anext(events)
        await world.keeper.flush()
        assert len([event async for event in events]) == PAGES - 5 + 1
    assert world.parser.parsed == once()


async def test_a_reader_who_fell_behind_reads_what_was_stored(world: World) -> None:
    extraction = Extraction("acme", DOCUMENT.name, 0, 0, Part.TEXT)
    async with aclosing(world.extract(extraction, remaining_s=lambda: None)) as bursts:
        events = each(bursts)
        for _ in range(3):
            await anext(events)
        await world.run()
        await world.keeper.flush()
        assert len([event async for event in events]) == PAGES - 2 + 1
    assert world.parser.parsed == once()


async def test_who_has_pages_already_is_not_turned_away(world: World) -> None:
    await world.run(1, 8)
    await world.keeper.flush()
    await world.run()
    assert [(task.first_page, task.turns > 0) for task in world.parser.tasks] == [
        (1, False),
        (9, True),
        (34, True),
        (59, True),
    ]


async def test_nothing_is_parsed_ahead_of_who_reads(world: World) -> None:
    extraction = Extraction("acme", DOCUMENT.name, 0, 0, Part.TEXT)
    async with aclosing(world.extract(extraction, remaining_s=lambda: None)) as bursts:
        events = each(bursts)
        for _ in range(6):
            await anext(events)
        for _ in range(100):
            await asyncio.sleep(0)
        assert world.parser.parsed.total() == 5


async def test_parts_that_are_stored_will_do_for_fewer_and_not_for_more(world: World) -> None:
    await world.run(parts=Part.MARKDOWN)
    await world.keeper.flush()
    await world.run(parts=Part.TEXT)
    await world.run(parts=Part.FLAGS)
    assert world.parser.parsed == once()
    await world.run(parts=Part.WORDS)
    assert world.parser.parsed.total() == 2 * PAGES


async def test_what_costs_something_is_computed_only_where_it_is_asked_for(world: World) -> None:
    await world.run(1, 1, parts=Part.TEXT | Part.BLOCKS | Part.WORDS)
    assert [task.parts for task in world.parser.tasks] == [Part.TEXT | Part.BLOCKS | Part.WORDS]


async def test_the_text_is_always_parsed_for_the_index(world: World) -> None:
    await world.run(1, 1, parts=Part.IMAGES)
    assert Part.TEXT in world.parser.tasks[0].parts


async def test_what_needs_a_password_is_neither_shared_nor_stored(world: World) -> None:
    reads = await asyncio.gather(world.run(password="secret"), world.run(password="secret"))
    assert {task.password for task in world.parser.tasks} == {"secret"}
    assert world.parser.parsed.total() == 2 * PAGES
    assert not world.keeper.knows(("acme", DOCUMENT.id))
    await world.keeper.flush()
    assert (await world.pages.find("acme", DOCUMENT.id)).spans == ()
    await world.run()
    assert world.parser.parsed.total() == 3 * PAGES
    assert all(read.end == ExtractionEnd(PAGES, 0) for read in reads)


async def test_stored_pages_are_not_given_for_a_password(world: World) -> None:
    await world.run()
    world.parser.refused = DocumentFault.ENCRYPTED
    for _ in ("in memory", "stored"):
        with pytest.raises(FailedPrecondition):
            await world.run(password="wrong")
        await world.keeper.flush()


async def test_a_parser_is_heard_to_its_end_and_so_can_be_used_again(world: World) -> None:
    await world.run()
    await world.run(1, 3, parts=Part.WORDS)
    await world.run(parts=Part.TEXT | Part.OUTLINE)
    assert world.parser.heard_out == len(world.parser.tasks) == 5


async def test_a_document_that_cannot_be_read_tells_all_of_them(world: World) -> None:
    world.parser.refused = DocumentFault.CORRUPT
    told = await asyncio.gather(*(world.run() for _ in range(5)), return_exceptions=True)
    assert {getattr(error, "reason", None) for error in told} == {"DOCUMENT_CORRUPT"}
    assert len(world.parser.tasks) == 1


async def test_what_the_document_says_of_itself_is_stored_as_well(world: World) -> None:
    await world.run()
    await world.keeper.flush()
    with_info = await world.run(parts=Part.TEXT | Part.OUTLINE)
    assert with_info.start is not None
    assert with_info.start.info == b"info"
    assert world.parser.parsed.total() == PAGES + 1
    await world.keeper.flush()
    assert (await world.run(parts=Part.TEXT | Part.OUTLINE)).start == with_info.start
    assert world.parser.parsed.total() == PAGES + 1


async def test_pages_without_text_are_recognised_once_and_in_order(world: World) -> None:
    world.parser.flags = dict.fromkeys((2, 3, 4, 5, 6, 60), PageFlag.NO_TEXT) | {9: PageFlag.NO_TEXT | PageFlag.BLANK}
    reads = await asyncio.gather(*(world.run() for _ in range(3)))
    await world.keeper.flush()
    world.restart()
    reads.append(await world.run())
    for read in reads:
        assert read.numbers == list(range(1, PAGES + 1))
        done = [page.number for page in read.pages if isinstance(page, Page) and PageFlag.OCR in page.flags]
        assert done == [2, 3, 4, 5, 6, 60]
    assert world.recogniser.recognised == Counter([2, 3, 4, 5, 6, 60])
    assert 2 <= world.recogniser.most <= 4
    assert world.parser.parsed == once()


async def test_recognition_is_what_was_asked_for(world: World) -> None:
    world.parser.flags = {2: PageFlag.NO_TEXT, 3: PageFlag.BLANK | PageFlag.NO_TEXT}
    await world.run(1, 3, ocr=OcrMode.OFF)
    await world.run(1, 3, parts=Part.IMAGES)
    assert world.recogniser.recognised == Counter()
    await world.run(1, 3, ocr=OcrMode.ALWAYS)
    assert world.recogniser.recognised == Counter([1, 2])
    await world.keeper.flush()
    auto = await world.run(1, 3)
    assert [page.content for page in auto.pages if isinstance(page, Page)] == [b"page 1", b"recognised 2", b"page 3"]


async def test_a_page_that_cannot_be_recognised_is_sent_as_it_was_parsed(world: World) -> None:
    world.parser.flags, world.recogniser.broken = {2: PageFlag.NO_TEXT}, {2}
    read = await world.run(1, 3)
    assert [page.content for page in read.pages if isinstance(page, Page)] == [b"page 1", b"page 2", b"page 3"]
    assert read.pages[1] == Page(2, b"page 2", PageFlag.NO_TEXT, Part.TEXT)


async def test_who_leaves_stops_the_recognition(world: World) -> None:
    world.parser.flags, world.recogniser.hang = {2: PageFlag.NO_TEXT}, asyncio.Event()
    readers = [asyncio.create_task(world.run(1, 3)) for _ in range(2)]
    while not world.recogniser.under_way:
        await asyncio.sleep(0)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert world.recogniser.under_way == 0
    assert world.recogniser.recognised == Counter([2])


async def test_who_has_no_time_to_wait_for_recognition_ends_nobody_elses(world: World) -> None:
    world.parser.flags, world.recogniser.impatient = {2: PageFlag.NO_TEXT}, 0.5
    impatient, *others = await asyncio.gather(
        world.run(1, 3, remaining_s=0.5), *(world.run(1, 3) for _ in range(3)), return_exceptions=True
    )
    assert getattr(impatient, "reason", None) == "OCR_BUSY"
    for read in others:
        assert isinstance(read, Read)
        assert read.numbers == [1, 2, 3]
    assert world.recogniser.recognised == Counter({2: 2})
    assert world.recogniser.under_way == 0
