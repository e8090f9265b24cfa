"""What estimates of any kind are made with: documents are read as the run reads them, and nobody is asked."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from services.runtime.errors import PagemeshError
from services.summarizer.domain.expected_calls import UNREAD_PAGE, ExpectedScans
from services.summarizer.domain.map_reduce import Job, MapReduce
from services.summarizer.domain.models import Models
from services.summarizer.domain.personal_kinds import REPLACING_NOTHING, Policy
from services.summarizer.domain.ports import Deadline, PageSource, Results, no_deadline
from services.summarizer.domain.ports_pictures import PagePictures
from services.summarizer.domain.prices import Prices
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.values import Caller


@dataclass(frozen=True, slots=True)
class Thoughts:
    """The ports of an estimate, and what the deployment replaces."""

    models: Models
    pages: PageSource
    pictures: PagePictures
    results: Results
    prices: Prices
    tails: Tails
    new_id: Callable[[], str]
    policy: Policy = REPLACING_NOTHING

    async def scans(self, job: Job) -> Scans:
        """Who reads pictures in thought. Raises what Prices raises."""
        price = await self.prices.of((job.ocr or job.model).name)
        calls = MapReduce(results=self.results, paid=ExpectedScans(price))
        return Scans(self.pages, self.pictures, calls, stand_in=UNREAD_PAGE)

    @contextlib.asynccontextmanager
    async def holding(self, document: str) -> AsyncIterator[None]:
        """Keeps the document meanwhile: reading it for an estimate is not its processing."""
        hold_id = self.new_id()
        await self.pages.hold(document, hold_id)
        try:
            yield
        finally:
            await self.tails.finish(self._release(document, hold_id))

    async def _release(self, document: str, hold_id: str) -> None:
        # Where the extractor is away the hold runs out by itself.
        with contextlib.suppress(PagemeshError):
            await self.pages.release(document, hold_id, processed=False)


def as_it_is() -> AbstractContextManager[None]:
    """An estimate is made in the caller's own call, with its deadline."""
    return contextlib.nullcontext()


def acting_as_it_is(caller: Caller, deadline: Deadline = no_deadline) -> AbstractContextManager[None]:
    """The same as ActAs."""
    return contextlib.nullcontext()
