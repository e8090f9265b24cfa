"""One picture from one parser process: what it is asked, and what its answers mean."""

import asyncio
from collections import deque
from typing import assert_never

from prometheus_client import Counter

from services.extractor.adapters.parser_process import End, ParserProcess
from services.extractor.adapters.parser_protocol import Answer, AnswerKind, Fault, Order, OrderKind
from services.extractor.adapters.parser_run import DOCUMENT_FAULT, FILE_FORMAT, LOSS, MAX_PAGE_COUNT
from services.extractor.adapters.picture_protocol import (
    NO_INDEX,
    Missing,
    PictureAnswer,
    PictureCode,
    PictureOrder,
    why_no_picture,
)
from services.extractor.domain.pages import (
    DocumentFault,
    FailedPage,
    Loss,
    PageFault,
    ParserLost,
    Picture,
    PictureFormat,
    Refused,
)
from services.extractor.domain.pictures import no_such_image, no_such_page, too_large
from services.extractor.domain.ports import PictureTask
from services.runtime.errors import PagemeshError

_CODE = {
    PictureFormat.JPEG: PictureCode.JPEG,
    PictureFormat.PNG: PictureCode.PNG,
    PictureFormat.GRAY: PictureCode.GRAY,
}
_FORMAT = {code: picture_format for picture_format, code in _CODE.items()}
_LOST_OPENING = {Loss.TIMEOUT: DocumentFault.TIMEOUT, Loss.MEMORY: DocumentFault.MEMORY}

_PICTURES = Counter("pagemesh_extractor_pictures", "Pictures that parsers answered, by outcome.", ["outcome"])


class PictureRun:
    """One picture on one process."""

    def __init__(self, process: ParserProcess, task: PictureTask, *, max_pixels: int) -> None:
        self._process = process
        self._max_pixels = max_pixels
        self._task = task
        self._answers: deque[Answer] = deque()
        self._opened = 0
        """Pages of the document, once it is opened."""
        self.finished = False

    def begin(self, task_id: int) -> None:
        task = self._task
        order = Order(
            OrderKind.PICTURE,
            task_id,
            format=FILE_FORMAT[task.media_type],
            first_page=task.page,
            last_page=task.page,
        )
        wanted = PictureOrder(
            format=_CODE[task.format],
            dpi=task.dpi,
            max_side_px=task.max_side_px,
            jpeg_quality=task.jpeg_quality,
            max_pixels=self._max_pixels,
            index=NO_INDEX if task.index is None else task.index,
            password=task.password,
        )
        try:
            self._process.begin(order, task.file.fileno(), rest=wanted.pack())
        except OSError:
            self._process.close(End.DIED)

    async def picture(self) -> Picture | Refused | FailedPage:
        """What the process answers. Raises as the port says."""
        try:
            outcome = await self._outcome()
        except ParserLost as lost:
            _PICTURES.labels(lost.loss.name).inc()
            if not self._opened and lost.loss in _LOST_OPENING:
                return Refused(_LOST_OPENING[lost.loss])
            raise
        if isinstance(outcome, PagemeshError):
            _PICTURES.labels(outcome.reason).inc()
            raise outcome
        _PICTURES.labels("drawn" if isinstance(outcome, Picture) else outcome.fault.value).inc()
        return outcome

    async def _outcome(self) -> Picture | Refused | FailedPage | PagemeshError:
        first = await self._answer()
        try:
            if first.kind is AnswerKind.REFUSED:
                self.finished = True
                return Refused(DOCUMENT_FAULT[Fault(first.code)])
            if first.kind is not AnswerKind.OPENED or not 1 <= first.number <= MAX_PAGE_COUNT:
                raise ValueError("not what opens a document")
            self._opened = first.number
            outcome = self._meaning(await self._answer())
            if (await self._answer()).kind is not AnswerKind.DONE:
                raise ValueError("more than one picture")
        except ValueError as exc:
            # A process that was taken over may say anything: what makes no sense ends it.
            self._process.close(End.PROTOCOL)
            raise ParserLost(Loss.CRASH) from exc
        self.finished = True
        return outcome

    def _meaning(self, answer: Answer) -> Picture | FailedPage | PagemeshError:
        if answer.kind is AnswerKind.PAGE_FAILED:
            memory = Fault(answer.code) is Fault.MEMORY
            return FailedPage(self._task.page, PageFault.MEMORY if memory else PageFault.CORRUPT)
        if answer.kind is AnswerKind.NO_PICTURE:
            return self._missing(*why_no_picture(answer.content))
        if answer.kind is not AnswerKind.PICTURE:
            raise ValueError("no picture")
        found = PictureAnswer.unpack(answer.content)
        if self._task.index is None and (
            found.format is not _CODE[self._task.format]
            or max(found.width_px, found.height_px) > self._task.max_side_px
        ):
            raise ValueError("not the picture that was asked for")
        return Picture(_FORMAT[found.format], found.width_px, found.height_px, found.content)

    def _missing(self, why: Missing, count: int) -> PagemeshError:
        match why:
            case Missing.PAGE_OUT_OF_RANGE:
                return no_such_page(self._opened)
            case Missing.IMAGE_OUT_OF_RANGE:
                return no_such_image(count)
            case Missing.TOO_LARGE:
                return too_large()
        assert_never(why)

    async def _answer(self) -> Answer:
        if not self._answers:
            self._answers.extend(await self._process.answers())
        if self._answers:
            return self._answers.popleft()
        wasted_s = max(0.0, asyncio.get_running_loop().time() - self._process.since)
        raise ParserLost(LOSS.get(self._process.end or End.DIED, Loss.CRASH), wasted_s)
