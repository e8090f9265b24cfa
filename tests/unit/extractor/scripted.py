"""A parser that does what a test wrote down, and values that many tests need."""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from services.extractor.domain.documents import Document
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import DocumentFlag, Opened, Page, ParserEvent, ParserLost
from services.extractor.domain.ports import ParseTask
from services.extractor.domain.retention import Term

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
Script = Callable[[ParseTask, int], Sequence[ParserEvent | ParserLost]]


def a_document(
    sha256: str = "ab" * 32, *, tenant: str = "acme", create_time: dt.datetime = NOW, term: Term | None = None
) -> Document:
    document = Document(tenant, sha256, "a.pdf", MediaType.PDF, 100, create_time)
    return document if term is None else replace(document, term=term)


@dataclass
class StillClock:
    time: dt.datetime = NOW

    def now(self) -> dt.datetime:
        return self.time


@dataclass
class ScriptedParser:
    """Answers each task with what `script(task, how many came before)` lists; a ParserLost in it is raised."""

    script: Script
    tasks: list[ParseTask] = field(default_factory=list)
    left: int = 0

    @contextlib.asynccontextmanager
    async def parse(self, task: ParseTask) -> AsyncIterator[AsyncIterator[Sequence[ParserEvent]]]:
        self.tasks.append(task)
        try:
            yield self._events(self.script(task, len(self.tasks) - 1))
        finally:
            self.left += 1

    async def check(self) -> None:
        return

    async def _events(self, script: Sequence[ParserEvent | ParserLost]) -> AsyncIterator[Sequence[ParserEvent]]:
        for event in script:
            if isinstance(event, ParserLost):
                raise event
            yield [event]


def opened(page_count: int) -> Opened:
    return Opened(page_count, DocumentFlag.NONE)


def pages(first: int, last: int) -> list[ParserEvent]:
    return [Page(number, b"") for number in range(first, last + 1)]


def reading(page_count: int, *, lost: Callable[[ParseTask, int, int], ParserLost | None] | None = None) -> Script:
    """A document of so many pages; `lost(task, attempt, page)` says where its process goes."""

    def script(task: ParseTask, attempt: int) -> list[ParserEvent | ParserLost]:
        answers: list[ParserEvent | ParserLost] = [opened(page_count)]
        for number in range(task.first_page, min(task.last_page, page_count) + 1):
            gone = lost(task, attempt, number) if lost else None
            if gone is not None:
                return [*answers, gone]
            answers.append(Page(number, b""))
        return answers

    return script
