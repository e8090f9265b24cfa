"""What answering questions needs from outside, beside the ports of summaries."""

import datetime as dt
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.summarizer.domain.ports import PageFailed
from services.summarizer.domain.values import Page


@dataclass(frozen=True, slots=True)
class Filters:
    """Which pages may be found: of these documents (resource names), in these languages (ISO 639-1); empty means all.
    Times are those at which documents were stored, the second one not included."""

    documents: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    stored_after: dt.datetime | None = None
    stored_before: dt.datetime | None = None


@dataclass(frozen=True, slots=True, order=True)
class PageAt:
    """A page of a document, `documents/{id}`; `number` counts from 1."""

    document: str
    number: int


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What is known of a document before it is read. `page_count` is None where nobody has opened it yet."""

    page_count: int | None
    searchable_pages: int
    ephemeral: bool


class PageSearch(Protocol):
    """Finds pages of the caller's tenant by words, or by meaning.

    Errors: InvalidArgument, DeadlineExceeded, ResourceExhausted, Unavailable.
    """

    async def near(self, text: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """At most `limit` pages, 100 at most, that mean something alike, the nearest first; none where no page has a
        vector, or the text cannot be given one now."""
        ...

    async def find(self, query: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """At most `limit` pages, 100 at most, the best first; the query is in the language of SearchPages. Documents
        that are not the tenant's have no pages."""
        ...


class PageReader(Protocol):
    """Reads parts of documents. Errors are those of PageSource."""

    async def look(self, document: str) -> DocumentState:
        """What is known of it. NotFound where the caller's tenant has no such document."""
        ...

    def read(
        self, document: str, *, first_page: int = 0, last_page: int = 0, words: bool = True
    ) -> AsyncGenerator[Page | PageFailed, None]:
        """The pages in order, from the first to the last one, which 0 stands for; without `words` pages have none.
        Closing the iterator stops the parser."""
        ...
