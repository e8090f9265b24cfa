"""The ports of questions in memory: they find and read what was put into MemoryPages."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from services.runtime.call import current_identity
from services.summarizer.adapters.memory import MemoryPages
from services.summarizer.domain.matching import words_of
from services.summarizer.domain.ports import DocumentStart, PageFailed
from services.summarizer.domain.ports_questions import DocumentState, Filters, PageAt
from services.summarizer.domain.values import Page

_TERM = re.compile(r'"([^"]*)"( or )?')


class MemoryQuestions:
    """PageSearch and PageReader. Words are found as they are spelt, in queries of quoted words and `or` alone;
    languages and times are not looked at."""

    def __init__(self, pages: MemoryPages) -> None:
        self._pages = pages
        self.unsearchable: set[str] = set()
        """Documents that the search does not know yet."""
        self.ephemeral: set[str] = set()
        self.queries: list[str] = []
        self.alike: dict[str, tuple[str, ...]] = {}
        """Words that mean the same as a word."""

    async def find(self, query: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """Pages that have one word of each group, those with most of them first."""
        self.queries.append(query)
        groups = _groups(query)
        found = []
        for document in self._pages.documents_of(current_identity().tenant):
            if document in self.unsearchable or (filters.documents and document not in filters.documents):
                continue
            async with aclosing(self.read(document, words=False)) as pages:
                async for page in pages:
                    counts = [_count(page, group) for group in groups] if isinstance(page, Page) else []
                    if counts and all(counts):
                        found.append((-sum(counts), PageAt(document, page.number)))
        return [at for _, at in sorted(found)[:limit]]

    async def near(self, text: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """Pages with a word that stands for the same as one of the text, by `alike`."""
        wanted = {same for word in words_of(text) for same in self.alike.get(word, ())}
        found = []
        for document in self._pages.documents_of(current_identity().tenant):
            if filters.documents and document not in filters.documents:
                continue
            async with aclosing(self.read(document, words=False)) as pages:
                async for page in pages:
                    if isinstance(page, Page) and (count := len(wanted & set(words_of(page.text)))):
                        found.append((-count, PageAt(document, page.number)))
        return [at for _, at in sorted(found)[:limit]]

    async def look(self, document: str) -> DocumentState:
        """Every page can be searched, unless the document cannot."""
        async with aclosing(self._pages.pages(document)) as items:
            async for item in items:
                if isinstance(item, DocumentStart):
                    searchable = 0 if document in self.unsearchable else item.page_count
                    return DocumentState(item.page_count, searchable, document in self.ephemeral)
        raise AssertionError("a document begins with its start")

    async def read(
        self, document: str, *, first_page: int = 0, last_page: int = 0, words: bool = True
    ) -> AsyncGenerator[Page | PageFailed, None]:
        """The pages of the range."""
        async with aclosing(self._pages.pages(document)) as items:
            async for item in items:
                if isinstance(item, DocumentStart) or item.number < first_page or item.number > (last_page or 10**9):
                    continue
                yield item if words or isinstance(item, PageFailed) else replace(item, words=())


def _groups(query: str) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for term, joins in _TERM.findall(query):
        groups[-1].append(" ".join(words_of(term)))
        if not joins:
            groups.append([])
    return [group for group in groups if group]


def _count(page: Page, group: Sequence[str]) -> int:
    running = f" {' '.join(words_of(page.text))} "
    return sum(running.count(f" {term} ") for term in group)
