"""Who reads documents that nobody extracts, when, and what of it is remembered."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from services.extractor.adapters.memory_search import MemoryBacklog
from services.extractor.domain.extract import Extraction
from services.extractor.domain.indexer import LEASE, Indexer, IndexerSignals, Unread
from services.extractor.domain.pages import ExtractionEnd, ExtractionEvent, OcrMode, Page
from services.runtime.errors import FailedPrecondition, ResourceExhausted, Unavailable
from tests.unit.extractor.scripted import NOW, StillClock

DOCUMENT = Unread("acme", "documents/" + "a" * 32)


@dataclass
class Bench:
    backlog: MemoryBacklog = field(default_factory=MemoryBacklog)
    clock: StillClock = field(default_factory=StillClock)
    busy: int = 0
    waiting: int = 0
    script: Callable[[int], None] = lambda page: None
    asked: list[Extraction] = field(default_factory=list)
    left: int = 0
    sizes: list[int] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)

    def indexer(self) -> Indexer:
        signals = IndexerSignals(self.sizes.append, self.outcomes.append, self.broken.append)
        return Indexer(
            backlog=self.backlog, extract=self.extract, load=self, clock=self.clock, signals=signals, every_s=0
        )

    async def extract(
        self, extraction: Extraction, *, remaining_s: Callable[[], float | None]
    ) -> AsyncGenerator[Sequence[ExtractionEvent], None]:
        self.asked.append(extraction)
        try:
            for number in (1, 2, 3):
                self.script(number)
                yield [Page(number, b"")]
            yield [ExtractionEnd(3, 0)]
        finally:
            self.left += 1

    def due(self) -> Bench:
        self.backlog.add(DOCUMENT, due=NOW)
        return self


async def test_a_document_that_is_due_is_read_to_its_end_once_and_without_recognition() -> None:
    bench = Bench().due()
    assert await bench.indexer().step()
    assert not await bench.indexer().step()
    assert [(each.name, each.ocr) for each in bench.asked] == [(DOCUMENT.name, OcrMode.OFF)]
    assert bench.outcomes == ["done"]
    assert bench.sizes == [1, 0]


@pytest.mark.parametrize("load", [{"busy": 1}, {"waiting": 1}])
async def test_nothing_is_begun_while_anybody_uses_or_wants_a_parser(load: dict[str, int]) -> None:
    bench = Bench(**load).due()  # type: ignore[arg-type]
    assert not await bench.indexer().step()
    assert not bench.asked


async def test_it_stops_when_somebody_waits_and_goes_on_later_without_having_lost_an_attempt() -> None:
    bench = Bench().due()

    def arrive(page: int) -> None:
        bench.waiting = 1 if page == 2 else 0

    bench.script = arrive
    for _ in range(5):
        bench.waiting = 0
        assert not await bench.indexer().step()
        bench.clock.time += dt.timedelta(minutes=1)
    assert bench.outcomes == ["interrupted"] * 5
    assert bench.left == 5, "each was closed"


@pytest.mark.parametrize(
    ("fault", "outcome", "attempts"),
    [
        (FailedPrecondition("DOCUMENT_ENCRYPTED", "no"), "refused", 1),
        (ResourceExhausted("PARSER_BUSY", "full"), "postponed", 5),
        (Unavailable("STORE_UNAVAILABLE", "down"), "postponed", 5),
        (RuntimeError("nobody foresaw it"), "failed", 2),
    ],
)
async def test_faults_are_remembered_as_far_as_they_are_the_documents(
    fault: Exception, outcome: str, attempts: int
) -> None:
    bench = Bench().due()

    def fail(page: int) -> None:
        raise fault

    bench.script = fail
    for _ in range(5):
        await bench.indexer().step()
        bench.clock.time += LEASE
    assert bench.outcomes == [outcome] * attempts


async def test_the_task_goes_on_whatever_breaks_and_gives_back_what_it_holds_when_it_is_cancelled() -> None:
    bench = Bench().due()
    hanging = asyncio.Event()
    begun = asyncio.Event()

    class Broken(MemoryBacklog):
        calls = 0

        async def size(self, *, now: dt.datetime) -> int:
            self.calls += 1
            if self.calls == 1:
                raise Unavailable("DATABASE_UNAVAILABLE", "down")
            if self.calls == 2:
                raise RuntimeError("nobody foresaw it")
            return await super().size(now=now)

    class Hanging(Bench):
        async def extract(
            self, extraction: Extraction, *, remaining_s: Callable[[], float | None]
        ) -> AsyncGenerator[Sequence[ExtractionEvent], None]:
            begun.set()
            await hanging.wait()
            yield [ExtractionEnd(0, 0)]

    bench = Hanging(backlog=Broken()).due()
    task = asyncio.create_task(bench.indexer().run())
    await asyncio.wait_for(begun.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.broken) == 1
    assert bench.outcomes == ["interrupted"]
    later = NOW + dt.timedelta(minutes=1)
    assert await bench.backlog.take(now=later, until=later + LEASE) == DOCUMENT, "nothing was held against it"
