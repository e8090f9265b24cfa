"""Recognition of a page: what is drawn, what is tried again, and what becomes of what was read."""

import tempfile
from collections.abc import Sequence
from typing import IO

import pytest

from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import (
    DocumentFault,
    FailedPage,
    Loss,
    Page,
    PageFault,
    ParserLost,
    Picture,
    PictureFormat,
    Refused,
)
from services.extractor.domain.ports import PictureTask, RecogniseTask
from services.extractor.domain.recognise import RecognisePage, RecognitionLimits
from services.extractor.domain.recognised import LineWord, Reading, TextBlock, TextLine
from services.runtime.errors import ResourceExhausted

LIMITS = RecognitionLimits(dpi=200, max_side_px=4096, min_confidence=0.5)
PICTURE = Picture(PictureFormat.GRAY, 30, 20, b"\xff" * 600)
PARSED = Page(7, b"as it was parsed")


def line(text: str, confidence: float = 0.9) -> TextLine:
    return TextLine((LineWord(text, 0, 1),), ((0, 0), (9, 0), (9, 5), (0, 5)), confidence)


class ScriptedDrawing:
    """Answers or raises one after the other."""

    def __init__(self, *answers: Picture | Refused | FailedPage | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[PictureTask] = []

    async def picture(self, task: PictureTask) -> Picture | Refused | FailedPage:
        self.asked.append(task)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class ScriptedReading:
    """Answers or raises one after the other."""

    def __init__(self, *answers: Reading | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Picture, float | None]] = []

    async def read(self, tenant: str, picture: Picture, *, wait_s: float | None) -> Reading:
        self.asked.append((tenant, picture, wait_s))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class PlainWriter:
    """Writes the words, and a dot where something is missing."""

    def write(
        self, parsed: Page, blocks: Sequence[TextBlock], *, width_px: int, height_px: int, complete: bool
    ) -> Page:
        words = [word.text for block in blocks for row in block.lines for word in row]
        return Page(parsed.number, f"{width_px}x{height_px} {' '.join(words)}{'' if complete else '.'}".encode())


async def recognise(drawing: ScriptedDrawing, reading: ScriptedReading) -> Page | FailedPage:
    with tempfile.TemporaryFile() as file:
        return await RecognisePage(parser=drawing, reader=reading, writer=PlainWriter(), limits=LIMITS).recognise(
            task_of(file)
        )


def task_of(file: IO[bytes]) -> RecogniseTask:
    return RecogniseTask("acme", file, MediaType.PDF, 7, PARSED, wait_s=3, password="open sesame")


async def test_a_page_is_drawn_in_gray_and_read() -> None:
    drawing, reading = ScriptedDrawing(PICTURE), ScriptedReading(Reading((line("read"),)))
    assert await recognise(drawing, reading) == Page(7, b"30x20 read")
    (asked,) = drawing.asked
    assert (asked.tenant, asked.page, asked.format, asked.dpi) == ("acme", 7, PictureFormat.GRAY, 200)
    assert (asked.alone, asked.wait_s, asked.password) == (False, 3, "open sesame")
    assert reading.asked == [("acme", PICTURE, 3)]


async def test_lines_that_are_noise_are_dropped() -> None:
    lines = (line("sure", 0.5), line("noise", 0.49), TextLine((), line("").corners, 1.0))
    assert await recognise(ScriptedDrawing(PICTURE), ScriptedReading(Reading(lines))) == Page(7, b"30x20 sure")


async def test_what_was_cut_is_told() -> None:
    reading = ScriptedReading(Reading((line("half"),), complete=False))
    assert await recognise(ScriptedDrawing(PICTURE), reading) == Page(7, b"30x20 half.")


@pytest.mark.parametrize("loss", Loss)
async def test_a_page_whose_drawing_is_lost_is_drawn_once_more_alone(loss: Loss) -> None:
    drawing = ScriptedDrawing(ParserLost(loss), PICTURE)
    assert await recognise(drawing, ScriptedReading(Reading((line("read"),)))) == Page(7, b"30x20 read")
    assert [task.alone for task in drawing.asked] == [False, True]


@pytest.mark.parametrize(
    ("loss", "fault"),
    [(Loss.TIMEOUT, PageFault.TIMEOUT), (Loss.MEMORY, PageFault.MEMORY), (Loss.CRASH, PageFault.CRASHED)],
)
async def test_a_page_that_cannot_be_drawn_has_failed(loss: Loss, fault: PageFault) -> None:
    drawing = ScriptedDrawing(ParserLost(Loss.CRASH), ParserLost(loss))
    assert await recognise(drawing, ScriptedReading()) == FailedPage(7, fault)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (FailedPage(7, PageFault.CORRUPT), PageFault.CORRUPT),
        (Refused(DocumentFault.CORRUPT), PageFault.CORRUPT),
        (Refused(DocumentFault.MEMORY), PageFault.MEMORY),
        (Refused(DocumentFault.ENCRYPTED), PageFault.CORRUPT),
    ],
)
async def test_a_page_that_the_parser_does_not_draw_has_failed(answer: Refused | FailedPage, fault: PageFault) -> None:
    assert await recognise(ScriptedDrawing(answer), ScriptedReading()) == FailedPage(7, fault)


async def test_a_picture_whose_reader_dies_is_read_once_more() -> None:
    reading = ScriptedReading(ParserLost(Loss.CRASH), Reading((line("read"),)))
    assert await recognise(ScriptedDrawing(PICTURE), reading) == Page(7, b"30x20 read")
    reading = ScriptedReading(ParserLost(Loss.CRASH), ParserLost(Loss.CRASH))
    assert await recognise(ScriptedDrawing(PICTURE), reading) == FailedPage(7, PageFault.CRASHED)


@pytest.mark.parametrize(("loss", "fault"), [(Loss.TIMEOUT, PageFault.TIMEOUT), (Loss.MEMORY, PageFault.MEMORY)])
async def test_what_takes_too_much_is_not_tried_again(loss: Loss, fault: PageFault) -> None:
    assert await recognise(ScriptedDrawing(PICTURE), ScriptedReading(ParserLost(loss))) == FailedPage(7, fault)


async def test_being_busy_is_the_callers_to_know() -> None:
    busy = ResourceExhausted("OCR_BUSY", "Try again.")
    with pytest.raises(ResourceExhausted):
        await recognise(ScriptedDrawing(PICTURE), ScriptedReading(busy))
