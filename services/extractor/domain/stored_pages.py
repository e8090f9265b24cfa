"""Pages that are kept, so that each is read by a parser once: what is kept of a document, and which part of it."""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import Protocol

from services.extractor.domain.documents import Document
from services.extractor.domain.pages import NO_PARTS, DocumentFlag, FailedPage, Page, Part

DOCUMENT_PARTS = Part.METADATA | Part.OUTLINE
_RECOGNISED = Part.TEXT | Part.BLOCKS | Part.WORDS | Part.MARKDOWN | Part.TABLES | Part.LANGUAGE | Part.FLAGS


class Source(IntEnum):
    """Who read a page."""

    PARSED = 1
    RECOGNISED = 2


@dataclass(frozen=True, slots=True)
class Span:
    """Pages `first_page` to `last_page` of a document that are stored together, each with `parts`."""

    source: Source
    parts: Part
    first_page: int
    last_page: int


@dataclass(frozen=True, slots=True)
class Segment:
    """The pages of a span, in order and without a gap."""

    span: Span
    pages: tuple[Page | FailedPage, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a parser said of a document when it opened it; `info` is as in `Opened` and has `info_parts`."""

    page_count: int
    flags: DocumentFlag
    info: bytes = b""
    info_parts: Part = NO_PARTS


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """All that is stored of a document, but for the pages themselves; `facts` is None where it was never opened."""

    facts: Facts | None = None
    spans: Sequence[Span] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """A document with all that is stored of it, and the `pages` of one span that was asked for with it; whoever sends
    them takes them out."""

    document: Document
    stored: StoredDocument
    pages: deque[Page | FailedPage] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is new about a document, to be stored."""

    tenant: str
    document_id: str
    facts: Facts | None
    segments: Sequence[Segment]


class PageStore(Protocol):
    """Pages of documents. Every method raises Unavailable where the database is down."""

    async def look(self, tenant: str, document_id: str, *, parts: Part, page: int) -> Looked | None:
        """The document and what there is, with the pages of the parsed span that has `parts`, holds `page` and reaches
        furthest, and none for page 0; nothing where there is no such document."""

    async def find(self, tenant: str, document_id: str) -> StoredDocument:
        """What there is; nothing where there is no such document."""

    async def read(self, tenant: str, document_id: str, spans: Sequence[Span]) -> Sequence[Page | FailedPage]:
        """The pages of these spans, one after the other. A span that is gone or does not read is left out."""

    async def write(self, findings: Sequence[Finding]) -> None:
        """Stores all of it, and the index of its pages with it, or nothing. What is found out about documents that are
        gone or being erased is left out."""


class Coverage:
    """Which stored span holds a page. Pages are asked for in ascending order."""

    def __init__(self, spans: Sequence[Span], *, source: Source, parts: Part) -> None:
        self._spans = sorted(
            (span for span in spans if span.source is source and parts in span.parts),
            key=lambda span: (span.first_page, span.last_page),
        )
        self._next = 0
        self._best: Span | None = None

    def at(self, page: int) -> Span | None:
        """The span that holds `page` and reaches furthest."""
        while self._next < len(self._spans) and self._spans[self._next].first_page <= page:
            span = self._spans[self._next]
            self._next += 1
            if self._best is None or span.last_page > self._best.last_page:
                self._best = span
        return self._best if self._best is not None and self._best.last_page >= page else None

    def row(self, page: int, *, last: int | None, limit: int) -> Sequence[Span]:
        """At most `limit` spans that hold `page` and what follows it, up to `last`, without a gap."""
        found: list[Span] = []
        while len(found) < limit and (last is None or page <= last) and (span := self.at(page)) is not None:
            found.append(span)
            page = span.last_page + 1
        return found

    def next_page(self, page: int) -> int | None:
        """The first stored page behind `page`, which is not stored itself."""
        place = bisect_right(self._spans, page, key=lambda span: span.first_page)
        return self._spans[place].first_page if place < len(self._spans) else None


@cache  # of at most 2048 choices; each document asks several times
def computed(parts: Part) -> Part:
    """What is computed of each page where `parts` are asked for. The text is always there, for the index; and Markdown
    comes with the flags that cost something."""
    return (parts & ~DOCUMENT_PARTS) | Part.TEXT | (Part.FLAGS if Part.MARKDOWN in parts else NO_PARTS)


def recognised(parts: Part) -> Part:
    """What a recognised page has that stands for a parsed one with `parts`."""
    return _RECOGNISED | parts
