"""Runs of parsers that many readers share: whoever is furthest drives, and with the last one the parser goes."""

import asyncio
import contextlib
import functools
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.extractor.domain.documents import Document
from services.extractor.domain.keys import object_key
from services.extractor.domain.page_keeper import AnyPage, PageKeeper, RunKey
from services.extractor.domain.pages import DocumentFault, Opened, Page, Part
from services.extractor.domain.ports import ObjectStore, Parser, ParseTask, ReadableFile
from services.extractor.domain.slices import DocumentLost, ExtractionLimits, PageRun, Told
from services.extractor.domain.stored_pages import DOCUMENT_PARTS, Facts, Source, computed

WINDOW_PAGES = 16
WINDOW_BYTES = 4 * 1024 * 1024
"""What a flight remembers for readers that are a little behind; who is further behind reads what was stored."""
_AHEAD_PAGES = 16
"""A page that is at most so far ahead is waited for; for a further one another flight begins."""


@dataclass(slots=True)
class _OpenFile:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    file: ReadableFile | None = None
    users: int = 0


class OpenFiles:
    """Files of documents, each open once for all that read it at a time."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._open: dict[str, _OpenFile] = {}

    @contextlib.asynccontextmanager
    async def of(self, document: Document) -> AsyncIterator[ReadableFile]:
        """The document's file. Raises FileNotFoundError where it was deleted, and Unavailable."""
        key = object_key(document.tenant, document.sha256)
        shared = self._open.setdefault(key, _OpenFile())
        shared.users += 1
        try:
            async with shared.lock:
                if shared.file is None:
                    shared.file = await shared.stack.enter_async_context(self._store.open(key))
            yield shared.file
        finally:
            shared.users -= 1
            if not shared.users:
                del self._open[key]
                await shared.stack.aclose()


@dataclass(frozen=True)
class Route:
    """What a flight is to read: pages `first_page` to `last_page`, 0 for that of the document, with `parts`. `begun`
    says whether its reader has pages already."""

    document: Document
    parts: Part
    first_page: int
    last_page: int
    password: str = field(default="", repr=False)
    begun: bool = False

    @property
    def private(self) -> bool:
        """Whether nobody else may see what is read."""
        return bool(self.password)

    @functools.cached_property
    def asked_parts(self) -> Part:
        """What a parser is asked for."""
        return computed(self.parts) | (self.parts & DOCUMENT_PARTS)

    @functools.cached_property
    def key(self) -> tuple[str, str, Part]:
        """Runs with the same one read the same."""
        return self.document.tenant, self.document.id, self.asked_parts


