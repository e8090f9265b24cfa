"""One task on one parser process: what it is asked, and what its answers mean."""

import asyncio
import functools
import operator
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from google.protobuf.message import DecodeError
from prometheus_client import Counter

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.page_bounds import check_info, check_page
from services.extractor.adapters.parser_process import End, ParserProcess
from services.extractor.adapters.parser_protocol import (
    MAX_PASSWORD_CHARS,
    Answer,
    AnswerKind,
    Fault,
    FlagBit,
    Format,
    Order,
    OrderKind,
    PartBit,
)
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import (
    DocumentFault,
    DocumentFlag,
    FailedPage,
    Loss,
    Opened,
    Page,
    PageFault,
    PageFlag,
    ParserEvent,
    ParserLost,
    Part,
    Refused,
)
from services.extractor.domain.ports import ParseTask
from services.extractor.domain.stored_pages import DOCUMENT_PARTS

FILE_FORMAT = {MediaType.PDF: Format.PDF, MediaType.JPEG: Format.JPEG, MediaType.PNG: Format.PNG}
_PART = {
    Part.TEXT: PartBit.TEXT,
    Part.BLOCKS: PartBit.BLOCKS,
    Part.WORDS: PartBit.WORDS,
    Part.MARKDOWN: PartBit.MARKDOWN,
    Part.TABLES: PartBit.TABLES,
    Part.IMAGES: PartBit.IMAGES,
    Part.LINKS: PartBit.LINKS,
    Part.LANGUAGE: PartBit.TEXT,
    Part.FLAGS: PartBit.FLAGS,
    Part.METADATA: PartBit.METADATA,
    Part.OUTLINE: PartBit.OUTLINE,
}
"""A parser process does not guess languages: the model would count 70 MB in each. It sends the text instead."""
_FLAG = {FlagBit.REPAIRED: DocumentFlag.REPAIRED, FlagBit.ENCRYPTED: DocumentFlag.ENCRYPTED}
DOCUMENT_FAULT = {
    Fault.CORRUPT: DocumentFault.CORRUPT,
    Fault.MEMORY: DocumentFault.MEMORY,
    Fault.ENCRYPTED: DocumentFault.ENCRYPTED,
    Fault.NO_PAGES: DocumentFault.NO_PAGES,
    Fault.WRONG_PASSWORD: DocumentFault.WRONG_PASSWORD,
    Fault.TOO_MANY_PIXELS: DocumentFault.TOO_MANY_PIXELS,
}
_PAGE_FLAG = {
    page_pb2.PAGE_FLAG_NO_TEXT: PageFlag.NO_TEXT,
    page_pb2.PAGE_FLAG_TRUNCATED: PageFlag.TRUNCATED,
    page_pb2.PAGE_FLAG_HIDDEN_TEXT: PageFlag.HIDDEN_TEXT,
    page_pb2.PAGE_FLAG_PARTIAL: PageFlag.PARTIAL,
    page_pb2.PAGE_FLAG_BLANK: PageFlag.BLANK,
}
LOSS = {End.TIMEOUT: Loss.TIMEOUT, End.MEMORY: Loss.MEMORY}

_MANY_BYTES = 64 * 1024
"""What is longer is looked at in a thread: it would hold the loop for more than 5 ms."""
MAX_PAGE_COUNT = (1 << 31) - 1
"""What the contract's number of pages can say."""

_PAGES = Counter("pagemesh_extractor_parsed_pages", "Pages that parsers answered, by outcome.", ["outcome"])
_READ = _PAGES.labels("read")


