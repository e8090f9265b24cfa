"""Extraction: which pages are asked of which parser process, and what the loss of one costs."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from services.extractor.domain.documents import Document, document_id, not_found
from services.extractor.domain.keys import object_key
from services.extractor.domain.pages import (
    DocumentFault,
    ExtractionEnd,
    ExtractionEvent,
    ExtractionStart,
    FailedPage,
    Loss,
    OcrMode,
    Opened,
    Page,
    PageFault,
    ParserEvent,
    ParserLost,
    Part,
    Refused,
)
from services.extractor.domain.ports import DocumentRepository, ObjectStore, Parser, ParseTask, ReadableFile
from services.runtime.errors import FailedPrecondition, FieldViolation, OutOfRange

_PAGE_FAULT = {Loss.TIMEOUT: PageFault.TIMEOUT, Loss.MEMORY: PageFault.MEMORY, Loss.CRASH: PageFault.CRASHED}
_DOCUMENT_FAULT = {
    Loss.TIMEOUT: DocumentFault.TIMEOUT,
    Loss.MEMORY: DocumentFault.MEMORY,
    Loss.CRASH: DocumentFault.CORRUPT,
}
_EXPLANATION = {
    DocumentFault.CORRUPT: "The file is damaged beyond repair, or is not what its first bytes say.",
    DocumentFault.ENCRYPTED: "The file asks for a password. Upload it without one.",
    DocumentFault.NO_PAGES: "The file has no pages.",
    DocumentFault.TIMEOUT: "Reading the file takes too long.",
    DocumentFault.MEMORY: "Reading the file takes too much memory.",
}


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """`slice_pages` are asked of a process at a time: it then opens the file afresh, which keeps its memory flat, and
    others get their turn. `lost_time_s` is what one extraction may waste on pages that hang; `lost_pages` how many
    of its pages may take their process with them."""

    max_pages: int
    slice_pages: int
    lost_time_s: float
    lost_pages: int
    queue_wait_s: float


@dataclass(frozen=True, slots=True)
class Extraction:
    """What is asked for; 0 as a page means the first or the last one of the document."""

    tenant: str
    name: str
    first_page: int
    last_page: int
    parts: Part
    ocr: OcrMode = OcrMode.AUTO
    password: str = field(default="", repr=False)


class ExtractPages:
    """Streams the pages of a document in order, whatever happens to the processes that read it."""

    def __init__(
        self,
        *,
        repository: DocumentRepository,
        store: ObjectStore,
        parser: Parser,
        limits: ExtractionLimits,
    ) -> None:
        self._repository = repository
        self._store = store
        self._parser = parser
        self._limits = limits

    async def __call__(
        self, extraction: Extraction, *, remaining_s: Callable[[], float | None]
    ) -> AsyncGenerator[ExtractionEvent, None]:
        """Yields ExtractionStart, then Page and FailedPage in order, then ExtractionEnd.

        Raises NotFound, FailedPrecondition with a DocumentFault or TOO_MANY_PAGES, OutOfRange PAGE_OUT_OF_RANGE, and
        what `Parser.parse` raises on entering.
        """
        document = await self._repository.get(extraction.tenant, document_id(extraction.name))
        if document is None:
            raise not_found(extraction.name)
        try:
            async with self._store.open(object_key(document.tenant, document.sha256)) as file:
                run = _Run(
                    parser=self._parser,
                    limits=self._limits,
                    document=document,
                    extraction=extraction,
                    file=file,
                    remaining_s=remaining_s,
                )
                async with aclosing(run.events()) as events:
                    async for event in events:
                        if isinstance(event, ExtractionStart) and document.page_count != event.page_count:
                            await self._repository.set_page_count(document.tenant, document.id, event.page_count)
                        yield event
        except FileNotFoundError as exc:  # deleted between the row and the bytes
            raise not_found(extraction.name) from exc


class _Run:
    """One extraction under way."""

    def __init__(
        self,
        *,
        parser: Parser,
        limits: ExtractionLimits,
        document: Document,
        extraction: Extraction,
        file: ReadableFile,
        remaining_s: Callable[[], float | None],
    ) -> None:
        self._parser = parser
        self._limits = limits
        self._extraction = extraction
        self._remaining_s = remaining_s
        self._next = max(extraction.first_page, 1)
        self._last: int | None = None
        self._page_count = 0
        self._suspect = 0
        """The page that was lost once, or 0; it gets a process of its own."""
        self._opened = False
        """Whether the present process has opened the document."""
        self._lost_opening = False
        """Whether the process before the present one died before it had."""
        self._lost_pages = 0
        self._lost_time_s = 0.0
        self._failed = 0
        self._sent = 0
        self._task = ParseTask(
            tenant=document.tenant,
            file=file,
            media_type=document.media_type,
            first_page=self._next,
            last_page=self._next,
            parts=extraction.parts,
        )

    async def events(self) -> AsyncGenerator[ExtractionEvent, None]:
        while self._last is None or self._next <= self._last:
            begin = self._next
            try:
                async with self._parser.parse(self._slice()) as parsed:
                    async for event in parsed:
                        for told in self._take(event):
                            yield told
                if self._next == begin:
                    # A process of ours reads at least one page. Asked again and again, this one would never end.
                    raise ParserLost(Loss.CRASH)
            except ParserLost as lost:
                failed = self._lose(lost)
                if failed is not None:
                    yield failed
        yield ExtractionEnd(pages_sent=self._sent, pages_failed=self._failed)

    def _slice(self) -> ParseTask:
        self._opened = False
        alone = self._suspect == self._next or self._lost_opening
        last = self._next if self._suspect == self._next else self._next + self._limits.slice_pages - 1
        asked = self._last or self._extraction.last_page
        remaining_s = self._remaining_s()
        wait_s = self._limits.queue_wait_s
        return replace(
            self._task,
            first_page=self._next,
            last_page=min(last, asked) if asked else last,
            alone=alone,
            wait_s=wait_s if remaining_s is None else min(remaining_s, wait_s),
        )

    def _take(self, event: ParserEvent) -> tuple[ExtractionEvent, ...]:
        if isinstance(event, Refused):
            raise document_fault(event.fault)
        if isinstance(event, Opened):
            return self._start(event)
        if event.number != self._next:
            raise ParserLost(Loss.CRASH)
        self._next += 1
        if isinstance(event, Page):
            self._sent += 1
        else:
            self._failed += 1
        return (event,)

    def _start(self, opened: Opened) -> tuple[ExtractionEvent, ...]:
        self._opened, self._lost_opening = True, False
        if self._last is not None:
            if opened.page_count != self._page_count:
                raise ParserLost(Loss.CRASH)  # the file is the same, so this is no parser of ours any more
            return ()
        if opened.page_count > self._limits.max_pages:
            raise FailedPrecondition(
                "TOO_MANY_PAGES",
                f"The document has {opened.page_count} pages; at most {self._limits.max_pages} are read. Split it.",
            )
        if self._next > opened.page_count:
            message = f"The document has {opened.page_count} pages. Ask for one of them."
            raise OutOfRange("PAGE_OUT_OF_RANGE", message, fields=[FieldViolation("first_page", message)])
        self._page_count = opened.page_count
        asked = self._extraction.last_page
        self._last = min(asked, opened.page_count) if asked else opened.page_count
        return (ExtractionStart(opened.page_count, self._next, self._last, opened.flags),)

    def _lose(self, lost: ParserLost) -> FailedPage | None:
        """A page is tried again alone, unless the time for that is wasted already; then it has failed."""
        self._lost_time_s += lost.wasted_s
        if not self._opened:
            # A file that hangs or swells when it is opened does so again; a crash may have been somebody else's.
            if lost.loss is Loss.CRASH and not self._lost_opening:
                self._lost_opening = True
                return None
            if self._last is None:
                raise document_fault(_DOCUMENT_FAULT[lost.loss])
        if self._suspect != self._next and self._lost_time_s + lost.wasted_s <= self._limits.lost_time_s:
            self._suspect = self._next
            return None
        self._lost_pages += 1
        if self._lost_time_s >= self._limits.lost_time_s or self._lost_pages > self._limits.lost_pages:
            raise document_fault(_DOCUMENT_FAULT[lost.loss])
        failed = FailedPage(self._next, _PAGE_FAULT[lost.loss])
        self._next += 1
        self._failed += 1
        return failed


def document_fault(fault: DocumentFault) -> FailedPrecondition:
    """The error for a document that cannot be read."""
    return FailedPrecondition(fault.value, _EXPLANATION[fault])
