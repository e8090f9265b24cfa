"""Which pages may answer a question: found by a search, or read whole where that is surer, and ranked by their text.

The search ranks by how often the words are there, which is enough to choose a few dozen pages of many thousands. These
are read and ranked anew by how rare the words are among them (matching.py); the best are what the model is given.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeVar

from services.runtime.errors import FailedPrecondition, NotFound
from services.summarizer.domain.limits import MAX_DOCUMENT_CHARS
from services.summarizer.domain.matching import matches
from services.summarizer.domain.ports import PageFailed
from services.summarizer.domain.ports_questions import DocumentState, PageAt, PageReader, PageSearch
from services.summarizer.domain.questions import Question, ladder, wanted
from services.summarizer.domain.values import Page

CANDIDATES = 40
"""Pages that are read in order to rank them."""
ENOUGH = 24
"""With so many candidates no search for less of the question is made."""
SMALL_PAGES = 20
"""Documents that have no more pages together are read whole, without a search."""
MAX_WHOLE_PAGES = 2_000
"""Pages that one question may have read whole, because they cannot be searched yet."""
MAX_FAILED_PAGES = 1_000
NEAR = 16
"""Pages that are read because they mean something alike."""
_RANK_CONSTANT = 60
"""Of reciprocal rank fusion, as in the search."""
AT_A_TIME = 4
"""Calls to the extractor that are under way at once for one question."""

Told = Callable[[int], None]
_I = TypeVar("_I")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Choice:
    """The pages that match best, best first, and those that should have been looked at and could not be read."""

    pages: tuple[PageAt, ...]
    failed: tuple[PageAt, ...]

    @property
    def documents(self) -> tuple[str, ...]:
        """Those that the pages are of, sorted."""
        return tuple(sorted({page.document for page in self.pages}))


@dataclass(slots=True)
class _Looked:
    """Texts of pages by their place, and those that could not be read."""

    told: Told
    by_meaning: bool
    texts: dict[PageAt, str] = field(default_factory=dict)
    failed: set[PageAt] = field(default_factory=set)
    chars: int = 0
    near: list[PageAt] = field(default_factory=list)
    """Those that mean something alike, the nearest first."""

    def take(self, document: str, page: Page | PageFailed) -> None:
        at = PageAt(document, page.number)
        if isinstance(page, PageFailed):
            if len(self.failed) < MAX_FAILED_PAGES:
                self.failed.add(at)
            self.chars += page.chars
        elif page.text.strip():
            self.texts[at] = page.text
            self.chars += len(page.text)
            self.told(len(self.texts))
        if self.chars > MAX_DOCUMENT_CHARS or len(self.texts) > MAX_WHOLE_PAGES + CANDIDATES:
            raise too_much()


class PassageFinder:
    """Finds them. What is found depends on the question, the documents and what the search index holds of them."""

    def __init__(self, *, search: PageSearch, reader: PageReader, by_meaning: bool = False) -> None:
        """`by_meaning`: whether the deployment makes vectors."""
        self._by_meaning = by_meaning
        self._search = search
        self._reader = reader

    async def look(self, documents: Sequence[str]) -> Mapping[str, DocumentState]:
        """The state of each named document. Raises NotFound where the caller's tenant has not all of them."""
        states = await _each(documents, self._reader.look)
        return dict(zip(documents, states, strict=True))

    async def choose(
        self, question: Question, states: Mapping[str, DocumentState], told: Told, *, by_meaning: bool = True
    ) -> Choice:
        """The pages to read closely; without `by_meaning` no vector is made of the question. Raises what PageSearch and
        PageReader raise, and FailedPrecondition DOCUMENTS_TOO_LARGE."""
        looked = _Looked(told, by_meaning=by_meaning and self._by_meaning)
        named = question.filters.documents
        whole = [name for name in named if _has_to_be_read(states[name])]
        if named and _page_count(states.values()) <= SMALL_PAGES:
            whole = list(named)
        if _page_count(states[name] for name in whole) > MAX_WHOLE_PAGES:
            raise too_much()
        await _each(whole, lambda name: self._read_whole(name, looked))
        rest = tuple(name for name in named if name not in whole)
        if rest or not named:
            await self._read_found(replace(question, filters=replace(question.filters, documents=rest)), looked)
        ranked = await asyncio.to_thread(
            _ranked, question, looked.texts, looked.near, everything=len(whole) == len(named) > 0
        )
        if not ranked and rest and _page_count(states.values()) <= MAX_WHOLE_PAGES:
            # The search compares words by the rules of each page's language; reading may still find some.
            await _each(rest, lambda name: self._read_whole(name, looked))
            ranked = await asyncio.to_thread(_ranked, question, looked.texts, (), everything=True)
        return Choice(tuple(ranked), tuple(sorted(looked.failed)))

    async def read(self, choice: Choice) -> tuple[Sequence[tuple[PageAt, Page]], tuple[PageAt, ...]]:
        """The chosen pages with their words, best first, and all that could not be read, now or before; those of a
        document that is gone by now are in neither."""
        pages: dict[PageAt, Page] = {}
        failed = set(choice.failed)
        async for document, page in self._parts(choice.pages, words=True):
            at = PageAt(document, page.number)
            if isinstance(page, Page):
                pages[at] = page
            else:
                failed.add(at)
        return [(at, pages[at]) for at in choice.pages if at in pages], tuple(sorted(failed)[:MAX_FAILED_PAGES])

    async def _read_whole(self, document: str, looked: _Looked) -> None:
        async with aclosing(self._reader.read(document, words=False)) as pages:
            async for page in pages:
                looked.take(document, page)

    async def _read_found(self, question: Question, looked: _Looked) -> None:
        if looked.by_meaning:
            looked.near += await self._search.near(question.text, question.filters, NEAR)
        found: dict[PageAt, None] = {}
        for query in ladder(wanted(question.text)):
            hits = await self._search.find(query, question.filters, CANDIDATES)
            found.update(dict.fromkeys(hits))
            if len(found) >= ENOUGH:
                break
        async for document, page in self._parts([*list(found)[:CANDIDATES], *looked.near], words=False):
            looked.take(document, page)

    async def _parts(
        self, wanted_pages: Iterable[PageAt], *, words: bool
    ) -> AsyncIterator[tuple[str, Page | PageFailed]]:
        """The pages, run by run; a document that was erased since it was found has none."""

        async def read(run: tuple[str, int, int]) -> list[tuple[str, Page | PageFailed]]:
            document, first, last = run
            pages = []
            try:
                async with aclosing(
                    self._reader.read(document, first_page=first, last_page=last, words=words)
                ) as stream:
                    async for page in stream:
                        pages.append((document, page))
            except NotFound:
                return []
            except FailedPrecondition as exc:
                # Such as a file that asks for a password: what others hold may answer.
                return [(document, PageFailed(number, exc.reason)) for number in range(first, last + 1)]
            return pages

        for part in await _each(list(_runs(wanted_pages)), read):
            for item in part:
                yield item