class ParserRun:
    """One task on one process."""

    def __init__(
        self, process: ParserProcess, task: ParseTask, *, max_pixels: int, guess_language: Callable[[str], str]
    ) -> None:
        self._process = process
        self._max_pixels = max_pixels
        self._guess_language = guess_language
        self._task = task
        self._parts = task.parts & ~DOCUMENT_PARTS
        self._guesses = Part.LANGUAGE in task.parts
        self._expected = task.first_page
        self._last = 0
        self._opened = False
        self.finished = False

    @property
    def pages(self) -> int:
        """Pages that were answered, well or not."""
        return self._expected - self._task.first_page

    def begin(self, task_id: int) -> None:
        task = self._task
        password = task.password[:MAX_PASSWORD_CHARS].encode("utf-8", "replace")
        order = Order(
            OrderKind.PARSE,
            task_id,
            format=FILE_FORMAT[task.media_type],
            parts=_part_bits(task.parts),
            first_page=task.first_page,
            last_page=task.last_page,
            max_pixels=self._max_pixels,
            password_bytes=len(password),
        )
        try:
            self._process.begin(order, task.file.fileno(), rest=password)
        except OSError:
            self._process.close(End.DIED)

    async def events(self) -> AsyncIterator[Sequence[ParserEvent]]:
        while not self.finished:
            answers = await self._process.answers()
            if not answers:
                if self._process.end is End.STALLED:
                    return
                raise self._lost()
            events: list[ParserEvent] = []
            broken: ParserLost | None = None
            try:
                for answer in answers:
                    if self._takes_long(answer):
                        events.extend(await asyncio.to_thread(self._events_of, answer))
                    else:
                        events.extend(self._events_of(answer))
            except (ValueError, DecodeError) as exc:
                broken = self._broken()  # what came before is as good as ever
                broken.__cause__ = exc
            answered = self._count(events)
            if events:
                yield events
            if broken is not None:
                try:
                    raise broken
                finally:
                    del broken  # which names this frame, and with it the pages
            self._process.credit(answered)

    def _takes_long(self, answer: Answer) -> bool:
        """Whether reading it would hold up the loop."""
        return self._guesses or len(answer.content) > _MANY_BYTES

    def _events_of(self, answer: Answer) -> tuple[ParserEvent, ...]:
        """What an answer means. A process that was taken over may say anything: what makes no sense ends it. Raises
        ValueError and DecodeError."""
        kind = answer.kind
        if kind is AnswerKind.PAGE or kind is AnswerKind.PAGE_FAILED:
            if answer.number != self._expected or answer.number > self._last:
                raise ValueError("not the page that comes next")
            self._expected += 1
            if kind is AnswerKind.PAGE:
                return (self._page(answer),)
            memory = Fault(answer.code) is Fault.MEMORY
            return (FailedPage(answer.number, PageFault.MEMORY if memory else PageFault.CORRUPT),)
        if kind is AnswerKind.OPENED:
            return (self._open(answer),)
        if kind is AnswerKind.REFUSED:
            refused = Refused(DOCUMENT_FAULT[Fault(answer.code)])
            self.finished = True
            return (refused,)
        if kind is not AnswerKind.DONE or not self._may_end():
            raise ValueError("an answer to another order, or the end before its time")
        self.finished = True
        return ()

    def _may_end(self) -> bool:
        """Whether the task may end here: with its last page, or after any page where it was asked to."""
        early = self._process.stopping and self._expected > self._task.first_page
        return self._opened and (early or self._expected > self._last)

    @staticmethod
    def _count(events: Sequence[ParserEvent]) -> int:
        """Tells the metrics; answers how many pages were answered, well or not."""
        read = failed = 0
        for event in events:
            if isinstance(event, Page):
                read += 1
            elif isinstance(event, FailedPage):
                failed += 1
                _PAGES.labels(event.fault.value).inc()
        _READ.inc(read)
        return read + failed

    def _page(self, answer: Answer) -> Page:
        """Opens and checks a page. Takes 1 us for a word. Raises ValueError and DecodeError."""
        page = page_pb2.Page.FromString(answer.content)
        check_page(page, answer.number)
        content = answer.content
        if self._guesses:
            page.language = self._guess_language(page.text)
            if Part.TEXT not in self._task.parts:
                page.ClearField("text")
            content = page.SerializeToString()
        return Page(answer.number, content, _page_flags(page.flags), self._parts)

    def _open(self, answer: Answer) -> Opened:
        if self._opened or not 1 <= answer.number <= MAX_PAGE_COUNT:
            raise ValueError("opened twice, or without pages")
        if answer.content:
            check_info(answer.content)
        self._opened = True
        self._last = min(self._task.last_page, answer.number)
        flags = DocumentFlag.NONE
        for bit, flag in _FLAG.items():
            if answer.code & bit:
                flags |= flag
        return Opened(answer.number, flags, answer.content)

    def _broken(self) -> ParserLost:
        self._process.close(End.PROTOCOL)
        return ParserLost(Loss.CRASH)

    def _lost(self) -> ParserLost:
        end = self._process.end or End.DIED
        wasted_s = max(0.0, asyncio.get_running_loop().time() - self._process.since)
        return ParserLost(LOSS.get(end, Loss.CRASH), wasted_s)


@functools.cache  # of at most 2048 choices
def _part_bits(parts: Part) -> int:
    return functools.reduce(operator.or_, (bit for part, bit in _PART.items() if part in parts), 0)


def _page_flags(numbers: Iterable[page_pb2.PageFlag.ValueType]) -> PageFlag:
    flags = PageFlag.NONE
    for number in numbers:
        flags |= _PAGE_FLAG[number]
    return flags
