"""Between the contract's messages and the domain's values."""

import datetime as dt
import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Literal

from google.protobuf.timestamp_pb2 import Timestamp

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import document_pb2, extraction_pb2
from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from services.extractor.domain.documents import Document
from services.extractor.domain.extract import Extraction
from services.extractor.domain.pages import (
    DocumentFlag,
    ExtractionEnd,
    ExtractionEvent,
    ExtractionStart,
    FailedPage,
    OcrMode,
    Page,
    PageFault,
    Part,
)
from services.extractor.domain.receipts import DeletionReceipt
from services.extractor.domain.retention import Change, Retention
from services.extractor.domain.stored_pages import DOCUMENT_PARTS
from services.runtime.errors import FieldViolation, InvalidArgument

_PART = {
    "text": Part.TEXT,
    "blocks": Part.BLOCKS,
    "words": Part.WORDS,
    "markdown": Part.MARKDOWN,
    "tables": Part.TABLES,
    "images": Part.IMAGES,
    "links": Part.LINKS,
    "language": Part.LANGUAGE,
    "flags": Part.FLAGS,
    "metadata": Part.METADATA,
    "outline": Part.OUTLINE,
}
_OCR = {extraction_pb2.OCR_MODE_OFF: OcrMode.OFF, extraction_pb2.OCR_MODE_ALWAYS: OcrMode.ALWAYS}
_FIELDS: tuple[Literal["text", "blocks", "words", "markdown", "tables", "images", "links", "language"], ...] = (
    "text",
    "blocks",
    "words",
    "markdown",
    "tables",
    "images",
    "links",
    "language",
)
"""Parts that are fields of a page."""
_FILLED = functools.reduce(operator.or_, (_PART[name] for name in _FIELDS))
_BURST_BYTES = 256 * 1024
_DEFAULT_PARTS = Part.TEXT | Part.BLOCKS
_FLAG = {
    DocumentFlag.REPAIRED: extraction_pb2.DOCUMENT_FLAG_REPAIRED,
    DocumentFlag.ENCRYPTED: extraction_pb2.DOCUMENT_FLAG_ENCRYPTED,
    DocumentFlag.PARTIAL: extraction_pb2.DOCUMENT_FLAG_PARTIAL,
}
_RETENTION = {
    Retention.EPHEMERAL: document_pb2.RETENTION_EPHEMERAL,
    Retention.TEMPORARY: document_pb2.RETENTION_TEMPORARY,
    Retention.KEPT: document_pb2.RETENTION_KEPT,
}
_FAILED_PAGE = {
    PageFault.CORRUPT: "The page is damaged.",
    PageFault.TIMEOUT: "Reading the page takes too long.",
    PageFault.MEMORY: "Reading the page takes too much memory.",
    PageFault.CRASHED: "Reading the page ends its parser.",
}


def document(value: Document) -> document_pb2.Document:
    """A document."""
    message = document_pb2.Document(
        name=value.name,
        display_name=value.display_name,
        media_type=value.media_type,
        size_bytes=value.size_bytes,
        sha256=value.sha256,
        page_count=value.page_count,
        searchable_pages=value.searchable_pages,
    )
    message.create_time.FromDatetime(value.create_time)
    message.retention = _RETENTION[value.term.retention]
    message.expire_time.FromDatetime(value.term.expire_time)
    return message


def retention(value: document_pb2.Retention.ValueType) -> Retention | None:
    """How long something is to be kept; None where it is not said."""
    return next((ours for ours, theirs in _RETENTION.items() if theirs == value), None)


def time(message: pb.UploadDocumentRequest | document_pb2.Document) -> dt.datetime | None:
    """The `expire_time` that a message names, in UTC; None where it names none.

    Raises InvalidArgument EXPIRE_TIME_OUT_OF_RANGE where it is none of a calendar.
    """
    if not message.HasField("expire_time"):
        return None
    try:
        return message.expire_time.ToDatetime(dt.UTC)
    except (ValueError, OverflowError) as exc:
        field = "expire_time" if isinstance(message, pb.UploadDocumentRequest) else "document.expire_time"
        text = "The time must be ahead, by at most a year."
        raise InvalidArgument("EXPIRE_TIME_OUT_OF_RANGE", text, fields=[FieldViolation(field, text)]) from exc


def change(request: pb.UpdateDocumentRequest) -> Change:
    """What an update asks for; an empty mask names what is set."""
    document, paths = request.document, request.update_mask.paths
    named = set(paths) or {
        *(["retention"] if document.retention else []),
        *(["expire_time"] if document.HasField("expire_time") else []),
    }
    return Change(
        names_retention="retention" in named,
        names_expire_time="expire_time" in named,
        retention=retention(document.retention),
        expire_time=time(document) if "expire_time" in named else None,
    )


def receipt(value: DeletionReceipt) -> document_pb2.DeletionReceipt:
    """A deletion's receipt."""
    delete_time = Timestamp()
    delete_time.FromDatetime(value.delete_time)
    return document_pb2.DeletionReceipt(
        name=value.name,
        document=value.document,
        sha256=value.sha256,
        size_bytes=value.size_bytes,
        objects_deleted=value.objects_deleted,
        pages_deleted=value.pages_deleted,
        index_entries_deleted=value.index_entries_deleted,
        results_deleted=value.results_deleted,
        cause=value.cause.value,
        delete_time=delete_time,
        digest=value.digest,
    )


