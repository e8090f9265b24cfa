"""A document is read once, and reading holds nobody up."""

import asyncio
import threading

import pytest

from services.runtime.errors import FailedPrecondition
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import MemoryPages
from services.summarizer.domain.chunking import ChunkBuilder
from services.summarizer.domain.limits import (
    MAX_DOCUMENT_CHARS,
    MAX_DOCUMENT_WORDS,
    MAX_PAGE_CHARS,
    MAX_PAGE_WORDS,
    Intake,
    too_large,
)
from services.summarizer.domain.ports import PageFailed
from services.summarizer.domain.reading import LONG_PAGE_CHARS, Reading, read
from services.summarizer.domain.values import Page, Quote
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, page, until

LINE = "Bees make honey from the nectar of flowers. "


async def test_a_page_of_megabytes_holds_nobody_up() -> None:
    counting, loop_goes_on = threading.Event(), threading.Event()

    def count(text: str) -> int:
        counting.set()
        assert loop_goes_on.wait(5), "the loop waits for the count"
        return -(-len(text) // 4)

    pages = MemoryPages()
    pages.put(ALICE.tenant, DOCUMENT, page(1, LINE * (LONG_PAGE_CHARS // len(LINE) + 1)), page(2, "Wasps do not."))
    builder = ChunkBuilder(max_tokens=16_000, count=count)
    with act_as(ALICE):
        reading = asyncio.create_task(read(pages, DOCUMENT, builder, lambda _, __: None))
    await until(counting.is_set)
    loop_goes_on.set()
    found = await reading
    assert found.pages_read == 2
    assert sum(chunk.text.count("honey") for chunk in found.chunks) == LONG_PAGE_CHARS // len(LINE) + 1
    assert found.locator.locate(Quote("Wasps do not.", 2)) is not None


async def test_a_page_of_common_size_is_counted_where_it_is() -> None:
    threads = set[threading.Thread]()

    def count(text: str) -> int:
        threads.add(threading.current_thread())
        return -(-len(text) // 4)

    pages = MemoryPages()
    pages.put(ALICE.tenant, DOCUMENT, *(Page(number, LINE * 80, ()) for number in range(1, 4)))
    with act_as(ALICE):
        await read(pages, DOCUMENT, ChunkBuilder(max_tokens=16_000, count=count), lambda _, __: None)
    assert threads == {threading.current_thread()}


async def test_others_have_a_turn_between_pages_that_are_there_at_once() -> None:
    pages, turns = MemoryPages(), 0
    pages.put(ALICE.tenant, DOCUMENT, *(Page(number, LINE * 80, ()) for number in range(1, 21)))

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    builder = ChunkBuilder(max_tokens=16_000, count=lambda text: -(-len(text) // 4))
    taking = asyncio.create_task(take_turns())
    with act_as(ALICE):
        await read(pages, DOCUMENT, builder, lambda _, __: None)
    taking.cancel()
    assert turns >= 20


async def read_all(*pages: Page | PageFailed) -> Reading:
    source = MemoryPages()
    source.put(ALICE.tenant, DOCUMENT, *pages)
    builder = ChunkBuilder(max_tokens=16_000, count=lambda text: -(-len(text) // 4))
    with act_as(ALICE):
        return await read(source, DOCUMENT, builder, lambda _, __: None)


async def test_a_page_that_is_too_large_is_one_that_failed() -> None:
    crowded = page(2, "word " * (MAX_PAGE_WORDS + 1))
    found = await read_all(page(1, "Wasps do not."), crowded, Page(3, "x" * (MAX_PAGE_CHARS + 1), ()))
    assert found.failed_pages == (2, 3)
    assert found.pages_read == 1


@pytest.mark.parametrize(
    ("words", "chars", "fits"),
    [
        (MAX_PAGE_WORDS, MAX_PAGE_CHARS, True),
        (MAX_PAGE_WORDS + 1, 0, False),
        (0, MAX_PAGE_CHARS + 1, False),
    ],
)
def test_a_page_holds_so_much(words: int, chars: int, fits: bool) -> None:
    failed = too_large(7, words=words, chars=chars)
    assert failed == (None if fits else PageFailed(7, "PAGE_TOO_LARGE", words=words, chars=chars))


@pytest.mark.parametrize(("words", "chars"), [(MAX_DOCUMENT_WORDS, 0), (0, MAX_DOCUMENT_CHARS)])
def test_a_document_holds_so_much(words: int, chars: int) -> None:
    intake = Intake()
    intake.add(words=words // 2, chars=chars // 2)
    intake.add(words=words // 2, chars=chars // 2)
    with pytest.raises(FailedPrecondition, match="Split it") as refused:
        intake.add(words=1, chars=1)
    assert refused.value.reason == "DOCUMENT_TOO_LARGE"


async def test_pages_that_are_too_large_count_for_the_document() -> None:
    crowded = (PageFailed(number, "PAGE_TOO_LARGE", words=155_000) for number in range(1, 14))
    with pytest.raises(FailedPrecondition) as refused:
        await read_all(*crowded)
    assert refused.value.reason == "DOCUMENT_TOO_LARGE"


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (("PAGE_TOO_LARGE",), r"1 of 1 failed with PAGE_TOO_LARGE: .*20,000 words"),
        (("PAGE_CORRUPT", "PAGE_TIMEOUT", "PAGE_TIMEOUT"), r"2 of 3 failed with PAGE_TIMEOUT: .*simpler"),
        (("PAGE_CORRUPT",), r"1 of 1 failed with PAGE_CORRUPT: export the file again"),
    ],
)
async def test_why_nothing_could_be_read_is_told_with_what_to_do(reasons: tuple[str, ...], told: str) -> None:
    with pytest.raises(FailedPrecondition, match=told) as refused:
        await read_all(*(PageFailed(number, reason) for number, reason in enumerate(reasons, start=1)))
    assert refused.value.reason == "DOCUMENT_UNREADABLE"