class Flight:
    """One run. Nothing is read but when a reader asks for it, so a reader that waits stops the parser."""

    def __init__(self, flights: "Flights", route: Route, known: Facts | None, *, keeps_pages: bool) -> None:
        self._flights = flights
        self.route = route
        self.next_page = route.first_page
        self.facts: Facts | None = None
        self.lost: DocumentFault | None = None
        """Why the document cannot be read."""
        self.ended = False
        self.readers = 0
        self._known = known
        self._keeps_pages = keeps_pages and not route.private
        self._window: OrderedDict[int, AnyPage] = OrderedDict()
        self._window_bytes = 0
        self._lock = asyncio.Lock()
        self._wait_s: Callable[[], float | None] = lambda: None
        self._run: PageRun | None = None
        self._events = self._read()
        document = route.document
        self._key = RunKey(document.tenant, document.id, Source.PARSED, computed(route.parts))

    def get(self, page: int) -> AnyPage | None:
        """A page that was read lately."""
        return self._window.get(page)

    def reaches(self, page: int) -> bool:
        """Whether `page` is here or comes soon."""
        if page in self._window:
            return True
        last = self.route.last_page
        return not self.ended and self.next_page <= page <= self.next_page + _AHEAD_PAGES and not 0 < last < page

    @property
    def is_through(self) -> bool:
        """Whether its last page was read."""
        return self.facts is not None and self.next_page > min(
            self.route.last_page or self.facts.page_count, self.facts.page_count
        )

    async def advance(self, page: int, wait_s: Callable[[], float | None]) -> None:
        """Reads on where `page` was not read yet; page 0 stands for the facts of the document. Raises what
        `Parser.parse` raises on entering, FileNotFoundError, and what opening the file raises."""
        async with self._lock:
            if self.ended or page in self._window or self.next_page > page > 0 or (page == 0 and self.facts):
                return
            self._wait_s = wait_s
            try:
                if self._keeps_pages and not self.is_through:
                    await self._flights.keeper.room()
                events = await anext(self._events, None)
            except DocumentLost as lost:
                self.lost = lost.fault
                self._end()
            except BaseException:
                self._end()  # the others begin another one
                raise
            else:
                self._take(events)

    async def leave(self) -> None:
        """One reader less; with the last one the run ends."""
        self.readers -= 1
        if not self.readers:
            self._end()
            await self._events.aclose()
            # It and its run name each other: their pages would stay until somebody collects such things.
            self._run = None

    def _take(self, events: Sequence[Told] | None) -> None:
        if events is None:
            self._end()
            return
        for event in events:
            if isinstance(event, Opened):
                self._open(event)
            else:
                self._add(event)
        self._trim(len(events))

    def _open(self, opened: Opened) -> None:
        document = self.route.document
        info_parts = self.route.parts & DOCUMENT_PARTS
        self.facts = Facts(opened.page_count, opened.flags, opened.info, info_parts)
        if not self.route.private and opened.page_count <= self._flights.limits.max_pages:
            known = self._known
            if known is None or info_parts or (known.page_count, known.flags) != (opened.page_count, opened.flags):
                self._flights.keeper.note((document.tenant, document.id), self.facts)

    def _add(self, page: AnyPage) -> None:
        self.next_page = page.number + 1
        self._window[page.number] = page
        self._window_bytes += _size(page)
        sure = isinstance(page, Page) or (self._run is not None and page.number not in self._run.unsure)
        if self._keeps_pages and sure:
            self._flights.keeper.add(self._key, page, run=self)

    def _trim(self, newest: int) -> None:
        """Forgets pages, but never the `newest`: nobody has seen those."""
        while len(self._window) > max(newest, 1) and (
            len(self._window) > WINDOW_PAGES or self._window_bytes > WINDOW_BYTES
        ):
            self._window_bytes -= _size(self._window.popitem(last=False)[1])

    def _end(self) -> None:
        self.ended = True
        self._flights.forget(self)
        self._flights.keeper.finish(self._key, self)

    def _wait(self) -> float | None:
        return self._wait_s()

    async def _read(self) -> AsyncGenerator[Sequence[Told], None]:
        route, flights = self.route, self._flights
        async with flights.files.of(route.document) as file:
            task = ParseTask(
                tenant=route.document.tenant,
                file=file,
                media_type=route.document.media_type,
                first_page=route.first_page,
                last_page=route.last_page,
                parts=route.asked_parts,
                password=route.password,
            )
            self._run = PageRun(
                parser=flights.parser, limits=flights.limits, task=task, wait_s=self._wait, begun=route.begun
            )
            # Closed with this generator, so that the parser of a reader who left stops at once.
            async with aclosing(self._run.events()) as run:
                async for events in run:
                    yield events


class Flights:
    """All flights of this process."""

    def __init__(self, *, files: OpenFiles, parser: Parser, keeper: PageKeeper, limits: ExtractionLimits) -> None:
        self.files = files
        self.parser = parser
        self.keeper = keeper
        self.limits = limits
        self._flights: dict[tuple[str, str, Part], list[Flight]] = {}

    def join(self, route: Route) -> Flight | None:
        """A flight of others that reaches the route's first page soon."""
        if route.private:
            return None
        for flight in self._flights.get(route.key, ()):
            if flight.reaches(route.first_page):
                flight.readers += 1
                return flight
        return None

    def begin(self, route: Route, *, known: Facts | None, keeps_pages: bool = True) -> Flight:
        """A new flight, for others to join where it is not private and `keeps_pages`."""
        flight = Flight(self, route, known, keeps_pages=keeps_pages)
        flight.readers = 1
        if keeps_pages and not route.private:
            self._flights.setdefault(route.key, []).append(flight)
        return flight

    def forget(self, flight: Flight) -> None:
        """Nobody joins it any more."""
        key = flight.route.key
        flights = self._flights.get(key, [])
        if flight in flights:
            flights.remove(flight)
            if not flights:
                del self._flights[key]


def _size(page: AnyPage) -> int:
    return len(page.content) if isinstance(page, Page) else 0
