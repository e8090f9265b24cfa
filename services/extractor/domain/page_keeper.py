"""Write-behind: pages are stored a moment after they were read, those of many documents in one transaction."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from services.extractor.domain.pages import FailedPage, Page, Part
from services.extractor.domain.stored_pages import Facts, Finding, PageStore, Segment, Source, Span
from services.runtime.errors import PagemeshError, Unavailable

AnyPage = Page | FailedPage
_FAILED_PAGE_BYTES = 64
_MAX_RECENT = 10_000


@dataclass(frozen=True, slots=True)
class KeepingLimits:
    """A segment ends after `segment_pages` or `segment_bytes`, and `segment_s` after its first page. What is ready is
    written every `every_s`, at most about `batch_bytes` at a time; while parsers are at work it waits for `busy_s`, or
    until there are `busy_bytes`. Who adds pages waits where more than `queue_bytes` are not written yet."""

    segment_pages: int = 32
    segment_bytes: int = 1024 * 1024
    segment_s: float = 2.0
    every_s: float = 0.25
    busy_s: float = 15.0
    busy_bytes: int = 16 * 1024 * 1024
    batch_bytes: int = 4 * 1024 * 1024
    queue_bytes: int = 32 * 1024 * 1024
    stop_s: float = 5.0


@dataclass(frozen=True, slots=True)
class KeepingSignals:
    """Called with pages and bytes that were stored, and with pages that could not be and why."""

    stored: Callable[[int, int], None]
    failed: Callable[[int, Exception], None]


DocumentKey = tuple[str, str]
"""Tenant and document id."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """Pages of one document that are alike."""

    tenant: str
    document_id: str
    source: Source
    parts: Part

    @property
    def document(self) -> DocumentKey:
        """Whose pages they are."""
        return self.tenant, self.document_id


@dataclass(slots=True)
class _Buffer:
    """A segment that is growing."""

    begun: float
    pages: list[AnyPage] = field(default_factory=list)
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Ready:
    key: RunKey
    pages: tuple[AnyPage, ...]
    size_bytes: int


class PageKeeper:
    """Takes pages, keeps them readable in memory until they are stored, and stores them. `run` is its one task."""

    def __init__(
        self,
        store: PageStore,
        *,
        limits: KeepingLimits,
        signals: KeepingSignals,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_busy` says whether parsers are at work: who waits for pages goes first."""
        self._store = store
        self._is_busy = is_busy
        self._limits = limits
        self._signals = signals
        self._buffers: dict[tuple[RunKey, object], _Buffer] = {}
        self._ready: deque[_Ready] = deque()
        self._facts: dict[DocumentKey, Facts] = {}
        self._pending: dict[DocumentKey, dict[RunKey, dict[int, AnyPage]]] = {}
        self._recent: dict[DocumentKey, float] = {}
        """Documents of which something was stored, and until when that is worth knowing."""
        self._waiting_bytes = 0
        self._failing = False
        self._wanted = asyncio.Event()
        self._since = 0.0
        """Loop time of the last write, or since when there is something to write."""
        self._room = asyncio.Event()
        self._room.set()
        self._writing = asyncio.Lock()

    @property
    def waiting_bytes(self) -> int:
        """Bytes of pages that are not stored yet."""
        return self._waiting_bytes

    def add(self, key: RunKey, page: AnyPage, *, run: object) -> None:
        """Takes one page. Those of a `run` come in order; a gap begins a new segment."""
        if self._failing and self._waiting_bytes >= self._limits.queue_bytes:
            self._signals.failed(1, _given_up())
            return
        buffer = self._buffers.get((key, run))
        if buffer is not None and buffer.pages and buffer.pages[-1].number + 1 != page.number:
            self.finish(key, run)
            buffer = None
        if buffer is None:
            buffer = self._buffers[key, run] = _Buffer(asyncio.get_running_loop().time())
        size_bytes = len(page.content) if isinstance(page, Page) else _FAILED_PAGE_BYTES
        buffer.pages.append(page)
        buffer.size_bytes += size_bytes
        self._pending.setdefault(key.document, {}).setdefault(key, {})[page.number] = page
        self._count(size_bytes)
        limits = self._limits
        if len(buffer.pages) >= limits.segment_pages or buffer.size_bytes >= limits.segment_bytes:
            self.finish(key, run)
        self._want()

    def note(self, document: DocumentKey, facts: Facts) -> None:
        """Takes what is known of a document as a whole."""
        before = self._facts.get(document)
        self._facts[document] = facts
        self._count(len(facts.info) - (len(before.info) if before is not None else 0))
        self._want()

    def finish(self, key: RunKey, run: object) -> None:
        """Ends the segment that is growing: more pages do not follow soon."""
        buffer = self._buffers.pop((key, run), None)
        if buffer is not None:
            self._ready.append(_Ready(key, tuple(buffer.pages), buffer.size_bytes))

    def get(self, key: RunKey, page: int) -> AnyPage | None:
        """A page that is not stored yet and has at least the key's parts."""
        for kept, pages in self._pending.get(key.document, {}).items():
            if kept.source is key.source and key.parts in kept.parts and page in pages:
                return pages[page]
        return None

    def facts(self, document: DocumentKey) -> Facts | None:
        """What was noted and is not stored yet."""
        return self._facts.get(document)

    def knows(self, document: DocumentKey) -> bool:
        """Whether something of the document waits to be stored, or was a moment ago."""
        if document in self._pending or document in self._facts:
            return True
        return self._recent.get(document, 0.0) > asyncio.get_running_loop().time()

    async def room(self) -> None:
        """Waits where too much is not stored yet. While storing fails nobody waits: pages are then given up."""
        await self._room.wait()

    async def run(self) -> None:
        """Stores until cancelled."""
        while True:
            await self._wanted.wait()
            # Company on the way: one transaction costs as much as the pages of a few documents.
            await asyncio.sleep(self._limits.every_s)
            if self._may_wait():
                continue
            self._finish_old()
            await self._write_all()
            self._since = asyncio.get_running_loop().time()
            if not self._buffers and not self._ready and not self._facts:
                self._wanted.clear()

    async def flush(self) -> None:
        """Stores what there is, for as long as `stop_s`; for the end of the service."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.stop_s):
                for key, run in tuple(self._buffers):
                    self.finish(key, run)
                await self._write_all()

    def _want(self) -> None:
        if not self._wanted.is_set():
            self._since = asyncio.get_running_loop().time()
            self._wanted.set()

    def _may_wait(self) -> bool:
        """Whether there is time for what is ready, and others have more need of the cores."""
        limits = self._limits
        waited_s = asyncio.get_running_loop().time() - self._since
        return waited_s < limits.busy_s and self._waiting_bytes < limits.busy_bytes and self._is_busy()

    def _finish_old(self) -> None:
        before = asyncio.get_running_loop().time() - self._limits.segment_s
        for key, run in [begun for begun, buffer in self._buffers.items() if buffer.begun <= before]:
            self.finish(key, run)

    async def _write_all(self) -> None:
        while self._ready or self._facts:
            await self._write_ready()

    async def _write_ready(self) -> None:
        async with self._writing:
            taken: list[_Ready] = []
            size_bytes = 0
            while self._ready and size_bytes < self._limits.batch_bytes:
                taken.append(self._ready.popleft())
                size_bytes += taken[-1].size_bytes
            facts: dict[DocumentKey, Facts] = {}
            for document, noted in self._facts.items():
                if size_bytes >= self._limits.batch_bytes and facts:
                    break
                facts[document] = noted
                size_bytes += len(noted.info)
            if not taken and not facts:
                return
            try:
                await self._write(_findings(taken, facts))
            except asyncio.CancelledError:
                self._ready.extendleft(reversed(taken))
                raise
            self._forget(taken, facts)

    async def _write(self, findings: list[Finding]) -> None:
        try:
            await self._store.write(findings)
        except PagemeshError as exc:
            self._failing = True
            self._signals.failed(_page_count(findings), exc)
            return
        except Exception as exc:  # noqa: BLE001  # told, and the task lives on
            if len(findings) == 1:
                self._signals.failed(_page_count(findings), exc)
                return
            # One document's fault is not the others'.
            for finding in findings:
                await self._write([finding])
            return
        self._failing = False
        until = asyncio.get_running_loop().time() + 2 * self._limits.segment_s
        for finding in findings:
            self._recent.pop((finding.tenant, finding.document_id), None)
            self._recent[finding.tenant, finding.document_id] = until
        while len(self._recent) > _MAX_RECENT:
            del self._recent[next(iter(self._recent))]
        self._signals.stored(_page_count(findings), sum(_size(finding) for finding in findings))

    def _forget(self, taken: list[_Ready], facts: dict[DocumentKey, Facts]) -> None:
        for document, noted in facts.items():
            if self._facts.get(document) is noted:
                del self._facts[document]
                self._count(-len(noted.info))
        for ready in taken:
            runs = self._pending.get(ready.key.document, {})
            pages = runs.get(ready.key, {})
            for page in ready.pages:
                if pages.get(page.number) is page:
                    del pages[page.number]
            if not pages:
                runs.pop(ready.key, None)
            if not runs:
                self._pending.pop(ready.key.document, None)
        self._count(-sum(ready.size_bytes for ready in taken))

    def _count(self, size_bytes: int) -> None:
        self._waiting_bytes += size_bytes
        if self._waiting_bytes < self._limits.queue_bytes or self._failing:
            self._room.set()
        else:
            self._room.clear()


def _findings(taken: list[_Ready], facts: dict[DocumentKey, Facts]) -> list[Finding]:
    by_document: dict[DocumentKey, dict[tuple[RunKey, int], Segment]] = {document: {} for document in facts}
    for ready in taken:
        span = Span(ready.key.source, ready.key.parts, ready.pages[0].number, ready.pages[-1].number)
        # Of two that begin alike the longer one is worth its place.
        begin, segments = (ready.key, span.first_page), by_document.setdefault(ready.key.document, {})
        if begin not in segments or segments[begin].span.last_page <= span.last_page:
            segments[begin] = Segment(span, ready.pages)
    return [
        Finding(*document, facts.get(document), tuple(segments.values()))
        for document, segments in sorted(by_document.items())
    ]


def _given_up() -> Unavailable:
    return Unavailable("DATABASE_UNAVAILABLE", "Pages can not be stored at the moment.")


def _page_count(findings: list[Finding]) -> int:
    return sum(len(segment.pages) for finding in findings for segment in finding.segments)


def _size(finding: Finding) -> int:
    pages = (page for segment in finding.segments for page in segment.pages)
    return sum(len(page.content) for page in pages if isinstance(page, Page))
