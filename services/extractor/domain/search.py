"""Searching the pages of a tenant: which match, what they say there, and where that stands on the page."""

import asyncio
import base64
import binascii
import datetime as dt
import hashlib
import struct
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from services.extractor.domain.documents import document_id
from services.extractor.domain.extract import Extraction
from services.extractor.domain.hybrid import (
    CANDIDATES,
    Meaning,
    Meanings,
    Mode,
    fused,
    mark_of,
    marks_in,
    no_exclusions,
)
from services.extractor.domain.pages import ExtractionEvent, OcrMode, Page, PageFlag, Part
from services.extractor.domain.search_marks import Lexemes, Marks, PageText, marks, words_of
from services.extractor.domain.search_query import Query, Term, parse_query
from services.runtime.errors import DeadlineExceeded, FieldViolation, InvalidArgument, PagemeshError

DEFAULT_PAGE_SIZE = 10
MAX_PAGE_SIZE = 100
_WAIT_S = 10.0
_FIND_S = 5.0
_READ_S = 2.0
_EMBED_S = 3.0
_ANSWER_S = 0.25
"""What is left of the caller's time for the answer itself."""
_MARK_S = 1.0
_READING_AT_A_TIME = 4
_MAX_WORDS = 200_000
"""A search holds the words of its hits until they are marked, 200 bytes each: a hundred ordinary pages, or a few that
were made to have as many as fit."""
_LETTERS_FOR_A_WORD = 20
"""Letters of a page's text that weigh as much as one of its words."""
_MAX_DISTINCT_WORDS = 20_000
_TOKEN = struct.Struct(">16sf16si")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which pages may be found: of these documents (bare ids), in these languages (ISO 639-1); empty means all. Times
    are those at which documents were stored, the second one not included."""

    documents: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    stored_after: dt.datetime | None = None
    stored_before: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for. `documents` are resource names; `page_size` 0 means 10; without `marked` no page is read, and
    hits come without marks."""

    tenant: str
    query: str
    page_size: int = 0
    page_token: str = ""
    documents: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    stored_after: dt.datetime | None = None
    stored_before: dt.datetime | None = None
    marked: bool = True
    mode: Mode = Mode.WORDS


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page that matches, best first by `score`, then by document and page."""

    document_id: str
    display_name: str
    page: int
    language: str
    score: float


@dataclass(frozen=True, slots=True)
class Place:
    """The last page of one part of the results; the next part begins behind it. `score` is a float of 32 bits."""

    score: float
    document_id: str
    page: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A page that matches, with what it says there."""

    found: FoundPage
    marks: Marks


@dataclass(frozen=True, slots=True)
class SearchResults:
    """One part of the results; `next_page_token` is empty at their end. `degraded` is why they were found by their
    words alone although meaning was asked for."""

    hits: Sequence[Hit]
    next_page_token: str
    degraded: str = ""


class SearchIndex(Protocol):
    """The search index. Every method raises Unavailable where the database is down."""

    async def find(
        self, tenant: str, query: Query, filters: Filters, *, after: Place | None, limit: int, timeout_s: float
    ) -> Sequence[FoundPage]:
        """At most `limit` pages behind `after`. Raises DeadlineExceeded SEARCH_TIMEOUT."""

    async def lexemes(self, words: Mapping[str, Sequence[str]], *, timeout_s: float) -> Mapping[str, Lexemes]:
        """By language and word: what the index keeps of it. Raises DeadlineExceeded SEARCH_TIMEOUT."""


class Extract(Protocol):
    """The use case ExtractPages."""

    def __call__(
        self, extraction: Extraction, *, remaining_s: Callable[[], float | None]
    ) -> AsyncGenerator[Sequence[ExtractionEvent], None]:
        """See there."""


class Turns(Protocol):
    """How many search at a time, and who is next."""

    async def acquire(self, tenant: str, *, timeout_s: float | None) -> None:
        """Waits for a turn. Raises ResourceExhausted SEARCH_BUSY."""

    def release(self, tenant: str) -> None:
        """Ends a turn."""


