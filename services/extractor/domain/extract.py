"""Extraction: the pages of a document in order, out of what is stored where they are, and out of a parser otherwise."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.extractor.domain.documents import document_id, not_found
from services.extractor.domain.faults import document_fault, out_of_range
from services.extractor.domain.flights import Flights, OpenFiles
from services.extractor.domain.page_keeper import PageKeeper
from services.extractor.domain.pages import (
    DocumentFlag,
    ExtractionEnd,
    ExtractionEvent,
    ExtractionStart,
    OcrMode,
    Page,
    PageFlag,
    Part,
)
from services.extractor.domain.ports import ObjectStore, Parser, Recogniser
from services.extractor.domain.reading import Reading, Sent
from services.extractor.domain.recognising import RecognisedPages, Recognitions, is_to_recognise
from services.extractor.domain.slices import DocumentLost, ExtractionLimits
from services.extractor.domain.stored_pages import Facts, Looked, PageStore, computed
from services.runtime.errors import FailedPrecondition, FieldViolation, OutOfRange

__all__ = ["ExtractPages", "Extraction", "ExtractionLimits", "document_fault"]


@dataclass(frozen=True, slots=True)
class Extraction:
    """What is asked for; 0 as a page means the first or the last one of the document."""

    tenant: str
    name: str
    first_page: int
    last_page: int
    parts: Part
    ocr: OcrMode = OcrMode.AUTO
    password: str = field(default="", repr=False)


class ExtractPages:
    """Streams the pages of a document in order, whatever happens to the processes that read it."""

    def __init__(
        self,
        store: ObjectStore,
        pages: PageStore,
        keeper: PageKeeper,
        parser: Parser,
        *,
        limits: ExtractionLimits,
        recogniser: Recogniser | None = None,
    ) -> None:
        """Without a `recogniser` no page is recognised."""
        self._pages = pages
        self._limits = limits
        files = OpenFiles(store)
        self._flights = Flights(files=files, parser=parser, keeper=keeper, limits=limits)
        self._recognitions = None
        if recogniser is not None:
            self._recognitions = Recognitions(recogniser=recogniser, files=files, keeper=keeper)

    async def look(self, extraction: Extraction) -> Looked:
        """The document that is named, and what is stored of it. Raises NotFound."""
        looked = await self._pages.look(
            extraction.tenant,
            document_id(extraction.name),
            parts=computed(extraction.parts),
            # Pages of a request with a password are not taken from what is stored.
            page=0 if extraction.password else max(extraction.first_page, 1),
        )
        if looked is None:
            raise not_found(extraction.name)
        return looked

    async def __call__(
        self, extraction: Extraction, *, remaining_s: Callable[[], float | None], looked: Looked | None = None
    ) -> AsyncGenerator[Sequence[ExtractionEvent], None]:
        """Yields ExtractionStart, then Page and FailedPage in order, then ExtractionEnd, those together that are there
        together. A page may have more parts than were asked for. `looked` is what `look` answered a moment ago.

        Raises NotFound, FailedPrecondition with a DocumentFault or TOO_MANY_PAGES, OutOfRange PAGE_OUT_OF_RANGE, and
        what `Parser.parse` and `Recogniser.recognise` raise.
        """
        reading = Reading(
            flights=self._flights,
            store=self._pages,
            looked=looked or await self.look(extraction),
            parts=extraction.parts,
            password=extraction.password,
            remaining_s=remaining_s,
        )
        try:
            first = max(extraction.first_page, 1)
            facts = await reading.open(first, extraction.last_page)
            self._check(facts, first)
            tally = _Tally(facts, first, min(extraction.last_page or facts.page_count, facts.page_count))
            events = tally.begin()
            if not self._is_at_hand(reading, first, extraction):
                yield events
                events = []
            async with aclosing(self._sent(reading, extraction, remaining_s, tally)) as bursts:
                async for burst in bursts:
                    events.extend(tally.told(burst))
                    yield events
                    events = []
        except FileNotFoundError as exc:  # deleted between the row and the bytes
            raise not_found(extraction.name) from exc
        except DocumentLost as lost:
            raise document_fault(lost.fault) from lost
        finally:
            await reading.aclose()

    def _is_at_hand(self, reading: Reading, first_page: int, extraction: Extraction) -> bool:
        """Whether the first page comes without a wait."""
        page = reading.at_hand(first_page)
        if page is None or self._recognitions is None:
            return page is not None
        return not is_to_recognise(page, extraction.ocr, extraction.parts)

    def _sent(
        self,
        reading: Reading,
        extraction: Extraction,
        remaining_s: Callable[[], float | None],
        tally: "_Tally",
    ) -> AsyncGenerator[Sequence[Sent], None]:
        parsed = reading.pages(tally.first_page, tally.last_page)
        if self._recognitions is None or extraction.ocr is OcrMode.OFF:
            return parsed
        recognised = RecognisedPages(
            recognitions=self._recognitions,
            store=self._pages,
            document=reading.document,
            mode=extraction.ocr,
            parts=extraction.parts,
            password=extraction.password,
            remaining_s=remaining_s,
            spans=reading.stored_spans,
        )
        return recognised.of(parsed)

    def _check(self, facts: Facts, first_page: int) -> None:
        if facts.page_count > self._limits.max_pages:
            raise FailedPrecondition(
                "TOO_MANY_PAGES",
                f"The document has {facts.page_count} pages; at most {self._limits.max_pages} are read. Split it.",
            )
        if first_page > facts.page_count:
            message = out_of_range(facts.page_count)
            raise OutOfRange("PAGE_OUT_OF_RANGE", message, fields=[FieldViolation("first_page", message)])


class _Tally:
    """What was sent of an extraction, as its events."""

    def __init__(self, facts: Facts, first_page: int, last_page: int) -> None:
        self.first_page, self.last_page = first_page, last_page
        self._facts = facts
        self._flags = facts.flags
        self._sent = self._failed = self._reused = 0

    def begin(self) -> list[ExtractionEvent]:
        """The event before all pages."""
        facts = self._facts
        return [ExtractionStart(facts.page_count, self.first_page, self.last_page, facts.flags, facts.info)]

    def told(self, burst: Sequence[Sent]) -> list[ExtractionEvent]:
        """The events of these pages; after the last one, the end."""
        events: list[ExtractionEvent] = []
        for page, was_stored in burst:
            if isinstance(page, Page):
                self._sent += 1
                self._reused += was_stored
            else:
                self._failed += 1
            if not isinstance(page, Page) or PageFlag.PARTIAL in page.flags:
                self._flags |= DocumentFlag.PARTIAL
            events.append(page)
        if self._sent + self._failed == self.last_page - self.first_page + 1:
            events.append(ExtractionEnd(self._sent, self._failed, self._reused, self._flags))
        return events
