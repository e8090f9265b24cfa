"""Taking a document in: spooled and hashed as it comes, stored whole or not at all."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace

from services.extractor.domain.documents import Document, Uploaded
from services.extractor.domain.erasure import Eraser
from services.extractor.domain.keys import object_key
from services.extractor.domain.media import SNIFF_BYTES, sniff
from services.extractor.domain.names import clean_display_name
from services.extractor.domain.ports import (
    Clock,
    DocumentRecord,
    DocumentRepository,
    ObjectStore,
    Spool,
    SpooledFile,
)
from services.extractor.domain.retention import Retention, Term, term_for
from services.runtime.errors import Aborted, DeadlineExceeded, FieldViolation, InvalidArgument

_COMMIT_ATTEMPTS = 3
_BYTES_FOR_MORE_TIME = 64 * 1024
"""With the time for a stall, the slowest that an upload may be: some 4 KiB a second."""
RESERVATION = dt.timedelta(hours=1)
"""How long an upload may take from its last byte to its row; with every time-out used up it takes minutes."""


class UploadDocument:
    """Stores bytes once for each tenant.

    The row is reserved, the object written, and the row made a document: whatever breaks in between leaves bytes that
    nobody can see, that the next upload of the same bytes replaces, and that the lifecycle worker removes when the
    reservation has ended. The document is only made while the object is known to be there: a deletion that runs
    meanwhile takes the same lock. One that was begun before is completed first, so that its receipt is true.
    """

    def __init__(
        self,
        *,
        repository: DocumentRepository,
        store: ObjectStore,
        spool: Spool,
        eraser: Eraser,
        clock: Clock,
        max_upload_bytes: int,
        stall_s: float,
    ) -> None:
        """An upload that waits for `stall_s` in all until 64 KiB more have come is ended; no tenant may send more than
        `max_upload_bytes`, whatever its plan says."""
        self._repository = repository
        self._store = store
        self._spool = spool
        self._eraser = eraser
        self._clock = clock
        self._max_upload_bytes = max_upload_bytes
        self._stall_s = stall_s

    async def __call__(
        self,
        tenant: str,
        display_name: str,
        pieces: AsyncIterator[bytes],
        *,
        retention: Retention | None = None,
        expire_time: dt.datetime | None = None,
        plan_bytes: int | None = None,
    ) -> Uploaded:
        """Reads `pieces` to their end and stores them, at most `plan_bytes` where the tenant's plan says so. The same
        bytes again keep the longer of both terms.

        Raises InvalidArgument EMPTY_FILE, FILE_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE or SUSPICIOUS_FILE_NAME as soon as it
        is known, ResourceExhausted where the spool is full, DeadlineExceeded UPLOAD_STALLED where the sender stands
        still or drips, Unavailable where store or database are down, or where an earlier deletion of the same bytes
        cannot be completed, and what `term_for` raises.
        """
        # Refused before the first byte, and reckoned from the last.
        term_for(retention, expire_time, now=self._clock.now())
        most = self._max_upload_bytes if plan_bytes is None else min(plan_bytes, self._max_upload_bytes)
        async with self._spool.file(tenant) as spooled:
            head, size_bytes = await self._receive(pieces, spooled, display_name, most)
            media_type = sniff(head)
            sha256 = await spooled.finish()
            now = self._clock.now()
            document = Document(
                tenant=tenant,
                sha256=sha256,
                display_name=clean_display_name(display_name, media_type),
                media_type=media_type,
                size_bytes=size_bytes,
                create_time=now,
                term=Term(Retention.KEPT, expire_time) if expire_time else term_for(retention, None, now=now),
            )
            return await self._commit(document, spooled)

    async def _receive(
        self, pieces: AsyncIterator[bytes], spooled: SpooledFile, display_name: str, most: int
    ) -> tuple[bytes, int]:
        head = b""
        size_bytes = 0
        checked = False
        pace = _Pace(self._stall_s)
        while (piece := await pace.next_bytes(pieces)) is not None:
            size_bytes += len(piece)
            if size_bytes > most:
                raise _content("FILE_TOO_LARGE", f"The file is larger than {most} bytes, the limit for this tenant.")
            if not checked:
                head += piece[:SNIFF_BYTES]
                if len(head) >= SNIFF_BYTES:
                    # A file of the wrong kind is refused now, not after its last byte.
                    clean_display_name(display_name, sniff(head))
                    checked = True
            await spooled.write(piece)
        if size_bytes == 0:
            raise _content("EMPTY_FILE", "The upload holds no bytes. Send the file's content.")
        return head, size_bytes

    async def _commit(self, document: Document, spooled: SpooledFile) -> Uploaded:
        key = object_key(document.tenant, document.sha256)
        for _ in range(_COMMIT_ATTEMPTS):
            async with self._repository.locked(document.tenant, document.id) as record:
                if (existing := await _renewed(record, document)) is not None:
                    # An object that was lost with its disk comes back with the file. Under the lock, since a deletion
                    # takes it too.
                    if await self._store.size_bytes(key) != existing.size_bytes:
                        await self._store.put(key, spooled.path)
                    return Uploaded(existing, created=False)
                reserved = await record.reserve(document, until=self._clock.now() + RESERVATION)
            if not reserved:
                await self._eraser.complete(document.tenant, document.id)
                continue
            await self._store.put(key, spooled.path)
            async with self._repository.locked(document.tenant, document.id) as record:
                if (existing := await _renewed(record, document)) is not None:
                    return Uploaded(existing, created=False)
                # A deletion of the same bytes may have removed the object since it was put.
                if await self._store.size_bytes(key) == document.size_bytes and await record.insert(document):
                    return Uploaded(document, created=True)
        raise Aborted("UPLOAD_CONTENDED", "The same file is being deleted again and again. Try again.")


class _Pace:
    """Ends an upload whose sender stands still, or sends so little that it holds its place for next to nothing."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._left_s = stall_s
        self._bytes = 0

    async def next_bytes(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """The next piece that holds anything; None at the end. Only the time in which nothing is there counts: a disk
        that is slow is not the sender's fault."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._left_s) as timer:
                piece = await _first_filled(pieces)
        except TimeoutError as exc:
            if not timer.expired():
                raise
            message = f"Next to nothing came for {self._stall_s:g} s. Nothing was kept; send the file again."
            raise DeadlineExceeded("UPLOAD_STALLED", message) from exc
        self._left_s -= loop.time() - begun
        self._bytes += len(piece or b"")
        if self._bytes >= _BYTES_FOR_MORE_TIME:
            self._bytes, self._left_s = 0, self._stall_s
        return piece


async def _first_filled(pieces: AsyncIterator[bytes]) -> bytes | None:
    async for piece in pieces:
        if piece:
            return piece
    return None


async def _renewed(record: DocumentRecord, document: Document) -> Document | None:
    """What the tenant has of these bytes already, kept for the longer of both terms; None where there is nothing."""
    existing = await record.read()
    if existing is None:
        return None
    term = existing.term.longer(document.term)
    if term != existing.term and not await record.set_term(term):
        return None
    return replace(existing, term=term)


def _content(reason: str, message: str) -> InvalidArgument:
    return InvalidArgument(reason, message, fields=[FieldViolation("content", message)])
