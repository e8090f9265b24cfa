"""What the loss of a parser process costs an extraction, and what the extraction asks for."""

import hashlib
from pathlib import Path

import pytest

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.adapters.memory_pages import MemoryPages
from services.extractor.domain.extract import Extraction, ExtractionLimits, ExtractPages
from services.extractor.domain.faults import out_of_range
from services.extractor.domain.page_keeper import KeepingLimits, KeepingSignals, PageKeeper
from services.extractor.domain.pages import (
    DocumentFault,
    DocumentFlag,
    ExtractionEnd,
    ExtractionEvent,
    ExtractionStart,
    FailedPage,
    Loss,
    Page,
    PageFault,
    ParserEvent,
    ParserLost,
    Part,
    Refused,
)
from services.extractor.domain.ports import ParseTask
from services.runtime.errors import FailedPrecondition, NotFound, OutOfRange
from tests.bursts import each
from tests.unit.extractor.scripted import ScriptedParser, a_document, opened, pages, reading

SHA256 = hashlib.sha256(b"bytes").hexdigest()
DOCUMENT = a_document(SHA256)
NO_SIGNALS = KeepingSignals(stored=lambda *_: None, failed=lambda *_: None)
LIMITS = ExtractionLimits(max_pages=1000, slice_pages=10, lost_time_s=17.5, lost_pages=3, queue_wait_s=60)


class World:
    def __init__(self, parser: ScriptedParser, documents: MemoryDocuments, store: MemoryObjectStore) -> None:
        self.parser, self.documents, self.store = parser, documents, store
        self.pages = MemoryPages(documents)
        self.keeper = PageKeeper(self.pages, limits=KeepingLimits(), signals=NO_SIGNALS)
        self.extract = ExtractPages(store, self.pages, self.keeper, parser, limits=LIMITS)
        self.seen: list[ExtractionEvent] = []

    async def run(self, *, first: int = 0, last: int = 0, remaining_s: float | None = None) -> list[ExtractionEvent]:
        extraction = Extraction("acme", DOCUMENT.name, first, last, Part.TEXT)
        async for event in each(self.extract(extraction, remaining_s=lambda: remaining_s)):
            self.seen.append(event)
        return self.seen

    @property
    def numbers(self) -> list[int]:
        return [event.number for event in self.seen if isinstance(event, Page)]

    @property
    def failed(self) -> list[FailedPage]:
        return [event for event in self.seen if isinstance(event, FailedPage)]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    documents, store = MemoryDocuments(), MemoryObjectStore()
    (tmp_path / "bytes").write_bytes(b"bytes")
    await store.put(f"acme/{SHA256}", tmp_path / "bytes")
    async with documents.locked("acme", DOCUMENT.id) as record:
        await record.insert(DOCUMENT)
    return World(ScriptedParser(reading(25)), documents, store)


async def test_pages_come_in_order_between_start_and_end(world: World) -> None:
    events = await world.run()
    assert isinstance(events[0], ExtractionStart)
    assert (events[0].page_count, events[0].first_page, events[0].last_page) == (25, 1, 25)
    assert world.numbers == list(range(1, 26))
    assert events[-1] == ExtractionEnd(pages_sent=25, pages_failed=0)


async def test_a_process_is_asked_for_a_slice_at_a_time(world: World) -> None:
    await world.run()
    assert [(task.first_page, task.last_page) for task in world.parser.tasks] == [(1, 10), (11, 20), (21, 25)]
    assert world.parser.left == 3


async def test_a_range_is_what_is_asked_for(world: World) -> None:
    await world.run(first=4, last=12)
    assert world.numbers == list(range(4, 13))
    assert [(task.first_page, task.last_page) for task in world.parser.tasks] == [(4, 12)]


async def test_a_last_page_past_the_end_means_the_last_one(world: World) -> None:
    assert (await world.run(first=24, last=900))[-1] == ExtractionEnd(pages_sent=2, pages_failed=0)


