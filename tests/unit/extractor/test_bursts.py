"""Pages that come several at a time: how they are written to the wire, and that nothing of them stays behind."""

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.api import mapping
from services.extractor.domain.flights import Flight
from services.extractor.domain.pages import (
    DocumentFlag,
    ExtractionEnd,
    ExtractionEvent,
    ExtractionStart,
    FailedPage,
    Opened,
    Page,
    PageFault,
    ParserEvent,
    Part,
)
from services.extractor.domain.ports import ParseTask
from tests.unit.extractor.reading_world import DOCUMENT, SHA256, World


def page_of(number: int, text: str) -> Page:
    return Page(number, page_pb2.Page(number=number, text=text).SerializeToString(), parts=Part.TEXT)


def parsed(messages: list[bytes]) -> list[list[pb.ExtractPagesResponse]]:
    return [list(pb.ExtractPagesResponse.FromString(message).burst.events) for message in messages]


def test_events_of_a_burst_are_what_they_are_one_by_one() -> None:
    events: list[ExtractionEvent] = [
        ExtractionStart(3, 1, 3, DocumentFlag.REPAIRED),
        page_of(1, "one"),
        FailedPage(2, PageFault.TIMEOUT),
        page_of(3, ""),
        ExtractionEnd(2, 1),
    ]
    ((*together,),) = parsed(list(mapping.bursts(events, Part.TEXT)))
    alone = list(mapping.messages(events, Part.TEXT))
    assert together == [pb.ExtractPagesResponse.FromString(one) if isinstance(one, bytes) else one for one in alone]


def test_a_burst_is_not_much_longer_than_a_quarter_of_a_mebibyte() -> None:
    pages: list[ExtractionEvent] = [page_of(number, "x" * 100_000) for number in range(1, 11)]
    large = page_of(11, "x" * 4_000_000)
    messages = list(mapping.bursts([*pages, large], Part.TEXT))
    assert [[event.page.number for event in burst] for burst in parsed(messages)] == [
        [1, 2],
        [3, 4],
        [5, 6],
        [7, 8],
        [9, 10],
        [11],
    ]


@dataclass
class BurstingParser:
    """Answers everything at once."""

    pages: list[Page]
    tasks: list[ParseTask] = field(default_factory=list)

    @asynccontextmanager
    async def parse(self, task: ParseTask) -> AsyncIterator[AsyncIterator[list[ParserEvent]]]:
        self.tasks.append(task)
        yield self._events()

    async def check(self) -> None:
        return

    async def _events(self) -> AsyncIterator[list[ParserEvent]]:
        yield [Opened(len(self.pages), DocumentFlag.NONE), *self.pages]


@pytest.mark.parametrize("password", ["", "secret"])
async def test_a_burst_that_is_larger_than_what_is_remembered_comes_whole_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    documents, store = MemoryDocuments(), MemoryObjectStore()
    async with documents.locked("acme", DOCUMENT.id) as record:
        await record.insert(DOCUMENT)
    store.objects[f"acme/{SHA256}"] = b"bytes"
    world = World(documents, store)
    parser = BurstingParser([page_of(number, "x" * 1_000_000) for number in range(1, 9)])
    world.parser = parser  # type: ignore[assignment]
    world.restart()
    begun: list[weakref.ref[Flight]] = []
    init = Flight.__init__

    def seen(self: Flight, *args: object, **more: object) -> None:
        init(self, *args, **more)  # type: ignore[arg-type]
        begun.append(weakref.ref(self))

    monkeypatch.setattr(Flight, "__init__", seen)
    gc.disable()
    try:
        read = await world.run(password=password)
        assert read.numbers == list(range(1, 9))
        assert len(parser.tasks) == 1
        (flight,) = begun
        assert (left := flight()) is None or (left.get(8), left.get(1)) == (None, None)
    finally:
        gc.enable()
