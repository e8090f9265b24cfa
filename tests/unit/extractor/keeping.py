"""Documents, their store and all that looks after them, in memory, with what a test may break."""

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

from services.extractor.adapters.memory import MemoryDocuments, MemoryObjectStore, MemoryResults, MemorySpool
from services.extractor.domain.documents import Document, Uploaded
from services.extractor.domain.erasure import Eraser
from services.extractor.domain.keeping import Backlog
from services.extractor.domain.library import Library
from services.extractor.domain.lifecycle import LifecycleSignals, LifecycleWorker
from services.extractor.domain.receipts import DeletionReceipt
from services.extractor.domain.retention import Retention, Term
from services.extractor.domain.upload import UploadDocument
from services.extractor.domain.uses import Uses
from services.runtime.errors import Unavailable
from tests.unit.extractor.scripted import NOW, StillClock, a_document

PDF = b"%PDF-1.7\n" + b"x" * 5000
LIMIT = 10_000


class BreakableStore(MemoryObjectStore):
    down = False

    async def delete(self, key: str) -> bool:
        if self.down:
            raise Unavailable("STORE_UNAVAILABLE", "down")
        return await super().delete(key)


class BreakableResults(MemoryResults):
    down = False
    asked = 0

    async def purge(self, tenant: str, document: str) -> int:
        self.asked += 1
        if self.down:
            raise Unavailable("SUMMARIZER_UNAVAILABLE", "down")
        return await super().purge(tenant, document)


async def in_pieces(data: bytes, size: int = 700) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


class World:
    """`worker.round()` does what the running worker does now and then."""

    def __init__(
        self, directory: Path, *, store: MemoryObjectStore | None = None, documents: MemoryDocuments | None = None
    ) -> None:
        self.documents, self.clock = documents or MemoryDocuments(), StillClock()
        self.store = store or BreakableStore()
        self.results = BreakableResults()
        self.told: list[DeletionReceipt] = []
        self.backlogs: list[Backlog] = []
        self.failures: list[tuple[str, Exception]] = []
        self.rounds = 0
        self._file = directory / "bytes"
        self._file.write_bytes(b"bytes")
        ids = itertools.count(1)
        self.library = Library(repository=self.documents, receipts=self.documents, clock=self.clock)
        self.eraser = Eraser(
            repository=self.documents,
            store=self.store,
            results=self.results,
            clock=self.clock,
            new_id=lambda: f"{next(ids):032x}",
            erased=self.told.append,
        )
        self.worker = LifecycleWorker(
            lifecycle=self.documents,
            eraser=self.eraser,
            sweep_store=self._sweep,
            clock=self.clock,
            signals=LifecycleSignals(self.backlogs.append, lambda step, exc: self.failures.append((step, exc))),
            every_s=3600,
        )
        self.uses = Uses(
            repository=self.documents,
            leases=self.documents,
            clock=self.clock,
            new_id=lambda: f"00000000-0000-4000-8000-{next(ids):012d}",
            due=self.worker.wake,
        )
        self.take_in = UploadDocument(
            repository=self.documents,
            store=self.store,
            spool=MemorySpool(),
            eraser=self.eraser,
            clock=self.clock,
            max_upload_bytes=LIMIT,
            stall_s=0.05,
        )

    async def _sweep(self) -> None:
        self.rounds += 1

    async def add(
        self,
        number: int = 1,
        *,
        tenant: str = "acme",
        at: dt.datetime | None = None,
        term: Term | None = None,
    ) -> Document:
        """A document of a few bytes, made behind the use cases' back."""
        time = at or NOW + dt.timedelta(seconds=number)
        document = a_document(f"{number:064x}"[::-1], tenant=tenant, create_time=time, term=term)
        await self.store.put(f"{tenant}/{document.sha256}", self._file)
        async with self.documents.locked(tenant, document.id) as record:
            await record.insert(document)
        return document

    async def upload(
        self,
        data: bytes = PDF,
        name: str = "a.pdf",
        *,
        tenant: str = "acme",
        retention: Retention | None = None,
        expire_time: dt.datetime | None = None,
    ) -> Uploaded:
        return await self.take_in(tenant, name, in_pieces(data), retention=retention, expire_time=expire_time)

    async def receipts(self, tenant: str = "acme") -> list[DeletionReceipt]:
        return list(await self.documents.receipts(tenant, limit=1000, after=None))

    def later(self, **time: float) -> None:
        """Lets time pass."""
        self.clock.time += dt.timedelta(**time)

    async def until_round(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.rounds < number:
                await asyncio.sleep(0)