async def test_a_first_page_past_the_end_is_out_of_range(world: World) -> None:
    with pytest.raises(OutOfRange) as refused:
        await world.run(first=26)
    assert refused.value.reason == "PAGE_OUT_OF_RANGE"
    assert "Ask for" in refused.value.message
    assert out_of_range(1) == "The document has 1 page. Ask for that one."
    assert out_of_range(2) == "The document has 2 pages. Ask for one of them."
    assert refused.value.fields[0].field == "first_page"
    assert world.parser.left == 1


async def test_the_page_count_is_noted(world: World) -> None:
    await world.run(first=3, last=3)
    await world.keeper.flush()
    noted = await world.documents.get("acme", DOCUMENT.id)
    assert noted is not None
    assert noted.page_count == 25


async def test_the_wait_for_a_process_ends_with_the_callers_time(world: World) -> None:
    await world.run(remaining_s=1.5)
    assert {task.wait_s for task in world.parser.tasks} == {1.5}


async def test_whoever_has_pages_already_waits_as_long_as_its_caller(world: World) -> None:
    await world.run(remaining_s=200)
    assert [(task.turns, task.wait_s) for task in world.parser.tasks] == [(0, 60), (1, 200), (2, 200)]


@pytest.mark.parametrize("fault", list(DocumentFault))
async def test_a_refused_document_says_why(world: World, fault: DocumentFault) -> None:
    world.parser.script = lambda *_: [Refused(fault)]
    with pytest.raises(FailedPrecondition) as refused:
        await world.run()
    assert refused.value.reason == fault.value


async def test_too_many_pages_are_refused_before_the_first(world: World) -> None:
    world.parser.script = reading(1001)
    with pytest.raises(FailedPrecondition) as refused:
        await world.run()
    assert refused.value.reason == "TOO_MANY_PAGES"
    assert world.seen == []


async def test_a_lost_page_is_tried_once_more_alone(world: World) -> None:
    world.parser.script = reading(25, lost=lambda _, n, page: ParserLost(Loss.CRASH) if (n, page) == (0, 4) else None)
    await world.run()
    assert world.numbers == list(range(1, 26))
    assert [(t.first_page, t.last_page, t.alone) for t in world.parser.tasks[:3]] == [
        (1, 10, False),
        (4, 4, True),
        (5, 14, False),
    ]


@pytest.mark.parametrize(
    ("loss", "fault"),
    [(Loss.CRASH, PageFault.CRASHED), (Loss.TIMEOUT, PageFault.TIMEOUT), (Loss.MEMORY, PageFault.MEMORY)],
)
async def test_a_page_that_is_lost_twice_has_failed_and_the_rest_goes_on(
    world: World, loss: Loss, fault: PageFault
) -> None:
    world.parser.script = reading(25, lost=lambda _, n, page: ParserLost(loss, 5) if page == 4 else None)
    events = await world.run()
    assert world.failed == [FailedPage(4, fault)]
    assert world.numbers == [number for number in range(1, 26) if number != 4]
    assert events[-1] == ExtractionEnd(24, 1, flags=DocumentFlag.PARTIAL)
    assert len([task for task in world.parser.tasks if task.alone]) == 1


async def test_pages_that_hang_one_after_the_other_end_the_document(world: World) -> None:
    world.parser.script = reading(25, lost=lambda _, n, page: ParserLost(Loss.TIMEOUT, 5) if page >= 4 else None)
    with pytest.raises(FailedPrecondition) as refused:
        await world.run()
    assert refused.value.reason == "DOCUMENT_TIMEOUT"
    # Two attempts at the first, one at the second and at the third: 20 s.
    assert [task.first_page for task in world.parser.tasks] == [1, 4, 5, 6]
    assert [failed.number for failed in world.failed] == [4, 5]


async def test_pages_that_crash_one_after_the_other_end_the_document(world: World) -> None:
    world.parser.script = reading(25, lost=lambda _, n, page: ParserLost(Loss.CRASH) if page >= 4 else None)
    with pytest.raises(FailedPrecondition) as refused:
        await world.run()
    assert refused.value.reason == "DOCUMENT_CORRUPT"
    assert len(world.failed) == LIMITS.lost_pages