def too_much() -> FailedPrecondition:
    """More has to be read than one question may."""
    return FailedPrecondition(
        "DOCUMENTS_TOO_LARGE",
        f"These documents cannot be searched yet, and hold more than one question reads: {MAX_WHOLE_PAGES:,} pages or "
        f"{MAX_DOCUMENT_CHARS:,} characters. Extract them first, or wait until GetDocument says that their pages are "
        "searchable, and ask again.",
    )


def _ranked(
    question: Question, texts: Mapping[PageAt, str], near: Sequence[PageAt], *, everything: bool
) -> list[PageAt]:
    """The best pages that match at all, by their words or as one of those `near`. With `everything` the texts are all
    that there is: where they are so few that all can be given to the model, they are. For threads."""
    places = sorted(texts)
    found = matches(wanted(question.text).terms, [texts[at] for at in places])
    order = sorted(range(len(places)), key=lambda i: (-found[i].score * found[i].coverage, places[i]))
    if not (everything and len(places) <= question.max_passages):
        order = [i for i in order if found[i].score > 0]
        return _fused([places[i] for i in order], [at for at in near if at in texts])[: question.max_passages]
    return [places[i] for i in order[: question.max_passages]]


def _fused(*lists: Sequence[PageAt]) -> list[PageAt]:
    """One order by reciprocal rank."""
    scores: dict[PageAt, float] = {}
    for order in lists:
        for rank, at in enumerate(order, start=1):
            scores[at] = scores.get(at, 0.0) + 1 / (_RANK_CONSTANT + rank)
    # Of pages that stand alike the one that has the words, which are put in first.
    return sorted(scores, key=lambda at: -scores[at])


def _has_to_be_read(state: DocumentState) -> bool:
    return state.page_count is None or state.searchable_pages < state.page_count


def _page_count(states: Iterable[DocumentState]) -> int:
    """Pages that are known of."""
    return sum(state.page_count or 0 for state in states)


def _runs(pages: Iterable[PageAt]) -> Iterator[tuple[str, int, int]]:
    """Document, first and last page of each run without a gap."""
    ordered = sorted(set(pages))
    for (document, _), run in groupby(
        enumerate(ordered), key=lambda item: (item[1].document, item[1].number - item[0])
    ):
        numbers = [page.number for _, page in run]
        yield document, numbers[0], numbers[-1]


async def _each(items: Sequence[_I], work: Callable[[_I], Awaitable[_R]]) -> list[_R]:
    """What the work gives for each item, in order, AT_A_TIME at once. After a failure the others are cancelled.

    The first goes alone: after an outage the breaker lets one call through to try, and refuses those beside it. Were
    these told of as the failure, they would cancel the one that tries, again and again.
    """
    if not items:
        return []
    first = await work(items[0])
    turns = asyncio.Semaphore(AT_A_TIME)

    async def one(item: _I) -> _R:
        async with turns:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items[1:]]
    except ExceptionGroup as failures:
        # The callers know one error; the first item's comes first.
        raise failures.exceptions[0] from None
    return [first, *(task.result() for task in tasks)]
