"""What the use cases need of the outside world."""

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.keeping import Erasing
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import FailedPage, Page, ParserEvent, Part, Picture, PictureFormat, Refused
from services.extractor.domain.receipts import Cause, DeletionReceipt, Erased
from services.extractor.domain.recognised import Reading, TextBlock
from services.extractor.domain.retention import Term


class Clock(Protocol):
    """The time of day."""

    def now(self) -> dt.datetime:
        """In UTC."""


class SpooledFile(Protocol):
    """One file on its way in, on disk."""

    @property
    def path(self) -> Path:
        """Where the bytes are, once `finish` was called."""

    async def write(self, data: bytes) -> None:
        """Appends. Raises Unavailable where the disk is full."""

    async def finish(self) -> str:
        """Writes out what is left and answers the SHA-256 of it all in hexadecimal digits."""


class Spool(Protocol):
    """Where uploads wait until they are whole."""

    def file(self, tenant: str) -> AbstractAsyncContextManager[SpooledFile]:
        """A new file that is gone when the context ends. Raises ResourceExhausted where too many are open, all in all
        or of this tenant."""


class ReadableFile(Protocol):
    """Stored bytes, opened for reading; deleting the object meanwhile does no harm."""

    def fileno(self) -> int:
        """The descriptor."""


class ObjectStore(Protocol):
    """Bytes by key. A key is seen whole or not at all. Every method raises Unavailable where the store is down."""

    async def put(self, key: str, source: Path) -> None:
        """Stores the file's bytes, durably when this returns, in the place of what was there."""

    async def size_bytes(self, key: str) -> int | None:
        """Size of the object; None where there is none."""

    def open(self, key: str) -> AbstractAsyncContextManager[ReadableFile]:
        """The object as an open local file. Raises FileNotFoundError, and ResourceExhausted STORE_BUSY where too many
        are on their way or open already."""

    async def delete(self, key: str) -> bool:
        """Removes the object; False where there was none."""

    async def check(self) -> None:
        """Raises where the store cannot be reached."""


class DocumentRecord(Protocol):
    """One document's row, locked against all other writers until the context ends; changes are committed then."""

    async def read(self) -> Document | None:
        """The document; None where there is none or it is being erased."""

    async def read_erased(self, *, by: dt.datetime) -> Erasing | None:
        """What is being erased and was due at `by`; None where there is none or it is alive or reserved."""

    async def reserve(self, document: Document, *, until: dt.datetime) -> bool:
        """Notes that bytes may be stored soon. Nobody sees the document until it is inserted; where it never is, its
        erasure is due at `until`. False where an earlier document of the same bytes is still being erased."""

    async def insert(self, document: Document) -> bool:
        """Adds the document, over a reserved one of the same id. False where another one is there."""

    async def set_term(self, term: Term) -> bool:
        """Changes how long the document is kept, and forgets that anything was made of it. False where it is gone."""

    async def mark_erased(self, at: dt.datetime, *, cause: Cause, actor: str, until: dt.datetime) -> None:
        """Hides the document from everybody but `read_erased`, and from `Lifecycle.take_erasures` before `until`."""

    async def note_results(self, count: int) -> None:
        """Adds to what was erased of the results that were made of the document that is being erased."""

    async def remove(self) -> Erased:
        """Forgets the document, its pages and its entries in the search index."""

    async def add_receipt(self, receipt: DeletionReceipt) -> None:
        """Keeps the receipt."""


class DocumentRepository(Protocol):
    """Documents by tenant and id. Every method raises Unavailable where the database is down."""

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """One document; None where the tenant has no such one."""

    async def list(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[Document]:
        """At most `limit` documents, newest first, behind `after`."""

    def locked(self, tenant: str, document_id: str) -> AbstractAsyncContextManager[DocumentRecord]:
        """The document's row under a lock that holds whether or not there is one."""


@dataclass(frozen=True, slots=True)
class ParseTask:
    """Work for one parser process: pages `first_page` to `last_page` of a file, as far as it has them.

    `alone` asks for a process that has parsed nothing before. `wait_s` bounds the time in the queue; `turns` is how
    many tasks of the same extraction came before: one that has begun is not turned away where the queue is full.
    """

    tenant: str
    file: ReadableFile
    media_type: MediaType
    first_page: int
    last_page: int
    parts: Part
    alone: bool = False
    wait_s: float | None = None
    turns: int = 0
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PictureTask:
    """One picture from a parser process: page `page` drawn at `dpi`, which is lowered until no side is longer than
    `max_side_px`, or where `index` is not None, the picture with that index in the page's list, as it is in the file.
    """

    tenant: str
    file: ReadableFile
    media_type: MediaType
    page: int
    format: PictureFormat
    dpi: int = 200
    max_side_px: int = 4096
    jpeg_quality: int = 95
    index: int | None = None
    alone: bool = False
    wait_s: float | None = None
    password: str = field(default="", repr=False)


class Parser(Protocol):
    """Parser processes, each of which does one task at a time."""

    def parse(self, task: ParseTask) -> AbstractAsyncContextManager[AsyncIterator[Sequence[ParserEvent]]]:
        """Begins the task: `Opened` and then pages and failed pages in order, or `Refused`; those together that are
        there together.

        The events may end early, where the process is needed elsewhere; the caller then asks for the rest. Leaving
        the context stops the work at once. Iterating raises ParserLost where the process is gone. Entering raises
        ResourceExhausted PARSER_BUSY where too many wait already and after `wait_s`, Unavailable where no process can
        be started.
        """

    async def check(self) -> None:
        """Raises where no parser process can be had."""


class PictureParser(Protocol):
    """Parser processes that draw; they are those of `Parser`, and so are the slots."""

    async def picture(self, task: PictureTask) -> Picture | Refused | FailedPage:
        """Draws or takes out one picture. Raises ParserLost where the process is gone, OutOfRange PAGE_OUT_OF_RANGE and
        IMAGE_OUT_OF_RANGE, and what entering `Parser.parse` raises. Cancelling it stops the work at once."""


@dataclass(frozen=True, slots=True)
class RecogniseTask:
    """A page to be read by optical character recognition. `parsed` is what the parser answered for it: the size of the
    page, its pictures and its links stay as they are there."""

    tenant: str
    file: ReadableFile
    media_type: MediaType
    page: int
    parsed: Page
    wait_s: float | None = None
    password: str = field(default="", repr=False)


class TextReader(Protocol):
    """Processes that read text in pictures, one picture each."""

    async def read(self, tenant: str, picture: Picture, *, wait_s: float | None) -> Reading:
        """The lines in a picture of the format GRAY. Raises ParserLost where the process is gone, ResourceExhausted
        OCR_BUSY where too many wait already and after `wait_s`, Unavailable where no process can be started.
        Cancelling it ends the process at once."""


class PageWriter(Protocol):
    """Writes what was read as a page's content."""

    def write(
        self, parsed: Page, blocks: Sequence[TextBlock], *, width_px: int, height_px: int, complete: bool
    ) -> Page:
        """`parsed` with the text of `blocks` in the place of its own, out of a picture of that size."""


class Recogniser(Protocol):
    """Optical character recognition of whole pages."""

    async def recognise(self, task: RecogniseTask) -> Page | FailedPage:
        """The page with text, blocks, words and markdown out of its picture and the flag OCR, or why there is none.
        Raises what `PictureParser.picture` and `TextReader.read` raise, but ParserLost."""