class SearchPages:
    """Searches. `decode` opens a page's content; it is called in a thread."""

    def __init__(
        self,
        *,
        index: SearchIndex,
        extract: Extract,
        decode: Callable[[Page], PageText],
        turns: Turns,
        meanings: Meanings | None = None,
    ) -> None:
        """Without `meanings` searches go by words alone."""
        self._meanings = meanings
        self._turns = turns
        self._index = index
        self._extract = extract
        self._decode = decode

    async def __call__(self, search: Search, *, remaining_s: Callable[[], float | None]) -> SearchResults:
        """The best pages. Raises InvalidArgument SEARCH_QUERY_INVALID and INVALID_PAGE_TOKEN, DeadlineExceeded
        SEARCH_TIMEOUT, ResourceExhausted SEARCH_BUSY, Unavailable, and by meaning what Meanings raises."""
        if search.mode is not Mode.WORDS and self._meanings is not None:
            return await self._by_meaning(search, self._meanings, remaining_s)
        query = parse_query(search.query)
        after = _parse(search) if search.page_token else None
        # Searches that take seconds would have all connections of the database, and then nobody has any.
        await self._turns.acquire(search.tenant, timeout_s=_bounded(_WAIT_S, remaining_s))
        try:
            return await self._searched(search, query, after, remaining_s)
        finally:
            self._turns.release(search.tenant)

    async def _searched(
        self, search: Search, query: Query, after: Place | None, remaining_s: Callable[[], float | None]
    ) -> SearchResults:
        size, filters = _size(search), _filters(search)
        # One more than asked for tells whether there is a next part.
        found = await self._index.find(
            search.tenant, query, filters, after=after, limit=size + 1, timeout_s=_bounded(_FIND_S, remaining_s)
        )
        hits: Sequence[Hit] = [Hit(page, Marks()) for page in found[:size]]
        if search.marked:
            hits = await self._hits(search.tenant, query, found[:size], _bounded(_READ_S, remaining_s))
        return SearchResults(hits, _token(search, found[size - 1]) if len(found) > size else "")

    async def _by_meaning(
        self, search: Search, meanings: Meanings, remaining_s: Callable[[], float | None]
    ) -> SearchResults:
        """Pages near in meaning, and with Mode.HYBRID those with the words, in one order."""
        query = parse_query(search.query) if search.mode is Mode.HYBRID else None
        no_exclusions(query.excluded if query else ())
        told = _parse_told(search) if search.page_token else frozenset()
        # Asked before a turn is taken, so that a slow provider keeps nobody from searching.
        meaning = await meanings.of(search.tenant, search.query, timeout_s=_bounded(_EMBED_S, remaining_s))
        await self._turns.acquire(search.tenant, timeout_s=_bounded(_WAIT_S, remaining_s))
        try:
            found = await self._fused(search, query, meaning, meanings, remaining_s)
            rest = [page for page in found if mark_of(page) not in told]
            part = rest[: _size(search)]
            hits: Sequence[Hit] = [Hit(page, Marks()) for page in part]
            if search.marked and query is not None:
                hits = await self._hits(search.tenant, query, part, _bounded(_READ_S, remaining_s))
        finally:
            self._turns.release(search.tenant)
        more = len(rest) > len(part)
        return SearchResults(hits, _token_told(search, told, part) if more else "", meaning.degraded)

    async def _fused(
        self,
        search: Search,
        query: Query | None,
        meaning: Meaning,
        meanings: Meanings,
        remaining_s: Callable[[], float | None],
    ) -> Sequence[FoundPage]:
        filters, words, near = _filters(search), list[FoundPage](), list[FoundPage]()
        if query is not None:
            time_s = _bounded(_FIND_S, remaining_s)
            words += await self._index.find(
                search.tenant, query, filters, after=None, limit=CANDIDATES, timeout_s=time_s
            )
        if meaning.vector is not None:
            time_s = _bounded(_FIND_S, remaining_s)
            near += await meanings.index.nearest(
                search.tenant, meaning.vector, filters, limit=CANDIDATES, timeout_s=time_s
            )
        return fused(words, near)

    async def _hits(self, tenant: str, query: Query, found: Sequence[FoundPage], time_s: float) -> Sequence[Hit]:
        """Pages that cannot be read in `time_s` are hits without snippets and boxes, and so are those behind
        _MAX_WORDS words."""
        reading = asyncio.Semaphore(_READING_AT_A_TIME)
        end = asyncio.get_running_loop().time() + time_s
        pages: dict[FoundPage, PageText] = {}
        held = 0

        async def read(page: FoundPage) -> None:
            nonlocal held
            async with reading:
                text = await self._read(tenant, page, end) if held < _MAX_WORDS else None
            if text is not None:
                pages[page] = text
                held += len(text.words) + len(text.text) // _LETTERS_FOR_A_WORD

        async with asyncio.TaskGroup() as readers:
            for page in found:
                readers.create_task(read(page))
        terms = query.wanted
        in_order = {page: pages[page] for page in found if page in pages}
        words = await asyncio.to_thread(_vocabulary, in_order, terms)
        try:
            lexemes = await self._index.lexemes(words, timeout_s=_READ_S)
        except DeadlineExceeded:
            return [Hit(page, Marks()) for page in found]
        marked = await asyncio.to_thread(_marked, in_order, terms, lexemes)
        return [Hit(page, marked.get(page, Marks())) for page in found]

    async def _read(self, tenant: str, page: FoundPage, end: float) -> PageText | None:
        """The page with its words, or at least with its text. No recognition is begun: a page without text of its own
        was recognised when it was indexed, and what was recognised is read from where it was stored."""
        loop = asyncio.get_running_loop()
        for parts, share in ((Part.TEXT | Part.WORDS, 0.75), (Part.TEXT, 1.0)):
            for ocr in (OcrMode.OFF, OcrMode.AUTO):
                name = f"documents/{page.document_id}"
                extraction = Extraction(tenant, name, page.page, page.page, parts, ocr=ocr)
                left_s = (end - loop.time()) * share
                if left_s <= 0:
                    return None
                try:
                    async with asyncio.timeout(left_s):
                        text = await self._page(extraction, left_s)
                except (TimeoutError, PagemeshError):
                    break  # perhaps less of it can be had; the hit itself stands whatever its page says
                if text is not None and text.has_text:
                    return text
        return None

    async def _page(self, extraction: Extraction, time_s: float) -> PageText | None:
        async with aclosing(self._extract(extraction, remaining_s=lambda: time_s)) as bursts:
            async for events in bursts:
                page = next((event for event in events if isinstance(event, Page)), None)
                if page is not None:
                    return None if PageFlag.NO_TEXT in page.flags else await asyncio.to_thread(self._decode, page)
        return None


