"""Pages that are stored a moment after they were read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest

from services.extractor.adapters.memory import MemoryDocuments
from services.extractor.adapters.memory_pages import MemoryPages
from services.extractor.domain.page_keeper import KeepingLimits, KeepingSignals, PageKeeper, RunKey
from services.extractor.domain.pages import DocumentFlag, FailedPage, Page, PageFault, Part
from services.extractor.domain.stored_pages import Facts, Finding, Source
from services.runtime.errors import Unavailable
from tests.unit.extractor.scripted import a_document

DOCUMENT, OTHER = a_document("ab" * 32), a_document("cd" * 32)
LIMITS = KeepingLimits(segment_pages=4, segment_s=0.05, every_s=0.001, queue_bytes=1000)


class BreakablePages(MemoryPages):
    error: Exception | None = None
    refused: str = ""
    written = 0

    async def write(self, findings: Sequence[Finding]) -> None:
        if self.error is not None and (not self.refused or self.refused in {f.document_id for f in findings}):
            raise self.error
        self.written += 1
        await super().write(findings)


class World:
    def __init__(self, documents: MemoryDocuments, limits: KeepingLimits = LIMITS) -> None:
        self.pages = BreakablePages(documents)
        self.stored: list[int] = []
        self.failed: list[int] = []
        signals = KeepingSignals(
            stored=lambda pages, _: self.stored.append(pages),
            failed=lambda pages, _: self.failed.append(pages),
        )
        self.busy = False
        self.keeper = PageKeeper(self.pages, limits=limits, signals=signals, is_busy=lambda: self.busy)

    async def spans(self, document_id: str = DOCUMENT.id) -> list[tuple[int, int]]:
        spans = (await self.pages.find("acme", document_id)).spans
        return sorted((span.first_page, span.last_page) for span in spans)


@pytest.fixture
async def documents() -> MemoryDocuments:
    documents = MemoryDocuments()
    for document in (DOCUMENT, OTHER):
        async with documents.locked("acme", document.id) as record:
            await record.insert(document)
    return documents


@pytest.fixture
def world(documents: MemoryDocuments) -> World:
    return World(documents)


@pytest.fixture
async def running(world: World) -> AsyncIterator[World]:
    task = asyncio.create_task(world.keeper.run())
    try:
        yield world
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def key(document_id: str = DOCUMENT.id, parts: Part = Part.TEXT) -> RunKey:
    return RunKey("acme", document_id, Source.PARSED, parts)


def add(world: World, *numbers: int, to: RunKey | None = None, run: object = None, size: int = 10) -> None:
    for number in numbers:
        world.keeper.add(to or key(), Page(number, b"x" * size), run=run)


async def until(condition: object) -> None:
    async with asyncio.timeout(10):
        while not (await condition() if callable(condition) else condition):
            await asyncio.sleep(0.001)


async def until_stored(world: World, pages: int) -> None:
    async def are_stored() -> bool:
        return sum(world.stored) == pages

    await until(are_stored)


async def test_a_page_is_there_before_it_is_stored_and_not_kept_afterwards(world: World) -> None:
    add(world, 1, 2)
    world.keeper.add(key(), FailedPage(3, PageFault.CORRUPT), run=None)
    assert world.keeper.get(key(), 2) == Page(2, b"x" * 10)
    assert world.keeper.knows(("acme", DOCUMENT.id))
    await world.keeper.flush()
    assert await world.spans() == [(1, 3)]
    assert world.keeper.get(key(), 2) is None
    # Whoever looked a moment too early knows that it is worth another look.
    assert world.keeper.knows(("acme", DOCUMENT.id))


async def test_a_page_with_more_parts_will_do_and_one_with_fewer_will_not(world: World) -> None:
    add(world, 1, to=key(parts=Part.TEXT | Part.WORDS))
    assert world.keeper.get(key(parts=Part.WORDS), 1) is not None
    assert world.keeper.get(key(parts=Part.MARKDOWN), 1) is None


async def test_a_segment_ends_when_it_is_full_or_where_a_page_is_missing(world: World) -> None:
    add(world, 1, 2, 3, 4, 5, 7, 8)
    await world.keeper.flush()
    assert await world.spans() == [(1, 4), (5, 5), (7, 8)]


async def test_runs_over_the_same_document_do_not_cut_each_others_segments(world: World) -> None:
    for number in range(1, 4):
        add(world, number, run="one")
        add(world, number + 100, run="other")
    await world.keeper.flush()
    assert await world.spans() == [(1, 3), (101, 103)]


async def test_a_slow_run_is_stored_before_its_segment_is_full(running: World) -> None:
    add(running, 1)
    await until(lambda: _is(running.spans(), [(1, 1)]))


async def test_many_documents_share_a_transaction(world: World) -> None:
    add(world, 1, 2)
    add(world, 1, to=key(OTHER.id))
    world.keeper.note(("acme", OTHER.id), Facts(1, DocumentFlag.NONE))
    await world.keeper.flush()
    assert world.pages.written == 1
    assert await world.spans(OTHER.id) == [(1, 1)]
    assert (await world.pages.find("acme", OTHER.id)).facts == Facts(1, DocumentFlag.NONE)


async def test_the_same_pages_twice_are_stored_once(world: World) -> None:
    add(world, 1, 2, 3, run="one")
    add(world, 1, 2, run="other")
    await world.keeper.flush()
    assert await world.spans() == [(1, 3)]
    assert not world.keeper.get(key(), 1)


async def test_a_database_that_is_down_costs_the_pages_that_wait_and_no_more(running: World) -> None:
    running.pages.error = Unavailable("DATABASE_UNAVAILABLE", "down")
    add(running, 1, 2, 3, 4)
    await until(lambda: _is(_value(running.failed), [4]))
    assert running.keeper.get(key(), 1) is None
    running.pages.error = None
    add(running, 5)
    await until(lambda: _is(running.spans(), [(5, 5)]))


async def test_one_documents_fault_is_not_the_others(world: World) -> None:
    world.pages.error, world.pages.refused = ValueError("of this one alone"), DOCUMENT.id
    add(world, 1, 2)
    add(world, 1, 2, 3, to=key(OTHER.id))
    await world.keeper.flush()
    assert (world.failed, world.stored) == ([2], [3])
    assert await world.spans(OTHER.id) == [(1, 3)]


async def test_who_adds_pages_waits_where_too_much_is_not_stored(world: World) -> None:
    add(world, 1, size=LIMITS.queue_bytes)
    waiting = asyncio.create_task(world.keeper.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await world.keeper.flush()
    async with asyncio.timeout(10):
        await waiting


async def test_nobody_waits_for_a_database_that_is_down_and_memory_stays_bounded(world: World) -> None:
    world.pages.error = Unavailable("DATABASE_UNAVAILABLE", "down")
    add(world, 1)
    await world.keeper.flush()
    add(world, 2, size=LIMITS.queue_bytes)
    async with asyncio.timeout(10):
        await world.keeper.room()
    add(world, 3)
    assert world.keeper.get(key(), 3) is None
    assert world.failed == [1, 1]


async def test_what_was_being_stored_when_the_service_ended_is_stored_by_the_flush(world: World) -> None:
    entered, never = asyncio.Event(), asyncio.Event()
    write = world.pages.write

    async def hang(findings: Sequence[Finding]) -> None:
        entered.set()
        await never.wait()

    world.pages.write = hang  # type: ignore[method-assign]
    task = asyncio.create_task(world.keeper.run())
    add(world, 1, 2, 3, 4)
    async with asyncio.timeout(10):
        await entered.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    world.pages.write = write  # type: ignore[method-assign]
    await world.keeper.flush()
    assert await world.spans() == [(1, 4)]


async def _is(value: object, wanted: object) -> bool:
    return (await value if asyncio.iscoroutine(value) else value) == wanted


async def _value(value: object) -> object:
    return value


async def test_while_parsers_are_at_work_pages_wait_to_be_stored(running: World) -> None:
    running.busy = True
    add(running, 1, 2, 3, 4)
    for _ in range(20):
        await asyncio.sleep(LIMITS.every_s)
    assert running.stored == []
    assert running.keeper.get(key(), 4) is not None
    running.busy = False
    await until_stored(running, 4)


async def test_they_wait_for_so_long_and_no_longer(documents: MemoryDocuments) -> None:
    world = World(documents, KeepingLimits(segment_pages=4, every_s=0.001, busy_s=0.01))
    world.busy = True
    task = asyncio.create_task(world.keeper.run())
    add(world, 1, 2, 3, 4)
    await until_stored(world, 4)
    task.cancel()


async def test_too_much_does_not_wait(documents: MemoryDocuments) -> None:
    world = World(documents, KeepingLimits(segment_pages=4, every_s=0.001, busy_bytes=40))
    world.busy = True
    task = asyncio.create_task(world.keeper.run())
    add(world, 1, 2, 3, 4, size=10)
    await until_stored(world, 4)
    task.cancel()
