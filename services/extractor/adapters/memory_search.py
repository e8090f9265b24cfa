"""The search's ports in memory."""

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.extractor.domain.documents import Document
from services.extractor.domain.indexer import MAX_ATTEMPTS, Unread
from services.extractor.domain.search import Filters, FoundPage, Place
from services.extractor.domain.search_marks import Lexemes
from services.extractor.domain.search_query import Query, Term

_WORD = re.compile(r"\w+")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@dataclass(slots=True)
class MemorySearch:
    """Implements `SearchIndex` for words as they are spelt."""

    _pages: dict[tuple[str, str, int], tuple[Document, str]] = field(default_factory=dict)

    def add(self, document: Document, page: int, text: str) -> None:
        """Indexes a page."""
        self._pages[document.tenant, document.id, page] = document, text

    async def find(
        self, tenant: str, query: Query, filters: Filters, *, after: Place | None, limit: int, timeout_s: float
    ) -> Sequence[FoundPage]:
        """See the port."""
        found = []
        for (owner, document_id, page), (document, text) in self._pages.items():
            words = _words(text)
            hits = [sum(_count(words, term) for term in group) for group in query.groups]
            if owner != tenant or not all(hits) or any(_count(words, term) for term in query.excluded):
                continue
            if passes(filters, document):
                score = sum(hits) / (1 + math.log(len(words)))
                found.append(FoundPage(document_id, document.display_name, page, "", score))
        found.sort(key=lambda each: (-each.score, each.document_id, each.page))
        if after is not None:
            last = (-after.score, after.document_id, after.page)
            found = [each for each in found if (-each.score, each.document_id, each.page) > last]
        return found[:limit]

    async def lexemes(self, words: Mapping[str, Sequence[str]], *, timeout_s: float) -> Mapping[str, Lexemes]:
        """See the port."""
        return {language: {word: frozenset(_words(word)) for word in own} for language, own in words.items()}


def _count(words: Sequence[str], term: Term) -> int:
    wanted = _words(term.text)
    if term.prefix:
        return sum(word.startswith(wanted[0]) for word in words)
    return sum(words[at : at + len(wanted)] == wanted for at in range(len(words)))


def passes(filters: Filters, document: Document) -> bool:
    """Whether pages of the document, whose language nobody knows, may be found."""
    return (
        (not filters.documents or document.id in filters.documents)
        and not filters.languages
        and (filters.stored_after is None or document.create_time >= filters.stored_after)
        and (filters.stored_before is None or document.create_time < filters.stored_before)
    )


@dataclass(slots=True)
class _Entry:
    due: dt.datetime | None
    complete: bool
    attempts: int = 0


@dataclass(slots=True)
class MemoryBacklog:
    """Implements `IndexBacklog`."""

    _entries: dict[Unread, _Entry] = field(default_factory=dict)

    def add(self, document: Unread, *, due: dt.datetime, complete: bool = False) -> None:
        """A document that was stored; `complete` where all its pages are in the index."""
        self._entries[document] = _Entry(due, complete)

    async def take(self, *, now: dt.datetime, until: dt.datetime) -> Unread | None:
        """See the port."""
        due = [(entry.due, document) for document, entry in self._entries.items() if entry.due and entry.due <= now]
        for _, document in sorted(due, key=lambda each: each[0]):
            entry = self._entries[document]
            if entry.complete or entry.attempts >= MAX_ATTEMPTS:
                entry.due = None
                continue
            entry.due, entry.attempts = until, entry.attempts + 1
            return document
        return None

    async def put_back(self, document: Unread, *, due: dt.datetime, counts: bool) -> None:
        """See the port."""
        entry = self._entries[document]
        entry.due, entry.attempts = due, entry.attempts - (0 if counts else 1)

    async def strike_off(self, document: Unread) -> None:
        """See the port."""
        self._entries[document].due = None

    async def size(self, *, now: dt.datetime) -> int:
        """See the port."""
        return sum(entry.due is not None and entry.due <= now for entry in self._entries.values())
