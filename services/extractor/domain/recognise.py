"""Optical character recognition of a page: drawn by a parser process, read by another, and put in order."""

import asyncio
from dataclasses import dataclass, replace

from services.extractor.domain.page_layout import blocks_of
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
from services.extractor.domain.ports import PageWriter, PictureParser, PictureTask, RecogniseTask, TextReader
from services.extractor.domain.recognised import Reading

_REFUSED = {DocumentFault.TIMEOUT: PageFault.TIMEOUT, DocumentFault.MEMORY: PageFault.MEMORY}


@dataclass(frozen=True, slots=True)
class RecognitionLimits:
    """How finely a page is drawn, and below which confidence a line is noise."""

    dpi: int
    max_side_px: int
    min_confidence: float


class RecognisePage:
    """Implements the port `Recogniser`."""

    def __init__(
        self, *, parser: PictureParser, reader: TextReader, writer: PageWriter, limits: RecognitionLimits
    ) -> None:
        self._parser = parser
        self._reader = reader
        self._writer = writer
        self._limits = limits

    async def recognise(self, task: RecogniseTask) -> Page | FailedPage:
        """See the port."""
        try:
            picture = await self._draw(task)
            if isinstance(picture, FailedPage):
                return picture
            reading = await self._read(task, picture)
        except ParserLost as lost:
            return FailedPage(task.page, lost.page_fault)
        # A page of noise has so many lines that putting them in order would hold the loop up.
        return await asyncio.to_thread(self._page, task.parsed, picture, reading)

    def _page(self, parsed: Page, picture: Picture, reading: Reading) -> Page:
        lines = [line for line in reading.lines if line.words and line.confidence >= self._limits.min_confidence]
        return self._writer.write(
            parsed,
            blocks_of(lines),
            width_px=picture.width_px,
            height_px=picture.height_px,
            complete=reading.complete,
        )

    async def _draw(self, task: RecogniseTask) -> Picture | FailedPage:
        """The picture; drawn a second time alone where its process is lost."""
        asked = PictureTask(
            tenant=task.tenant,
            file=task.file,
            media_type=task.media_type,
            page=task.page,
            format=PictureFormat.GRAY,
            dpi=self._limits.dpi,
            max_side_px=self._limits.max_side_px,
            wait_s=task.wait_s,
            password=task.password,
        )
        try:
            drawn = await self._parser.picture(asked)
        except ParserLost:
            drawn = await self._parser.picture(replace(asked, alone=True))
        if isinstance(drawn, Refused):
            return FailedPage(task.page, _REFUSED.get(drawn.fault, PageFault.CORRUPT))
        return drawn

    async def _read(self, task: RecogniseTask, picture: Picture) -> Reading:
        """What is in it. A process that dies may have been killed by mistake; one that takes too long or too much does
        so again, since it is always alone with its picture."""
        try:
            return await self._reader.read(task.tenant, picture, wait_s=task.wait_s)
        except ParserLost as lost:
            if lost.loss is not Loss.CRASH:
                raise
            return await self._reader.read(task.tenant, picture, wait_s=task.wait_s)
