"""A document is read once, and reading holds nobody up."""

import asyncio
import threading

from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import MemoryPages
from services.summarizer.domain.chunking import ChunkBuilder
from services.summarizer.domain.reading import LONG_PAGE_CHARS, read
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
