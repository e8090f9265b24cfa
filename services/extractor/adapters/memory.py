"""The ports in memory: for tests of use cases, and as the plainest statement of what each port promises."""

import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from pagemesh.common.v1 import page_pb2
from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.pages import DocumentFault, DocumentFlag, Opened, Page, ParserEvent, Part, Refused
from services.extractor.domain.ports import DocumentRecord, Erasure, ParseTask, ReadableFile


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


class MemoryDocuments:
    """Implements `DocumentRepository`."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[Document, dt.datetime | None]] = {}
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """See the port."""
        return self._find((tenant, document_id))

    async def list(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[Document]:
        """See the port."""
        alive = [row for (owner, _), (row, erased) in self._rows.items() if owner == tenant and erased is None]
        alive.sort(key=_place, reverse=True)
        return [row for row in alive if after is None or _place(row) < (after.create_time, after.id)][:limit]

    async def set_page_count(self, tenant: str, document_id: str, page_count: int) -> None:
        """See the port."""
        row = self._find((tenant, document_id))
        if row is not None:
            self._rows[tenant, document_id] = (replace(row, page_count=page_count), None)

    @contextlib.asynccontextmanager
    async def locked(self, tenant: str, document_id: str) -> AsyncIterator[DocumentRecord]:
        """See the port."""
        key = (tenant, document_id)
        async with self._locks[key]:
            before = self._rows.get(key)
            try:
                yield MemoryRecord(self, key)
            except BaseException:
                self._rows.pop(key, None)
                if before is not None:
                    self._rows[key] = before
                raise

    async def erasures(self, *, before: dt.datetime, limit: int) -> Sequence[Erasure]:
        """See the port."""
        begun = [key for key, (_, erased) in self._rows.items() if erased is not None and erased < before]
        return [Erasure(*key) for key in begun[:limit]]

    def _find(self, key: tuple[str, str]) -> Document | None:
        row, erase_time = self._rows.get(key, (None, None))
        return row if erase_time is None else None


class MemoryRecord:
    """Implements `DocumentRecord`."""

    def __init__(self, documents: MemoryDocuments, key: tuple[str, str]) -> None:
        self._documents = documents
        self._key = key

    async def read(self) -> Document | None:
        """See the port."""
        return self._documents._find(self._key)

    async def read_erased(self, *, by: dt.datetime) -> Document | None:
        """See the port."""
        row, erase_time = self._documents._rows.get(self._key, (None, None))
        return row if erase_time is not None and erase_time <= by else None

    async def reserve(self, document: Document, *, until: dt.datetime) -> None:
        """See the port."""
        self._documents._rows.setdefault(self._key, (document, until))

    async def insert(self, document: Document) -> None:
        """See the port."""
        if await self.read() is None:
            self._documents._rows[self._key] = (document, None)

    async def mark_erased(self, at: dt.datetime) -> None:
        """See the port."""
        row = await self.read()
        if row is not None:
            self._documents._rows[self._key] = (row, at)

    async def remove(self) -> None:
        """See the port."""
        self._documents._rows.pop(self._key, None)


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
    async def parse(self, task: ParseTask) -> AsyncIterator[AsyncIterator[ParserEvent]]:
        """See the port."""
        size_bytes = os.fstat(task.file.fileno()).st_size
        yield self._events(os.pread(task.file.fileno(), size_bytes, 0), task)

    async def check(self) -> None:
        """See the port."""

    async def _events(self, data: bytes, task: ParseTask) -> AsyncIterator[ParserEvent]:
        text = data.removeprefix(b"%PDF-").decode()
        pages = text.split("\f") if text else []
        if not pages:
            yield Refused(DocumentFault.NO_PAGES)
            return
        yield Opened(len(pages), DocumentFlag.NONE)
        for number in range(task.first_page, min(task.last_page, len(pages)) + 1):
            kept = pages[number - 1] if Part.TEXT in task.parts else ""
            yield Page(number, page_pb2.Page(number=number, text=kept).SerializeToString())


def _place(document: Document) -> tuple[dt.datetime, str]:
    return document.create_time, document.id