def _vocabulary(pages: Mapping[FoundPage, PageText], terms: Sequence[Term]) -> Mapping[str, Sequence[str]]:
    """By language: the words to ask the index for, those of the terms first, at most _MAX_DISTINCT_WORDS beside them.
    For threads."""
    words: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for page in pages:
        words[page.language].update(dict.fromkeys(word for term in terms for word in term.text.split()))
    room = _MAX_DISTINCT_WORDS
    for page, text in pages.items():
        known = words[page.language]
        new = [word for word in words_of(text, terms) if word not in known][:room]
        room -= len(new)
        known.update(dict.fromkeys(new))
    return {language: list(own) for language, own in words.items()}


def _marked(
    pages: Mapping[FoundPage, PageText], terms: Sequence[Term], lexemes: Mapping[str, Lexemes]
) -> Mapping[FoundPage, Marks]:
    """The pages' marks, best page first, for as long as _MARK_S. For threads, which nobody can end from outside."""
    end = time.monotonic() + _MARK_S
    marked = {}
    for page, text in pages.items():
        if time.monotonic() > end:
            break
        marked[page] = marks(text, terms, lexemes[page.language])
    return marked


def _size(search: Search) -> int:
    return min(search.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _filters(search: Search) -> Filters:
    return Filters(
        tuple(sorted(map(document_id, search.documents))),
        tuple(sorted(search.languages)),
        search.stored_after,
        search.stored_before,
    )


def _bounded(time_s: float, remaining_s: Callable[[], float | None]) -> float:
    left_s = remaining_s()
    return time_s if left_s is None else max(min(time_s, left_s - _ANSWER_S), 0.001)


def _digest(search: Search) -> bytes:
    """What a page token belongs to: the tenant, the query and the filters; the size of parts may change."""
    asked = (
        search.query,
        sorted(search.documents),
        sorted(search.languages),
        search.stored_after,
        search.stored_before,
    )
    mode = () if search.mode is Mode.WORDS else (search.mode.value,)
    return hashlib.sha256(repr((search.tenant, *asked, *mode)).encode(errors="surrogatepass")).digest()[:16]


def _token(search: Search, last: FoundPage) -> str:
    packed = _TOKEN.pack(_digest(search), last.score, bytes.fromhex(last.document_id), last.page)
    return base64.urlsafe_b64encode(packed).decode()


def _token_told(search: Search, told: frozenset[bytes], part: Sequence[FoundPage]) -> str:
    return base64.urlsafe_b64encode(_digest(search) + b"".join(sorted(told | set(map(mark_of, part))))).decode()


def _parse_told(search: Search) -> frozenset[bytes]:
    """Pages that were told of. Raises InvalidArgument INVALID_PAGE_TOKEN."""
    try:
        data = base64.b64decode(search.page_token, altchars=b"-_", validate=True)
        if data[:16] == _digest(search):
            return marks_in(data[16:])
    except (binascii.Error, ValueError):
        pass  # as wrong as one of another search
    raise _wrong_token()


def _parse(search: Search) -> Place:
    try:
        digest, score, document, page = _TOKEN.unpack(
            base64.b64decode(search.page_token, altchars=b"-_", validate=True)
        )
        if digest == _digest(search) and 0 <= score < float("inf") and page > 0:
            return Place(score, document.hex(), page)
    except (binascii.Error, struct.error, ValueError):
        pass  # as wrong as one of another search
    raise _wrong_token()


def _wrong_token() -> InvalidArgument:
    message = "The page token is not one that the same search gave. Begin the results again without it."
    return InvalidArgument("INVALID_PAGE_TOKEN", message, fields=[FieldViolation("page_token", message)])
