"""Using a document: it does not expire meanwhile, and an ephemeral one is erased when the first use has ended."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.extractor.domain.documents import Document, document_id, not_found
from services.extractor.domain.extract import Extraction, ExtractPages
from services.extractor.domain.keeping import Lease, Leases
from services.extractor.domain.pages import DocumentFault, ExtractionEvent
from services.extractor.domain.ports import Clock, DocumentRepository
from services.extractor.domain.retention import Retention
from services.runtime.errors import FailedPrecondition, PagemeshError

LEASE = dt.timedelta(seconds=60)
RENEW_S = 20.0

_MAY_WORK_OTHERWISE = {DocumentFault.ENCRYPTED.value, DocumentFault.WRONG_PASSWORD.value}
"""Faults that another request, with a password, does not meet."""


@dataclass(slots=True, eq=False)
class Use:
    """One use under way. Who uses the document says whether something was `processed`, or never can be. It has a lease
    from when its row is written."""

    document: Document
    lease: Lease | None = None
    processed: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its row is written: a renewal that came behind the end would keep the document for another minute."""


class Uses:
    """Leases of this process, renewed while it lives.

    A use that ends before its document could expire needs no row: only those of documents that go soon are written down
    at once, and all others when they have lasted for a while.
    """

    def __init__(
        self,
        *,
        repository: DocumentRepository,
        leases: Leases,
        clock: Clock,
        new_id: Callable[[], str],
        due: Callable[[], None],
        renew_s: float = RENEW_S,
    ) -> None:
        """`new_id` makes UUIDs; `due` is called where a document may have to be erased now."""
        self._repository = repository
        self._leases = leases
        self._clock = clock
        self._new_id = new_id
        self._due = due
        self._renew_s = renew_s
        self._open: dict[Use, None] = {}
        """In their order, so that the oldest is renewed first."""

    @contextlib.asynccontextmanager
    async def of(self, tenant: str, name: str, *, document: Document | None = None) -> AsyncIterator[Use]:
        """A use of `documents/{id}`, which ends with the context; `document` is the one that is named, where it was
        read a moment ago. Raises NotFound."""
        if document is None:
            document = await self._repository.get(tenant, document_id(name))
        if document is None:
            raise not_found(name)
        use = Use(document)
        now = self._clock.now()
        goes_soon = document.term.retention is Retention.EPHEMERAL or document.term.expire_time <= now + LEASE
        if goes_soon and not await self._leases.hold(self._lease(use), until=now + LEASE):
            raise not_found(name)
        self._open[use] = None
        try:
            yield use
        finally:
            del self._open[use]
            async with use.turn:
                if use.lease is not None:
                    await self._release(use, use.lease)

    async def run(self) -> None:
        """Renews until cancelled."""
        while True:
            await asyncio.sleep(self._renew_s)
            await self.renew()

    async def renew(self) -> None:
        """Renews every lease of a use that is under way."""
        for use in tuple(self._open):
            async with use.turn:
                if use not in self._open:
                    continue  # it ended while others were renewed
                # A database that is away for a while costs nothing: the lease lasts for several attempts.
                with contextlib.suppress(PagemeshError):
                    await self._leases.hold(self._lease(use), until=self._clock.now() + LEASE)

    async def hold(self, tenant: str, name: str, hold_id: str, ttl: dt.timedelta) -> None:
        """A use by another service, which releases it or lets it run out. Raises NotFound."""
        if not await self._leases.hold(Lease(tenant, document_id(name), hold_id), until=self._clock.now() + ttl):
            raise not_found(name)

    async def release(self, tenant: str, name: str, hold_id: str, *, processed: bool) -> None:
        """The end of such a use."""
        processed_at = self._clock.now() if processed else None
        await self._leases.release(Lease(tenant, document_id(name), hold_id), processed_at=processed_at)
        self._due()

    def _lease(self, use: Use) -> Lease:
        use.lease = use.lease or Lease(use.document.tenant, use.document.id, self._new_id())
        return use.lease

    async def _release(self, use: Use, lease: Lease) -> None:
        # Where the database is away the lease runs out, and the document expires by its own time.
        with contextlib.suppress(PagemeshError):
            processed_at = self._clock.now() if use.processed else None
            await self._leases.release(lease, processed_at=processed_at)
            self._due()


class ProcessPages:
    """Extraction as a use of its document."""

    def __init__(self, *, uses: Uses, extract: ExtractPages) -> None:
        self._uses = uses
        self._extract = extract

    async def __call__(
        self, extraction: Extraction, *, remaining_s: Callable[[], float | None], processes: bool
    ) -> AsyncGenerator[Sequence[ExtractionEvent], None]:
        """As `ExtractPages`. With `processes` its end is that of the document's processing, and so is a file that
        cannot be read; a call that breaks off is not."""
        looked = await self._extract.look(extraction)
        async with self._uses.of(extraction.tenant, extraction.name, document=looked.document) as use:
            try:
                pages = self._extract(extraction, remaining_s=remaining_s, looked=looked)
                async with aclosing(pages) as bursts:
                    async for events in bursts:
                        yield events
            except FailedPrecondition as exc:
                use.processed = processes and exc.reason not in _MAY_WORK_OTHERWISE
                raise
            use.processed = processes
