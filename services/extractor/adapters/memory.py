"""The ports in memory: for tests of use cases, and as the plainest statement of what each port promises."""

import asyncio
import contextlib
import copy
import datetime as dt
import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pagemesh.common.v1 import page_pb2
from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.keeping import Backlog, Erasing, Erasure, Lease
from services.extractor.domain.pages import DocumentFault, DocumentFlag, Opened, Page, ParserEvent, Part, Refused
from services.extractor.domain.ports import DocumentRecord, ParseTask, ReadableFile
from services.extractor.domain.receipts import Cause, DeletionReceipt, Erased
from services.extractor.domain.retention import Retention, Term


class MemoryObjectStore:
    """Implements `ObjectStore`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, key: str, source: Path) -> None:
        """See the port."""
        self.objects[key] = await asyncio.to_thread(source.read_bytes)

    async def size_bytes(self, key: str) -> int | None:
        """See the port."""
        return len(self.objects[key]) if key in self.objects else None

    @contextlib.asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[ReadableFile]:
        """See the port."""
        if key not in self.objects:
            raise FileNotFoundError(key)
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(self.objects[key])
            yield file

    async def delete(self, key: str) -> bool:
        """See the port."""
        return self.objects.pop(key, None) is not None

    async def check(self) -> None:
        """See the port."""


@dataclass
class _Row:
    document: Document
    erase_time: dt.datetime | None = None
    cause: Cause | None = None
    actor: str = ""
    results: int = 0
    claim_time: dt.datetime | None = None
    process_time: dt.datetime | None = None
    leases: dict[str, dt.datetime] = field(default_factory=dict)

    def held(self, now: dt.datetime) -> bool:
        return any(until > now for until in self.leases.values())

    def hide(self, now: dt.datetime) -> None:
        self.erase_time = now
        self.cause = Cause.EXPIRED if self.process_time is None else Cause.PROCESSED


class MemoryDocuments:
    """Implements `DocumentRepository`, `Leases`, `Lifecycle` and `Receipts`."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._receipts: list[DeletionReceipt] = []
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """See the port."""
        row = self._alive((tenant, document_id))
        return None if row is None else row.document

    async def list(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[Document]:
        """See the port."""
        alive = [row.document for key, row in self._rows.items() if key[0] == tenant and row.erase_time is None]
        alive.sort(key=_place, reverse=True)
        return [row for row in alive if after is None or _place(row) < (after.create_time, after.id)][:limit]

    async def set_page_count(self, tenant: str, document_id: str, page_count: int) -> None:
        """What storing the first pages of a document notes. Does nothing where it is gone."""
        row = self._alive((tenant, document_id))
        if row is not None:
            row.document = replace(row.document, page_count=page_count)

    @contextlib.asynccontextmanager
    async def locked(self, tenant: str, document_id: str) -> AsyncIterator[DocumentRecord]:
        """See the port."""
        key = (tenant, document_id)
        async with self._locks[key]:
            before, receipts = copy.deepcopy(self._rows.get(key)), len(self._receipts)
            try:
                yield MemoryRecord(self, key)
            except BaseException:
                del self._receipts[receipts:]
                self._rows.pop(key, None)
                if before is not None:
                    self._rows[key] = before
                raise

    async def hold(self, lease: Lease, *, until: dt.datetime) -> bool:
        """See the port."""
        row = self._alive((lease.tenant, lease.document_id))
        if row is not None:
            row.leases[lease.id] = until
        return row is not None

    async def release(self, lease: Lease, *, processed_at: dt.datetime | None) -> None:
        """See the port."""
        row = self._alive((lease.tenant, lease.document_id))
        if row is None:
            return
        row.leases.pop(lease.id, None)
        term = row.document.term
        if processed_at is not None and term.retention is Retention.EPHEMERAL:
            row.process_time = processed_at
            row.document = replace(row.document, term=replace(term, expire_time=min(term.expire_time, processed_at)))
            if not row.held(processed_at):
                row.hide(processed_at)

    async def expire(self, *, now: dt.datetime, limit: int) -> int:
        """See the port."""
        due = [row for row in self._rows.values() if row.erase_time is None and row.document.term.expire_time <= now]
        free = [row for row in due if not row.held(now)][:limit]
        for row in free:
            row.hide(now)
        return len(free)

    async def take_erasures(self, *, now: dt.datetime, until: dt.datetime, limit: int) -> Sequence[Erasure]:
        """See the port."""
        due = [(key, row) for key, row in self._rows.items() if row.erase_time is not None and row.erase_time <= now]
        free = [(key, row) for key, row in due if row.claim_time is None or row.claim_time <= now][:limit]
        for _, row in free:
            row.claim_time = until
        return [Erasure(*key) for key, _ in free]

    async def backlog(self, *, now: dt.datetime) -> Backlog:
        """See the port."""
        since = [row.erase_time or row.document.term.expire_time for row in self._rows.values()]
        waiting = [time for time in since if time <= now]
        return Backlog(len(waiting), (now - min(waiting, default=now)).total_seconds())

    async def forget(self, *, now: dt.datetime, limit: int) -> int:
        """See the port."""
        old = [receipt for receipt in self._receipts if receipt.delete_time <= _seven_years_before(now)][:limit]
        for receipt in old:
            self._receipts.remove(receipt)
        return len(old)

    async def receipts(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[DeletionReceipt]:
        """See the port."""
        own = [receipt for receipt in self._receipts if receipt.tenant == tenant]
        own.sort(key=lambda receipt: (receipt.delete_time, receipt.id), reverse=True)
        behind = [r for r in own if after is None or (r.delete_time, r.id) < (after.create_time, after.id)]
        return behind[:limit]

    def _alive(self, key: tuple[str, str]) -> _Row | None:
        row = self._rows.get(key)
        return row if row is not None and row.erase_time is None else None


class MemoryRecord:
    """Implements `DocumentRecord`."""

    def __init__(self, documents: MemoryDocuments, key: tuple[str, str]) -> None:
        self._documents = documents
        self._rows = documents._rows
        self._key = key

    async def read(self) -> Document | None:
        """See the port."""
        return await self._documents.get(*self._key)

    async def read_erased(self, *, by: dt.datetime) -> Erasing | None:
        """See the port."""
        row = self._rows.get(self._key)
        if row is None or row.erase_time is None or row.erase_time > by:
            return None
        return Erasing(row.document, row.cause, row.actor, row.results)

    async def reserve(self, document: Document, *, until: dt.datetime) -> bool:
        """See the port."""
        row = self._rows.setdefault(self._key, _Row(document, until))
        if row.erase_time is not None and row.cause is None:
            row.erase_time = max(row.erase_time, until)
        return row.cause is None

    async def insert(self, document: Document) -> bool:
        """See the port."""
        row = self._rows.get(self._key)
        if row is not None and (row.erase_time is None or row.cause is not None):
            return False
        self._rows[self._key] = _Row(document)
        return True

    async def set_term(self, term: Term) -> bool:
        """See the port."""
        row = self._documents._alive(self._key)
        if row is None:
            return False
        row.document, row.process_time = replace(row.document, term=term), None
        return True

    async def mark_erased(self, at: dt.datetime, *, cause: Cause, actor: str, until: dt.datetime) -> None:
        """See the port."""
        row = self._documents._alive(self._key)
        if row is not None:
            row.erase_time, row.cause, row.actor, row.claim_time = at, cause, actor, until

    async def note_results(self, count: int) -> None:
        """See the port."""
        row = self._rows.get(self._key)
        if row is not None and row.cause is not None:
            row.results += count

    async def remove(self) -> Erased:
        """See the port."""
        self._rows.pop(self._key, None)
        return Erased(pages=0, index_entries=0)

    async def add_receipt(self, receipt: DeletionReceipt) -> None:
        """See the port."""
        self._documents._receipts.append(receipt)


class MemoryResults:
    """Implements `Results`."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, str], int] = {}

    async def purge(self, tenant: str, document: str) -> int:
        """See the port."""
        return self.made.pop((tenant, document), 0)


class MemorySpooledFile:
    """Implements `SpooledFile`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = bytearray()

    async def write(self, data: bytes) -> None:
        """See the port."""
        self._data += data

    async def finish(self) -> str:
        """See the port."""
        await asyncio.to_thread(self.path.write_bytes, self._data)
        return hashlib.sha256(self._data).hexdigest()


class MemorySpool:
    """Implements `Spool`; a file touches the disk only when it is finished."""

    @contextlib.asynccontextmanager
    async def file(self, tenant: str) -> AsyncIterator[MemorySpooledFile]:
        """See the port."""
        with tempfile.TemporaryDirectory() as directory:
            yield MemorySpooledFile(Path(directory) / "upload")


class MemoryParser:
    """Implements `Parser` for a format of its own: pages of plain text behind `%PDF-`, separated by form feeds."""

    @contextlib.asynccontextmanager
    async def parse(self, task: ParseTask) -> AsyncIterator[AsyncIterator[Sequence[ParserEvent]]]:
        """See the port."""
        size_bytes = os.fstat(task.file.fileno()).st_size
        yield self._events(os.pread(task.file.fileno(), size_bytes, 0), task)

    async def check(self) -> None:
        """See the port."""

    async def _events(self, data: bytes, task: ParseTask) -> AsyncIterator[Sequence[ParserEvent]]:
        text = data.removeprefix(b"%PDF-").decode()
        pages = text.split("\f") if text else []
        if not pages:
            yield [Refused(DocumentFault.NO_PAGES)]
            return
        yield [Opened(len(pages), DocumentFlag.NONE)]
        for number in range(task.first_page, min(task.last_page, len(pages)) + 1):
            kept = pages[number - 1] if Part.TEXT in task.parts else ""
            yield [Page(number, page_pb2.Page(number=number, text=kept).SerializeToString())]


def _place(document: Document) -> tuple[dt.datetime, str]:
    return document.create_time, document.id


def _seven_years_before(now: dt.datetime) -> dt.datetime:
    # The 29th of February of such a year is the 28th.
    day = 28 if (now.month, now.day) == (2, 29) else now.day
    return now.replace(year=now.year - 7, day=day)
