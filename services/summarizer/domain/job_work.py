"""What a worker does for each kind of work."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from services.summarizer.domain.events import Event, Finished, Progress
from services.summarizer.domain.jobs import Claim, Extracted, ExtractWork, Result, SummarizeWork
from services.summarizer.domain.ports import ActAs, DocumentStart, PageFailed, PageSource
from services.summarizer.domain.values import Caller, Options

Told = Callable[[Progress], None]
Doer = Callable[[Claim, Told], Awaitable[Result]]


class Stream(Protocol):
    """StreamSummarize."""

    def __call__(
        self,
        caller: Caller,
        document: str,
        options: Options,
        *,
        fallbacks: tuple[str, ...] = (),
        deadline: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Events of the summary, Finished last."""
        ...


class JobWork:
    """Does the work of one claim. Raises what its use case raises."""

    def __init__(self, *, stream: Stream, pages: PageSource, act_as: ActAs) -> None:
        self._stream = stream
        self._pages = pages
        self._act_as = act_as

    async def __call__(self, claim: Claim, told: Told) -> Result:
        """The result; `told` hears of the progress, as often as there is some."""
        match claim.work:
            case SummarizeWork(options, fallbacks):
                return await self._summarize(claim, options, fallbacks, told)
            case ExtractWork():
                return await self._extract(claim, told)

    async def _summarize(self, claim: Claim, options: Options, fallbacks: tuple[str, ...], told: Told) -> Result:
        stream = self._stream(claim.caller, claim.document, options, fallbacks=fallbacks)
        with self._act_as(claim.caller):
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        told(event)
                    elif isinstance(event, Finished):
                        return event.summary
        raise AssertionError("a stream of events ended without its last one")

    async def _extract(self, claim: Claim, told: Told) -> Result:
        failed: list[int] = []
        page_count = pages_read = words = 0
        with self._act_as(claim.caller):
            async with aclosing(self._pages.pages(claim.document)) as items:
                async for item in items:
                    if isinstance(item, DocumentStart):
                        page_count = item.page_count
                    elif isinstance(item, PageFailed):
                        failed.append(item.number)
                    else:
                        pages_read += 1
                        words += len(item.words)
                    told(Progress(pages_read, page_count, 0, 0))
        return Extracted(page_count, pages_read, tuple(failed), words)