@pytest.mark.parametrize("loss", [Loss.TIMEOUT, Loss.MEMORY])
async def test_a_document_that_hangs_or_swells_when_opened_is_not_tried_again(world: World, loss: Loss) -> None:
    world.parser.script = lambda *_: [ParserLost(loss)]
    with pytest.raises(FailedPrecondition) as refused:
        await world.run()
    assert refused.value.reason == f"DOCUMENT_{loss.name}"
    assert len(world.parser.tasks) == 1


async def test_a_crash_when_opening_is_tried_once_more_alone(world: World) -> None:
    read = reading(25)
    world.parser.script = lambda task, n: [ParserLost(Loss.CRASH)] if n == 0 else read(task, n)
    await world.run()
    assert world.numbers == list(range(1, 26))
    assert [task.alone for task in world.parser.tasks[:2]] == [False, True]


async def test_a_process_that_dies_before_it_comes_to_the_page_does_not_count_against_it(world: World) -> None:
    read = reading(25, lost=lambda _, n, page: ParserLost(Loss.CRASH) if (n, page) == (0, 4) else None)
    world.parser.script = lambda task, n: [ParserLost(Loss.CRASH)] if n == 1 else read(task, n)
    await world.run()
    assert world.numbers == list(range(1, 26))
    assert [task.alone for task in world.parser.tasks[:4]] == [False, True, True, False]


async def test_two_crashes_when_opening_are_the_documents_fault(world: World) -> None:
    world.parser.script = lambda *_: [ParserLost(Loss.CRASH)]
    with pytest.raises(FailedPrecondition) as refused:
        await world.run()
    assert refused.value.reason == "DOCUMENT_CORRUPT"
    assert len(world.parser.tasks) == 2


async def test_a_process_that_is_taken_away_is_asked_for_again(world: World) -> None:
    def script(task: ParseTask, attempt: int) -> list[object]:
        return [opened(25), *pages(task.first_page, min(task.first_page + 3, task.last_page))]

    world.parser.script = script  # type: ignore[assignment]
    await world.run()
    assert world.numbers == list(range(1, 26))


async def test_pages_out_of_order_are_a_crash(world: World) -> None:
    read = reading(25)
    world.parser.script = lambda task, n: [opened(25), *pages(3, 3)] if n == 0 else read(task, n)
    await world.run()
    assert world.numbers == list(range(1, 26))


async def test_a_failed_page_of_a_living_process_is_passed_on(world: World) -> None:
    world.parser.script = lambda task, _: [
        opened(3),
        *pages(1, 1),
        FailedPage(2, PageFault.CORRUPT),
        *pages(3, 3),
    ]
    assert (await world.run())[-1] == ExtractionEnd(2, 1, flags=DocumentFlag.PARTIAL)


async def test_an_unknown_document_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        async for _ in world.extract(Extraction("other", DOCUMENT.name, 0, 0, Part.TEXT), remaining_s=lambda: None):
            pass


async def test_a_document_whose_bytes_are_being_erased_is_not_found(world: World) -> None:
    world.store.objects.clear()
    with pytest.raises(NotFound):
        await world.run()


async def test_a_process_that_changes_its_mind_about_the_pages_is_given_up(world: World) -> None:
    def script(task: ParseTask, attempt: int) -> list[ParserEvent | ParserLost]:
        return [opened(25 if attempt == 0 else 26), *pages(task.first_page, task.last_page)]

    world.parser.script = script
    with pytest.raises(FailedPrecondition) as given_up:
        await world.run()
    assert given_up.value.reason == "DOCUMENT_CORRUPT"
    assert world.numbers == list(range(1, 11))
    assert {page.fault for page in world.failed} == {PageFault.CRASHED}


@pytest.mark.parametrize("events", [[], [opened(25)]])
async def test_a_process_that_ends_without_a_page_again_and_again_is_given_up(
    world: World, events: list[ParserEvent | ParserLost]
) -> None:
    def script(task: ParseTask, attempt: int) -> list[ParserEvent | ParserLost]:
        assert attempt < 50, "it never ends"
        return events

    world.parser.script = script
    with pytest.raises(FailedPrecondition) as given_up:
        await world.run()
    assert given_up.value.reason == "DOCUMENT_CORRUPT"
    assert world.numbers == []
