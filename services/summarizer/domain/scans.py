"""Scanned pages are read by a model, where the request asks for it: each picture is paid for once.

A page that has no text of its own is drawn, and a model for OCR reads the picture. The call is one like any other
(paid_calls.py): money is set aside for it, its answer is committed under the digest of the picture, and it is told to
the ledger once. What the model wrote is the page's text from there on; the parser's own reading stays beside it, for
only the parser can tell where words stand (citations.py).
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field, replace

from services.runtime.errors import FailedPrecondition, PagemeshError, Unavailable
from services.summarizer.domain.chunking import ChunkBuilder
from services.summarizer.domain.failover import another_may_answer
from services.summarizer.domain.keys import page_key
from services.summarizer.domain.limits import too_large
from services.summarizer.domain.map_reduce import Bill, Job, MapReduce
from services.summarizer.domain.models import Model
from services.summarizer.domain.page_range import PageRange
from services.summarizer.domain.page_text import page_text, words_of
from services.summarizer.domain.pictures import PagePrompt
from services.summarizer.domain.ports import DocumentStart, PageFailed, PageSource
from services.summarizer.domain.ports_pictures import PagePictures
from services.summarizer.domain.reading import Chunked, Reading, read
from services.summarizer.domain.values import Page, ScanReading

AT_ONCE = 4
"""Pages of one request that are being read by a model: as many as there are calls about its chunks."""
MOST_WAITING = 32
"""Pages of one request that wait behind one that is being read, so that all come in order."""

_NOT_DRAWN = ("PAGE_", "PICTURE_")
"""Reasons of pages that cannot be drawn, whoever asks."""

Item = DocumentStart | Page | PageFailed
Acting = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Scans:
    """Who draws pages and who pays for reading them. `stand_in` is the text of a page of which nobody knows any, for
    estimates."""

    pages: PageSource
    pictures: PagePictures
    map_reduce: MapReduce
    stand_in: str = ""

    async def read(
        self,
        job: Job,
        builder: ChunkBuilder,
        told: Callable[[int, int], None],
        bill: Bill,
        acting: Acting,
        *,
        chunked: Chunked | None = None,
    ) -> Reading:
        """What reading.read answers, with scanned pages as the job's `ocr` read them; without one as they are. So
        they are where personal data has to be replaced too: in a picture nothing can be.

        Pages are drawn and bought inside `acting`. Raises what that and PagePictures raise, what a model's call raises
        about money, and Unavailable OCR_MODEL_UNAVAILABLE where no page has any text because the model could not read
        them.
        """
        if job.ocr is None or job.options.anonymise:
            return await read(_Within(self.pages, job.pages), job.document, builder, told, chunked=chunked)
        run = _Run(self, job, job.ocr, bill, acting)
        try:
            reading = await read(run, job.document, builder, told)
        except FailedPrecondition as exc:
            if run.first is None or exc.reason not in ("DOCUMENT_HAS_NO_TEXT", "DOCUMENT_UNREADABLE"):
                raise
            # The document is as it was: it may well be read another time, and must not count as processed.
            raise _unread(job.ocr, run.first) from exc
        return replace(reading, scans=ScanReading(job.ocr.name, tuple(run.done), tuple(run.failed)))


@dataclass(frozen=True, slots=True)
class _Within:
    """The pages of a range."""

    source: PageSource
    within: PageRange

    def pages(self, document: str) -> AsyncGenerator[Item, None]:
        """As they come."""
        return self.source.pages(document, self.within)


@dataclass(slots=True)
class _Run:
    """The pages of one document on their way through a model. It is asked for its pages once."""

    scans: Scans
    job: Job
    model: Model
    bill: Bill
    acting: Acting
    done: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    first: PagemeshError | None = None

    async def pages(self, document: str) -> AsyncGenerator[Item, None]:
        """The same pages in the same order."""
        waiting: deque[Item | asyncio.Task[Item]] = deque()
        try:
            async with aclosing(self.scans.pages.pages(document, self.job.pages)) as items:
                async for item in items:
                    is_scan = isinstance(item, Page) and item.scanned
                    waiting.append(asyncio.create_task(self._read(item)) if is_scan else item)  # type: ignore[arg-type]
                    while waiting and (_is_there(waiting[0]) or _is_full(waiting)):
                        yield await _first(waiting)
            while waiting:
                yield await _first(waiting)
        except PagemeshError:
            # Calls that are under way are being paid for: they end, and what they answer serves the next try.
            await asyncio.gather(*_tasks(waiting), return_exceptions=True)
            raise
        finally:
            for task in _tasks(waiting):
                task.cancel()
            await asyncio.gather(*_tasks(waiting), return_exceptions=True)
            self.done.sort()
            self.failed.sort()

    async def _read(self, page: Page) -> Item:
        """The page as the model reads it; as the parser did where it cannot; a failed one where there is neither."""
        try:
            with self.acting():
                text = await self._text(page)
        except PagemeshError as exc:
            if not (another_may_answer(exc, self.model) or exc.reason.startswith(_NOT_DRAWN)):
                raise
            self.first = self.first or exc
            self.failed.append(page.number)
            return page if page.text.strip() else PageFailed(page.number, exc.reason)
        if not text:
            # Nothing to be read, by the model. What the parser saw there stays.
            text = page.text or self.scans.stand_in
            return replace(page, text=text, words=page.words or words_of(text))
        words = words_of(text)
        self.done.append(page.number)
        failed = too_large(page.number, words=len(words), chars=len(text))
        return failed or replace(page, text=text, words=words, parsed=page.words)

    async def _text(self, page: Page) -> str:
        picture = await self.scans.pictures.draw(self.job.document, page.number)
        provider = self.model.provider
        key = await asyncio.to_thread(page_key, picture, model=self.model.name, provider_version=provider.version)
        asked = replace(self.job, model=self.model)
        prompt = PagePrompt(self.model.short_name, picture)
        (answer,) = await self.scans.map_reduce.answers_to(
            asked, [prompt], [key], self.bill, done=_nothing, on_text=None
        )
        return await asyncio.to_thread(page_text, answer.text)


def _is_there(item: "Item | asyncio.Task[Item]") -> bool:
    return not isinstance(item, asyncio.Task) or item.done()


def _is_full(waiting: "deque[Item | asyncio.Task[Item]]") -> bool:
    return len(waiting) >= MOST_WAITING or sum(not _is_there(item) for item in waiting) >= AT_ONCE


async def _first(waiting: "deque[Item | asyncio.Task[Item]]") -> Item:
    """Takes the first one out. It stays where waiting for it is cancelled, so that it is cancelled as well."""
    item = waiting[0]
    try:
        return await asyncio.shield(item) if isinstance(item, asyncio.Task) else item
    finally:
        if _is_there(item):
            waiting.popleft()


def _tasks(waiting: "deque[Item | asyncio.Task[Item]]") -> "list[asyncio.Task[Item]]":
    return [item for item in waiting if isinstance(item, asyncio.Task)]


def _unread(model: Model, cause: PagemeshError) -> Unavailable:
    return Unavailable(
        "OCR_MODEL_UNAVAILABLE",
        f"The pages are scans, and {model.name} could read none of them ({cause.reason}). Try again later, or leave "
        "`ocr_model` out for what can be read without a model.",
        retry_after_s=cause.retry_after_s,
    )


def _nothing() -> None:
    """Pages that were read are counted as they come."""
