"""What an answer is made of: the pages that have to do with a question, read while their documents are held."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from services.runtime.errors import PagemeshError
from services.summarizer.domain.map_reduce import Job
from services.summarizer.domain.passages import PassageFinder, Told
from services.summarizer.domain.ports import ActAs, PageSource, Results
from services.summarizer.domain.ports_questions import PageAt
from services.summarizer.domain.questions import Question
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.values import Caller, Page


@dataclass(frozen=True, slots=True)
class Material:
    """What was found for a question: its pages with their words, best first, those that could not be read, and the
    generation of each document's results from before they were read."""

    question: Question
    pages: Sequence[tuple[PageAt, Page]]
    failed: tuple[PageAt, ...]
    generations: tuple[tuple[str, int], ...]


class Gatherer:
    """Finds and reads what may answer a question."""

    def __init__(
        self,
        *,
        finder: PassageFinder,
        pages: PageSource,
        results: Results,
        tails: Tails,
        act_as: ActAs,
        new_id: Callable[[], str],
    ) -> None:
        self._finder = finder
        self._pages = pages
        self._results = results
        self._tails = tails
        self._act_as = act_as
        self._new_id = new_id

    @contextlib.asynccontextmanager
    async def gathered(
        self, job: Job, question: Question, told: Told, *, in_thought: bool = False
    ) -> AsyncIterator[Material]:
        """The material; `told` hears how many pages were looked at. Documents that go soon are held until the block
        ends, which is the end of their processing, unless it is all `in_thought`. Raises what PassageFinder raises."""
        states = await self._finder.look(question.filters.documents)
        brief = [name for name, state in states.items() if state.ephemeral]
        async with self._holding(job.caller, brief, in_thought=in_thought):
            # Vectors are made of a text as it is.
            choice = await self._finder.choose(question, states, told, by_meaning=not job.options.anonymise)
            # Asked before the pages are read for good: a document that is erased from here on counts one more.
            generations = [(name, await self._results.generation(job.caller.tenant, name)) for name in choice.documents]
            pages, failed = await self._finder.read(choice)
            yield Material(question, pages, failed, tuple(generations))

    @contextlib.asynccontextmanager
    async def _holding(self, caller: Caller, documents: Sequence[str], *, in_thought: bool) -> AsyncIterator[None]:
        """Keeps documents that go soon until the answer is there, which is the end of their processing."""
        held: dict[str, str] = {}
        processed = False
        try:
            for name in documents:
                held[name] = self._new_id()
                await self._pages.hold(name, held[name])
            yield
            processed = not in_thought
        finally:
            for name, hold_id in held.items():
                await self._tails.finish(self._release(caller, name, hold_id, processed=processed))

    async def _release(self, caller: Caller, document: str, hold_id: str, *, processed: bool) -> None:
        # Where the extractor is away the hold runs out, and the document expires by its own time.
        with self._act_as(caller), contextlib.suppress(PagemeshError):
            await self._pages.release(document, hold_id, processed=processed)
