"""One task on one parser process: what it is asked, and what its answers mean."""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.message import DecodeError
from prometheus_client import Counter

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.page_bounds import check_page
from services.extractor.adapters.parser_process import End, ParserProcess
from services.extractor.adapters.parser_protocol import (
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
    ParserEvent,
    ParserLost,
    Part,
    Refused,
)
from services.extractor.domain.ports import ParseTask

FILE_FORMAT = {MediaType.PDF: Format.PDF, MediaType.JPEG: Format.JPEG, MediaType.PNG: Format.PNG}
_PART = {Part.TEXT: PartBit.TEXT, Part.BLOCKS: PartBit.BLOCKS, Part.WORDS: PartBit.WORDS}
_FLAG = {FlagBit.REPAIRED: DocumentFlag.REPAIRED, FlagBit.ENCRYPTED: DocumentFlag.ENCRYPTED}
DOCUMENT_FAULT = {
    Fault.CORRUPT: DocumentFault.CORRUPT,
    Fault.MEMORY: DocumentFault.MEMORY,
    Fault.ENCRYPTED: DocumentFault.ENCRYPTED,
    Fault.NO_PAGES: DocumentFault.NO_PAGES,
}
LOSS = {End.TIMEOUT: Loss.TIMEOUT, End.MEMORY: Loss.MEMORY}

MAX_PAGE_COUNT = (1 << 31) - 1
"""What the contract's number of pages can say."""

_PAGES = Counter("pagemesh_extractor_parsed_pages", "Pages that parsers answered, by outcome.", ["outcome"])


class ParserRun:
    """One task on one process."""

    def __init__(self, process: ParserProcess, task: ParseTask) -> None:
        self._process = process
        self._task = task
        self._expected = task.first_page
        self._last = 0
        self._opened = False
        self.finished = False

    def begin(self, task_id: int) -> None:
        task = self._task
        order = Order(
            OrderKind.PARSE,
            task_id,
            format=FILE_FORMAT[task.media_type],
            parts=sum(bit for part, bit in _PART.items() if part in task.parts),
            first_page=task.first_page,
            last_page=task.last_page,
        )
        try:
            self._process.begin(order, task.file.fileno())
        except OSError:
            self._process.close(End.DIED)

    async def events(self) -> AsyncIterator[ParserEvent]:
        while True:
            answer = await self._process.answer()
            if answer is None:
                if self._process.end is End.STALLED:
                    return
                raise self._lost()
            if answer.kind is AnswerKind.DONE:
                self._finish(self._is_done())
                return
            event = self._event(answer)
            if isinstance(event, Page | FailedPage):
                _PAGES.labels("read" if isinstance(event, Page) else event.fault.value).inc()
            yield event
            if isinstance(event, Refused):
                self._finish(True)
                return
            if not isinstance(event, Opened):
                self._process.credit()

    def _is_done(self) -> bool:
        """Whether the task may end here: with its last page, or after any page where it was asked to."""
        early = self._process.stopping and self._expected > self._task.first_page
        return self._opened and (early or self._expected > self._last)

    def _finish(self, as_it_should: bool) -> None:
        if not as_it_should:
            raise self._broken()
        self.finished = True

    def _event(self, answer: Answer) -> ParserEvent:
        """What an answer means. A process that was taken over may say anything: what makes no sense ends it."""
        try:
            if answer.kind is AnswerKind.OPENED:
                return self._open(answer)
            if answer.kind is AnswerKind.REFUSED:
                return Refused(DOCUMENT_FAULT[Fault(answer.code)])
            if answer.number != self._expected or answer.number > self._last:
                raise ValueError("not the page that comes next")
            self._expected += 1
            if answer.kind is AnswerKind.PAGE_FAILED:
                memory = Fault(answer.code) is Fault.MEMORY
                return FailedPage(answer.number, PageFault.MEMORY if memory else PageFault.CORRUPT)
            if answer.kind is not AnswerKind.PAGE:
                raise ValueError("an answer to another order")
            check_page(page_pb2.Page.FromString(answer.content), answer.number)
        except (ValueError, DecodeError) as exc:
            raise self._broken() from exc
        return Page(answer.number, answer.content)

    def _open(self, answer: Answer) -> Opened:
        if self._opened or not 1 <= answer.number <= MAX_PAGE_COUNT:
            raise ValueError("opened twice, or without pages")
        self._opened = True
        self._last = min(self._task.last_page, answer.number)
        flags = DocumentFlag.NONE
        for bit, flag in _FLAG.items():
            if answer.code & bit:
                flags |= flag
        return Opened(answer.number, flags)

    def _broken(self) -> ParserLost:
        self._process.close(End.PROTOCOL)
        return ParserLost(Loss.CRASH)

    def _lost(self) -> ParserLost:
        end = self._process.end or End.DIED
        wasted_s = max(0.0, asyncio.get_running_loop().time() - self._process.since)
        return ParserLost(LOSS.get(end, Loss.CRASH), wasted_s)
