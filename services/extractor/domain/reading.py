"""One reader of a document's pages: what is in memory, else what is stored, else what a parser says."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import reduce
from operator import or_

from services.extractor.domain.flights import Flight, Flights, Route
from services.extractor.domain.page_keeper import AnyPage, RunKey
from services.extractor.domain.pages import NO_PARTS, Part
from services.extractor.domain.slices import DocumentLost
from services.extractor.domain.stored_pages import (
    DOCUMENT_PARTS,
    Coverage,
    Facts,
    Looked,
    PageStore,
    Source,
    Span,
    StoredDocument,
    computed,
)

_SPANS_AT_ONCE = 8
"""Of at most 1 MiB and a page each."""
_PAGES_AT_ONCE = 16
_LAND_S = 1.0
_MAX_WAYS = 8
"""Choices of parts that a document is stored with; hundreds are possible."""

Sent = tuple[AnyPage, bool]
"""A page, and whether it was read from an earlier extraction."""


class Reading:
    """Pages of one document for one reader. Where a password is given it is private: nothing is looked up, shared or
    stored. To be closed."""

    def __init__(
        self,
        *,
        flights: Flights,
        store: PageStore,
        looked: Looked,
        parts: Part,
        password: str,
        remaining_s: Callable[[], float | None],
    ) -> None:
        document = looked.document
        self._flights = flights
        self._keeper = flights.keeper
        self._store = store
        self.document = document
        """What is read."""
        self._parts = parts
        self._password = password
        self._remaining_s = remaining_s
        self._key = RunKey(document.tenant, document.id, Source.PARSED, computed(parts))
        self._flight: Flight | None = None
        self._stored = StoredDocument() if password else looked.stored
        self._ahead = deque[AnyPage]() if password else looked.pages
        """Pages that were read when the document was looked at."""
        self._unreadable: set[Span] = set()
        self._cover(1)
        self._may_be_stored = False
        """Whether more may be stored by now than we know of."""
        self._facts: Facts | None = None

    async def open(self, first_page: int, last_page: int) -> Facts:
        """What is known of the document, with the information that is asked for. Raises DocumentLost, and what
        `Flight.advance` raises."""
        document = (self.document.tenant, self.document.id)
        if not self._password:
            # What was being written when we looked is known of for a while.
            self._may_be_stored = self._keeper.knows(document)
            self._facts = self._keeper.facts(document) or self._stored.facts
            if self._facts is None and self._may_be_stored:
                await self._look()
                self._facts = self._stored.facts
        info = self._parts & DOCUMENT_PARTS
        if self._facts is not None and info in self._facts.info_parts:
            return self._facts
        if self._facts is not None and self._is_at_hand(first_page):
            # The pages are there: the file is opened for what it says of itself alone.
            route = Route(self.document, info, 1, 1, self._password)
            self._flight = self._flights.begin(route, known=self._facts, keeps_pages=False)
            self._facts = await self._opened()
            await self._land()
            await self.aclose()
        else:
            self._take_off(first_page, last_page, info)
            self._facts = await self._opened()
        return self._facts

    async def pages(self, first_page: int, last_page: int) -> AsyncGenerator[Sequence[Sent], None]:
        """Pages and failed pages in order, those together that are there together. Raises as `open` does."""
        page = first_page
        while page <= last_page:
            found = self._in_memory(page, last_page)
            if found:
                yield found
                page += len(found)
                continue
            found = self._from_ahead(page, last_page)
            if found:
                yield found
                page += len(found)
                continue
            spans = self._coverage.row(page, last=last_page, limit=_SPANS_AT_ONCE)
            if spans:
                found = await self._from_store(spans, page, last_page)
                if found:
                    yield found
                    page += len(found)
                else:
                    self._unreadable.update(spans)
                    self._cover(page)
            elif self._may_be_stored:
                self._may_be_stored = False
                await self._look(page)
            else:
                await self._fly(page, last_page, begun=page > first_page)
        if self._flight is not None and self._flight.is_through:
            await self._land()

    async def aclose(self) -> None:
        """Leaves the flight, if any."""
        if self._flight is not None:
            flight, self._flight = self._flight, None
            await flight.leave()

    def stored_spans(self) -> Sequence[Span]:
        """All that was stored when last looked at."""
        return self._stored.spans

    def at_hand(self, page: int) -> AnyPage | None:
        """The page, where it is in memory."""
        found = self._in_memory(page, page)
        return found[0][0] if found else next((kept for kept in self._ahead if kept.number == page), None)

    def _in_memory(self, page: int, last_page: int) -> Sequence[Sent]:
        """Pages in a row that were read a moment ago."""
        flight = self._flight
        found: list[Sent] = []
        for number in range(page, min(last_page, page + _PAGES_AT_ONCE - 1) + 1):
            kept = flight.get(number) if flight is not None else None
            if kept is None and not self._password:
                kept = self._keeper.get(self._key, number)
            if kept is None:
                break
            found.append((kept, flight is None or number < flight.route.first_page))
        return found

    def _from_ahead(self, page: int, last_page: int) -> Sequence[Sent]:
        """Pages in a row that came when the document was looked at."""
        found: list[Sent] = []
        while self._ahead and self._ahead[0].number <= last_page:
            kept = self._ahead.popleft()
            if kept.number == page + len(found):
                found.append((kept, True))
        return found

    async def _from_store(self, spans: Sequence[Span], page: int, last_page: int) -> Sequence[Sent]:
        """Pages in a row out of these spans."""
        found: list[Sent] = []
        for stored in await self._store.read(self.document.tenant, self.document.id, spans):
            if stored.number == page <= last_page:
                found.append((stored, True))
                page += 1
        return found

    def _is_at_hand(self, page: int) -> bool:
        if self._password:
            return False
        return self._keeper.get(self._key, page) is not None or self._coverage.at(page) is not None

    async def _look(self, page: int = 1) -> None:
        self._stored = await self._store.find(self.document.tenant, self.document.id)
        self._cover(page)

    def _cover(self, page: int) -> None:
        spans = [span for span in self._stored.spans if span not in self._unreadable]
        self._coverage = Coverage(spans, source=Source.PARSED, parts=self._key.parts)

    async def _fly(self, page: int, last_page: int, *, begun: bool) -> None:
        """Brings `page` nearer by one step of a flight. `begun` where pages were read before."""
        flight = self._flight
        if flight is not None and (flight.ended or not flight.reaches(page)):
            # It went on without us, or others did; what it read is stored, or soon will be.
            self._may_be_stored = flight.next_page > page and not self._password
            await self.aclose()
            self._raise_lost(flight)
            if self._may_be_stored:
                return
            flight = None
        if flight is None:
            flight = self._take_off(page, last_page, NO_PARTS, begun=begun)
        await flight.advance(page, self._remaining_s)
        self._raise_lost(flight)

    def _take_off(self, page: int, last_page: int, info: Part, *, begun: bool = False) -> Flight:
        behind = self._coverage.next_page(page)
        last = last_page if behind is None else min(last_page or behind - 1, behind - 1)
        route = Route(self.document, self._parts_to_read() | info, page, last, self._password, begun)
        self._flight = self._flights.join(route) or self._flights.begin(route, known=self._facts)
        return self._flight

    def _parts_to_read(self) -> Part:
        """What is asked for. A document that is stored in many ways is read with all of them, so that what is stored of
        it does not grow with every other choice of parts."""
        ways = {span.parts for span in self._stored.spans if span.source is Source.PARSED}
        if len(ways) < _MAX_WAYS:
            return self._key.parts
        return reduce(or_, ways, self._key.parts)

    async def _opened(self) -> Facts:
        """The facts that the present flight finds out."""
        while True:
            flight = self._flight
            assert flight is not None
            if flight.facts is not None:
                return flight.facts
            if flight.ended:
                self._raise_lost(flight)
                # Whoever drove it has left: it begins anew with us.
                await self.aclose()
                self._flight = self._flights.begin(flight.route, known=self._facts)
                continue
            await flight.advance(0, self._remaining_s)

    async def _land(self) -> None:
        """Lets the parser say that it is done: one that is left in the middle of its work is killed, and so is one that
        does not say it. Who reads has everything by then."""
        flight = self._flight
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAND_S):
                while flight is not None and not flight.ended:
                    await flight.advance(flight.next_page, self._remaining_s)

    @staticmethod
    def _raise_lost(flight: Flight) -> None:
        if flight.lost is not None:
            raise DocumentLost(flight.lost)