def extraction(tenant: str, request: pb.ExtractPagesRequest) -> Extraction:
    """What is asked for; an empty mask means text and blocks."""
    parts = Part(0)
    for path in request.read_mask.paths:
        parts |= _PART[path]
    return Extraction(
        tenant,
        request.name,
        request.first_page,
        request.last_page,
        parts or _DEFAULT_PARTS,
        ocr=_OCR.get(request.ocr, OcrMode.AUTO),
        password=request.password,
    )


def _told(value: ExtractionStart | FailedPage | ExtractionEnd, parts: Part) -> pb.ExtractPagesResponse | bytes:
    if isinstance(value, ExtractionEnd):
        return _end(value)
    if isinstance(value, FailedPage):
        failed = extraction_pb2.FailedPage(number=value.number, reason=value.fault, message=_FAILED_PAGE[value.fault])
        return pb.ExtractPagesResponse(failed_page=failed)
    if not parts & DOCUMENT_PARTS:
        return _start(value.page_count, value.first_page, value.last_page, value.flags)
    start = extraction_pb2.ExtractionStart.FromString(value.info)
    start.page_count, start.first_page, start.last_page = value.page_count, value.first_page, value.last_page
    start.flags.extend(_flags(value.flags))
    if Part.METADATA not in parts:
        start.ClearField("metadata")
    if Part.OUTLINE not in parts:
        start.ClearField("outline")
    return pb.ExtractPagesResponse(start=start)


# Most documents have a page or a few and are asked for whole: what begins and ends them is the same again and again.
@functools.lru_cache(maxsize=1024)
def _start(page_count: int, first_page: int, last_page: int, flags: DocumentFlag) -> bytes:
    start = extraction_pb2.ExtractionStart(
        page_count=page_count, first_page=first_page, last_page=last_page, flags=_flags(flags)
    )
    return pb.ExtractPagesResponse(start=start).SerializeToString()


@functools.lru_cache(maxsize=1024)
def _end(value: ExtractionEnd) -> bytes:
    end = extraction_pb2.ExtractionEnd(
        pages_sent=value.pages_sent,
        pages_failed=value.pages_failed,
        pages_reused=value.pages_reused,
        flags=_flags(value.flags),
    )
    return pb.ExtractPagesResponse(end=end).SerializeToString()


def messages(events: Sequence[ExtractionEvent], parts: Part) -> Iterator[pb.ExtractPagesResponse | bytes]:
    """A message for each event of an extraction that asks for `parts`. A page that has no others is passed on as it is
    on the wire."""
    plain: Part | None = None
    for value in events:
        if isinstance(value, Page):
            # Pages that come together have the same parts, but for a few.
            if value.parts is plain or not _has_more(value.parts, parts):
                plain = value.parts
                yield _field(_PAGE_TAG, value.content)
            else:
                yield _page(value, parts)
        else:
            yield _told(value, parts)


def bursts(events: Sequence[ExtractionEvent], parts: Part) -> Iterator[bytes]:
    """The same in few messages of about _BURST_BYTES, each made when it is asked for."""
    burst = bytearray()
    for message in messages(events, parts):
        written = message if isinstance(message, bytes) else message.SerializeToString()
        if burst and len(burst) + len(written) > _BURST_BYTES:
            yield _field(_BURST_TAG, burst)
            burst = bytearray()
        burst += _field(_EVENT_TAG, written)
    yield _field(_BURST_TAG, burst)


def _field(tag: bytes, content: bytes | bytearray) -> bytes:
    """As protobuf writes a field that has a length."""
    return b"".join((tag, _varint(len(content)), content))


def _tag(number: int) -> bytes:
    return bytes([number << 3 | 2])


def _flags(value: DocumentFlag) -> list[extraction_pb2.DocumentFlag.ValueType]:
    return [number for flag, number in _FLAG.items() if flag in value] if value else []


@functools.lru_cache(maxsize=4096)
def _has_more(parts: Part, asked: Part) -> bool:
    """Whether a page with these parts may have others than were asked for."""
    return not parts or bool(parts & _FILLED & ~asked)


def _page(value: Page, parts: Part) -> pb.ExtractPagesResponse:
    response = pb.ExtractPagesResponse(page=page_pb2.Page.FromString(value.content))
    for name in _FIELDS:
        if _PART[name] not in parts:
            response.page.ClearField(name)
    return response


_PAGE_TAG = _tag(pb.ExtractPagesResponse.PAGE_FIELD_NUMBER)
"""What stands before a page in an ExtractPagesResponse on the wire: its field, and that a length follows."""
_BURST_TAG = _tag(pb.ExtractPagesResponse.BURST_FIELD_NUMBER)
_EVENT_TAG = _tag(pb.ExtractionBurst.EVENTS_FIELD_NUMBER)


@functools.lru_cache(maxsize=16_384)
def _varint(value: int) -> bytes:
    """As protobuf writes a length."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
