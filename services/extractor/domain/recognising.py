"""Pages whose text is in a picture: recognised a few at a time, each once for all that ask, and sent in their order."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.extractor.domain.documents import Document
from services.extractor.domain.flights import OpenFiles
from services.extractor.domain.page_keeper import AnyPage, PageKeeper, RunKey
from services.extractor.domain.pages import OcrMode, Page, PageFlag, Part
from services.extractor.domain.ports import Recogniser, RecogniseTask
from services.extractor.domain.reading import Sent
from services.extractor.domain.stored_pages import Coverage, PageStore, Source, Span, computed, recognised
from services.runtime.errors import ResourceExhausted

AHEAD_PAGES = 4
"""Pages that are held while the first of them is recognised."""
_NEEDS_TEXT = Part.TEXT | Part.BLOCKS | Part.WORDS | Part.MARKDOWN | Part.LANGUAGE


def is_to_recognise(page: AnyPage, mode: OcrMode, parts: Part) -> bool:
    """Whether what is asked for is in the page's picture."""
    if not isinstance(page, Page) or mode is OcrMode.OFF or not parts & _NEEDS_TEXT:
        return False
    if PageFlag.BLANK in page.flags:
        return False
    return mode is OcrMode.ALWAYS or PageFlag.NO_TEXT in page.flags


@dataclass(slots=True)
class _Work:
    task: "asyncio.Task[AnyPage]"
    users: int = 0


class Recognitions:
    """Recognises pages, each once for all readers of this process that want it at a time, and has them stored."""

    def __init__(self, *, recogniser: Recogniser, files: OpenFiles, keeper: PageKeeper) -> None:
        self._recogniser = recogniser
        self._files = files
        self._keeper = keeper
        self._under_way: dict[tuple[RunKey, int], _Work] = {}

    async def __call__(
        self, document: Document, page: Page, parts: Part, *, password: str, wait_s: float | None
    ) -> AnyPage:
        """The page as it is in its picture, or a failed page. Raises what `Recogniser.recognise` raises. When the last
        one who waits for it leaves, the work stops."""
        key = RunKey(document.tenant, document.id, Source.RECOGNISED, recognised(computed(parts)))
        while True:
            kept = None if password else self._keeper.get(key, page.number)
            if kept is not None:
                return kept
            work = None if password else self._under_way.get((key, page.number))
            joined = work is not None and not work.task.done()
            if work is None or not joined:
                recognition = self._recognise(document, page, key, password, wait_s)
                work = _Work(asyncio.create_task(recognition, name="recognise"))
                if not password:
                    self._under_way[key, page.number] = work
            try:
                return await self._outcome(work, key, page.number)
            except ResourceExhausted:
                if not joined:
                    raise  # whoever began it waited for as long as its own call had time; ours may have more

    async def _outcome(self, work: _Work, key: RunKey, page: int) -> AnyPage:
        work.users += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            work.users -= 1
            if not work.users:
                if self._under_way.get((key, page)) is work:
                    del self._under_way[key, page]
                work.task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    # Whoever waited for it was told how it ended.
                    await work.task

    async def _recognise(
        self, document: Document, page: Page, key: RunKey, password: str, wait_s: float | None
    ) -> AnyPage:
        async with self._files.of(document) as file:
            task = RecogniseTask(
                tenant=document.tenant,
                file=file,
                media_type=document.media_type,
                page=page.number,
                parsed=page,
                wait_s=wait_s,
                password=password,
            )
            found = await self._recogniser.recognise(task)
        if isinstance(found, Page):
            found = replace(found, parts=key.parts)
            if not password:
                self._keeper.add(key, found, run=page)
                self._keeper.finish(key, page)
        return found


class RecognisedPages:
    """A stream of parsed pages in which those whose text is in a picture are replaced."""

    def __init__(
        self,
        *,
        recognitions: Recognitions,
        store: PageStore,
        document: Document,
        mode: OcrMode,
        parts: Part,
        password: str,
        remaining_s: Callable[[], float | None],
        spans: Callable[[], Sequence[Span]],
    ) -> None:
        """`spans` are all that are stored of the document."""
        self._recognitions = recognitions
        self._store = store
        self._document = document
        self._mode = mode
        self._parts = parts
        self._password = password
        self._remaining_s = remaining_s
        self._spans = spans
        self._read: dict[int, Page] = {}
        """Recognised pages of the segment that was read last."""

    async def of(self, parsed: AsyncGenerator[Sequence[Sent], None]) -> AsyncGenerator[Sequence[Sent], None]:
        """The pages in their order. A page that cannot be recognised is sent as it was parsed."""
        held: deque[Sent | asyncio.Task[Sent]] = deque()
        try:
            async with aclosing(parsed):
                async for burst in parsed:
                    ready: list[Sent] = []
                    for page, reused in burst:
                        while len(held) >= AHEAD_PAGES:
                            if ready:
                                yield ready
                                ready = []
                            ready.append(await _got(held.popleft()))
                        held.append(self._begun(page, reused=reused))
                        while held and _is_there(held[0]):
                            ready.append(await _got(held.popleft()))
                    if ready:
                        yield ready
            while held:
                yield [await _got(held.popleft())]
        finally:
            left = [one for one in held if isinstance(one, asyncio.Task)]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _begun(self, page: AnyPage, *, reused: bool) -> Sent | asyncio.Task[Sent]:
        if not is_to_recognise(page, self._mode, self._parts):
            return page, reused
        assert isinstance(page, Page)
        return asyncio.create_task(self._recognised(page, reused=reused), name="recognised")

    async def _recognised(self, page: Page, *, reused: bool) -> Sent:
        stored = await self._stored(page.number)
        if stored is not None:
            return stored, reused
        found = await self._recognitions(
            self._document, page, self._parts, password=self._password, wait_s=self._remaining_s()
        )
        return (found, False) if isinstance(found, Page) else (page, reused)

    async def _stored(self, number: int) -> Page | None:
        if self._password:
            return None
        if number not in self._read:
            coverage = Coverage(self._spans(), source=Source.RECOGNISED, parts=computed(self._parts))
            span = coverage.at(number)
            if span is None:
                return None
            pages = await self._store.read(self._document.tenant, self._document.id, [span])
            self._read = {page.number: page for page in pages if isinstance(page, Page)}
        return self._read.get(number)


def _is_there(one: Sent | asyncio.Task[Sent]) -> bool:
    """Whether it can be had at once. One that failed is not: what stands before it is sent first."""
    return not isinstance(one, asyncio.Task) or (one.done() and not one.cancelled() and one.exception() is None)


async def _got(one: Sent | asyncio.Task[Sent]) -> Sent:
    return await one if isinstance(one, asyncio.Task) else one
