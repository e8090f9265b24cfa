"""A run over the pages of a document: which pages are asked of which parser process, and what the loss of one costs."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from services.extractor.domain.pages import (
    DocumentFault,
    FailedPage,
    Loss,
    Opened,
    Page,
    PageFault,
    ParserEvent,
    ParserLost,
    Refused,
)
from services.extractor.domain.ports import Parser, ParseTask

Told = Opened | Page | FailedPage
"""What a run tells of a document."""

_DOCUMENT_FAULT = {
    Loss.TIMEOUT: DocumentFault.TIMEOUT,
    Loss.MEMORY: DocumentFault.MEMORY,
    Loss.CRASH: DocumentFault.CORRUPT,
}


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """`slice_pages` are asked of a process at a time: it then opens the file afresh, which keeps its memory flat, and
    others get their turn. `lost_time_s` is what one run may waste on pages that hang; `lost_pages` how many
    of its pages may take their process with them."""

    max_pages: int
    slice_pages: int
    lost_time_s: float
    lost_pages: int
    queue_wait_s: float


class DocumentLost(Exception):
    """The document as a whole cannot be read, now or ever."""

    def __init__(self, fault: DocumentFault) -> None:
        super().__init__(fault.name)
        self.fault = fault


class PageRun:
    """Pages of one document in order, whatever happens to the processes that read them.

    `task` names the first and the last page; 0 as the last one means that of the document.
    """

    def __init__(
        self,
        *,
        parser: Parser,
        limits: ExtractionLimits,
        task: ParseTask,
        wait_s: Callable[[], float | None],
        begun: bool = False,
    ) -> None:
        """`wait_s` says how long to wait for a process, each time that one is asked for; `begun`, whether who asks has
        pages already."""
        self._parser = parser
        self._limits = limits
        self._task = task
        self._wait_s = wait_s
        self._next = task.first_page
        self._last: int | None = None
        self._page_count = 0
        self._suspect = 0
        """The page that was lost once, or 0; it gets a process of its own."""
        self._task_alone = False
        self._opened = False
        """Whether the present process has opened the document."""
        self._lost_opening = False
        """Whether the process before the present one died before it had."""
        self._turns = int(begun)
        """Tasks that were asked for so far."""
        self._lost_pages = 0
        self._lost_time_s = 0.0
        self.unsure: set[int] = set()
        """Failed pages that another try may read."""

    async def events(self) -> AsyncGenerator[Sequence[Told], None]:
        """Yields Opened once, then pages and failed pages, those together that are there together. Raises DocumentLost,
        and what `Parser.parse` raises on entering."""
        while self._last is None or self._next <= self._last:
            begin = self._next
            try:
                async with self._parser.parse(self._slice()) as parsed:
                    async for events in parsed:
                        told, broken = self._taken(events)
                        if told:
                            yield told
                        if broken is not None:
                            try:
                                raise broken
                            finally:
                                del broken  # which names this frame, and with it the pages
                if self._next == begin and (self._last is None or self._next <= self._last):
                    # A process of ours reads at least one page. Asked again and again, this one would never end.
                    raise ParserLost(Loss.CRASH)
            except ParserLost as lost:
                failed = self._lose(lost)
                if failed is not None:
                    yield [failed]

    def _slice(self) -> ParseTask:
        self._opened = False
        alone = self._task_alone = self._suspect == self._next or self._lost_opening
        last = self._next if self._suspect == self._next else self._next + self._limits.slice_pages - 1
        asked = self._last or self._task.last_page
        turns, self._turns = self._turns, self._turns + 1
        return replace(
            self._task,
            first_page=self._next,
            last_page=min(last, asked) if asked else last,
            alone=alone,
            wait_s=self._longest_wait_s(begun=turns > 0),
            turns=turns,
        )

    def _longest_wait_s(self, *, begun: bool) -> float | None:
        """Whoever has pages already would lose them: it waits as long as its callers do."""
        remaining_s, limit_s = self._wait_s(), self._limits.queue_wait_s
        if begun:
            return remaining_s
        return limit_s if remaining_s is None else min(remaining_s, limit_s)

    def _taken(self, events: Sequence[ParserEvent]) -> tuple[list[Told], ParserLost | DocumentLost | None]:
        """What the events tell, up to one that makes no sense or ends the document, and what is then to be raised."""
        told: list[Told] = []
        try:
            for event in events:
                self._take(event, told)
        except (ParserLost, DocumentLost) as exc:
            return told, exc
        return told, None

    def _take(self, event: ParserEvent, told: list[Told]) -> None:
        """Adds what the event tells to `told`. Raises DocumentLost and ParserLost."""
        if isinstance(event, Refused):
            raise DocumentLost(event.fault)
        if isinstance(event, Opened):
            self._open(event, told)
            return
        if event.number != self._next:
            raise ParserLost(Loss.CRASH)
        self._next += 1
        if isinstance(event, FailedPage) and event.fault is PageFault.MEMORY and not self._task_alone:
            self.unsure.add(event.number)  # what else the process held may have been too much
        told.append(event)

    def _open(self, opened: Opened, told: list[Told]) -> None:
        self._opened, self._lost_opening = True, False
        if self._last is not None:
            if opened.page_count != self._page_count:
                raise ParserLost(Loss.CRASH)  # the file is the same, so this is no parser of ours any more
            return
        self._page_count = opened.page_count
        asked = self._task.last_page
        self._last = min(asked, opened.page_count) if asked else opened.page_count
        told.append(opened)

    def _lose(self, lost: ParserLost) -> FailedPage | None:
        """A page is tried again alone, unless the time for that is wasted already; then it has failed."""
        self._lost_time_s += lost.wasted_s
        if not self._opened:
            # A file that hangs or swells when it is opened does so again; a crash may have been somebody else's.
            if lost.loss is Loss.CRASH and not self._lost_opening:
                self._lost_opening = True
                return None
            if self._last is None:
                raise DocumentLost(_DOCUMENT_FAULT[lost.loss])
        if self._suspect != self._next and self._lost_time_s + lost.wasted_s <= self._limits.lost_time_s:
            self._suspect = self._next
            return None
        self._lost_pages += 1
        if self._lost_time_s >= self._limits.lost_time_s or self._lost_pages > self._limits.lost_pages:
            raise DocumentLost(_DOCUMENT_FAULT[lost.loss])
        if self._suspect != self._next:
            self.unsure.add(self._next)
        failed = FailedPage(self._next, lost.page_fault)
        self._next += 1
        return failed
