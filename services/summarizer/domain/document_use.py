"""What a run owes to the document that it works on: it is held meanwhile, and nothing is kept of one that is gone."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from services.runtime.errors import FailedPrecondition, PagemeshError
from services.summarizer.domain.map_reduce import Job
from services.summarizer.domain.ports import ActAs, PageSource, Results, SummaryCache
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.values import Summary

_ABOUT_THE_DOCUMENT = ("DOCUMENT_", "TOO_MANY_PAGES")
_MAY_WORK_OTHERWISE = ("DOCUMENT_ENCRYPTED", "DOCUMENT_WRONG_PASSWORD")
"""Refusals that another request does not meet."""


class Keeper:
    """Holds documents while summaries are made of them, and keeps the summaries of those that are still there."""

    def __init__(
        self,
        *,
        pages: PageSource,
        results: Results,
        cache: SummaryCache,
        tails: Tails,
        act_as: ActAs,
        new_id: Callable[[], str],
    ) -> None:
        self._pages = pages
        self._results = results
        self._cache = cache
        self._tails = tails
        self._act_as = act_as
        self._new_id = new_id

    @contextlib.asynccontextmanager
    async def working_on(self, job: Job) -> AsyncIterator[Job]:
        """The job, with its document held until the block ends. Raises NotFound, Unavailable, DeadlineExceeded.

        The end of the block is that of the document's processing, and so is a document that cannot be read; other
        errors are not.
        """
        hold_id, processed = self._new_id(), False
        # Asked first: a document that is erased from here on counts one more.
        generation = await self._results.generation(job.caller.tenant, job.document)
        with self._act_as(job.caller):
            await self._pages.hold(job.document, hold_id)
        try:
            yield replace(job, generation=generation)
            processed = True
        except FailedPrecondition as exc:
            processed = exc.reason.startswith(_ABOUT_THE_DOCUMENT) and exc.reason not in _MAY_WORK_OTHERWISE
            raise
        finally:
            await self._tails.finish(self._release(job, hold_id, processed=processed))

    async def keep(self, job: Job, key: bytes, summary: Summary) -> None:
        """Puts the summary into the cache, unless the document was erased since the job began."""
        tenant = job.caller.tenant
        await self._cache.put(tenant, key, summary)
        # Asked afterwards: whoever erases it counts first and clears the cache then, so one of both finds it there.
        try:
            erased = await self._results.generation(tenant, job.document) != job.generation
            for part in summary.reused:
                erased = erased or await self._results.generation(tenant, part.document) != part.generation
        except PagemeshError:
            erased = True  # nobody knows
        if erased:
            with contextlib.suppress(PagemeshError):
                await self._cache.purge(tenant, job.document)

    async def _release(self, job: Job, hold_id: str, *, processed: bool) -> None:
        # Where the extractor is away the hold runs out, and the document expires by its own time.
        with self._act_as(job.caller), contextlib.suppress(PagemeshError):
            await self._pages.release(job.document, hold_id, processed=processed)
