"""Extraction over pages in memory and a parser by a script that counts what it reads."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore
from services.extractor.adapters.memory_pages import MemoryPages
from services.extractor.domain.extract import Extraction, ExtractionLimits, ExtractPages
from services.extractor.domain.page_keeper import KeepingLimits, KeepingSignals, PageKeeper
from services.extractor.domain.pages import (
    DocumentFault,
    DocumentFlag,
    ExtractionEnd,
    ExtractionStart,
    FailedPage,
    Opened,
    Page,
    PageFault,
    PageFlag,
    ParserEvent,
    Part,
    Refused,
)
from services.extractor.domain.ports import ParseTask, RecogniseTask
from services.extractor.domain.stored_pages import DOCUMENT_PARTS
from services.runtime.errors import ResourceExhausted
from tests.bursts import each
from tests.unit.extractor.scripted import a_document

SHA256 = hashlib.sha256(b"bytes").hexdigest()
DOCUMENT = a_document(SHA256)
PAGES = 60
LIMITS = ExtractionLimits(max_pages=1000, slice_pages=25, lost_time_s=17.5, lost_pages=3, queue_wait_s=60)
KEEPING = KeepingLimits(segment_pages=8)


@dataclass
class CountingParser:
    """Counts how often each page is parsed; a page in `held` waits for its event."""

    parsed: Counter[int] = field(default_factory=Counter)
    tasks: list[ParseTask] = field(default_factory=list)
    held: dict[int, asyncio.Event] = field(default_factory=dict)
    flags: dict[int, PageFlag] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)
    refused: DocumentFault | None = None
    under_way: int = 0
    heard_out: int = 0

    @asynccontextmanager
    async def parse(self, task: ParseTask) -> AsyncIterator[AsyncIterator[Sequence[ParserEvent]]]:
        self.tasks.append(task)
        self.under_way += 1
        try:
            yield self._events(task)
        finally:
            self.under_way -= 1

    async def check(self) -> None:
        return

    async def _events(self, task: ParseTask) -> AsyncIterator[Sequence[ParserEvent]]:
        await asyncio.sleep(0)
        if self.refused is not None:
            yield [Refused(self.refused)]
            return
        info = b"info" if task.parts & (Part.METADATA | Part.OUTLINE) else b""
        yield [Opened(PAGES, DocumentFlag.NONE, info)]
        for number in range(task.first_page, min(task.last_page, PAGES) + 1):
            if number in self.held:
                await self.held[number].wait()
            await asyncio.sleep(0)
            self.parsed[number] += 1
            if number in self.broken:
                yield [FailedPage(number, PageFault.CORRUPT)]
            else:
                yield [
                    Page(
                        number, b"page %d" % number, self.flags.get(number, PageFlag.NONE), task.parts & ~DOCUMENT_PARTS
                    )
                ]
        self.heard_out += 1


@dataclass
class CountingRecogniser:
    recognised: Counter[int] = field(default_factory=Counter)
    under_way: int = 0
    most: int = 0
    broken: set[int] = field(default_factory=set)
    hang: asyncio.Event | None = None
    impatient: float | None = None
    """The wait for a process that is too short."""

    async def recognise(self, task: RecogniseTask) -> Page | FailedPage:
        self.recognised[task.page] += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            if self.hang is not None:
                await self.hang.wait()
        finally:
            self.under_way -= 1
        if self.impatient is not None and task.wait_s == self.impatient:
            raise ResourceExhausted("OCR_BUSY", "busy")
        if task.page in self.broken:
            return FailedPage(task.page, PageFault.TIMEOUT)
        return Page(task.page, b"recognised %d" % task.page, PageFlag.OCR)


class World:
    def __init__(self, documents: MemoryDocuments, store: MemoryObjectStore) -> None:
        self.documents, self.store = documents, store
        self.parser, self.recogniser = CountingParser(), CountingRecogniser()
        self.pages = MemoryPages(documents)
        self.restart()

    def restart(self) -> None:
        """What a new process begins with."""
        signals = KeepingSignals(stored=lambda *_: None, failed=lambda *_: None)
        self.keeper = PageKeeper(self.pages, limits=KEEPING, signals=signals)
        self.extract = ExtractPages(
            self.store,
            self.pages,
            self.keeper,
            self.parser,
            limits=LIMITS,
            recogniser=self.recogniser,
        )

    async def run(
        self,
        first: int = 0,
        last: int = 0,
        parts: Part = Part.TEXT,
        *,
        leave_after: int = 0,
        remaining_s: float | None = None,
        **more: object,
    ) -> "Read":
        read = Read()
        extraction = replace(Extraction("acme", DOCUMENT.name, first, last, parts), **more)  # type: ignore[arg-type]
        async with aclosing(self.extract(extraction, remaining_s=lambda: remaining_s)) as events:
            async for event in each(events):
                if isinstance(event, ExtractionStart):
                    read.start = event
                elif isinstance(event, ExtractionEnd):
                    read.end = event
                else:
                    read.pages.append(event)
                if leave_after and len(read.pages) == leave_after:
                    break
        return read


@dataclass
class Read:
    start: ExtractionStart | None = None
    pages: list[Page | FailedPage] = field(default_factory=list)
    end: ExtractionEnd | None = None

    @property
    def numbers(self) -> list[int]:
        return [page.number for page in self.pages]


def once(first: int = 1, last: int = PAGES) -> Counter[int]:
    return Counter(range(first, last + 1))
