"""What a document says of itself, as `pagemesh.extractor.v1.ExtractionStart` within the contract's bounds."""

import datetime as dt
import re
from collections.abc import Iterator

from pagemesh.extractor.v1 import extraction_pb2
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.page_bounds import (
    MAX_FORMAT_CHARS,
    MAX_METADATA_CHARS,
    MAX_OUTLINE,
    MAX_OUTLINE_LEVEL,
)
from services.extractor.adapters.parser_protocol import MAX_INFO_BYTES, PartBit

_DATE = re.compile(r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:(Z)|([+-])(\d\d)'?(\d\d)?)?")
_FIELDS = ("title", "author", "subject", "keywords", "creator", "producer")
_ENTRY_BYTES = 24
_MOST_LOOKED_AT = 4 * MAX_OUTLINE
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def document_info(document: pymupdf.Document, parts: PartBit) -> bytes:
    """Metadata and outline as far as they are asked for, at most MAX_INFO_BYTES; nothing where neither is."""
    if not parts & (PartBit.METADATA | PartBit.OUTLINE):
        return b""
    start = extraction_pb2.ExtractionStart()
    if PartBit.METADATA in parts:
        start.metadata.SetInParent()
        _write_metadata(document, start.metadata)
    if PartBit.OUTLINE in parts:
        left = MAX_INFO_BYTES - 64 * 1024
        for level, title, page in _entries(document):
            left -= len(title.encode()) + _ENTRY_BYTES
            if left < 0 or len(start.outline) == MAX_OUTLINE:
                break
            start.outline.add(level=level, title=title, page=page)
    return start.SerializeToString()


def is_encrypted(document: pymupdf.Document) -> bool:
    """Whether the file is, whether or not it has been opened."""
    return (_metadata(document, "encryption") or "None") != "None"


def _write_metadata(document: pymupdf.Document, out: extraction_pb2.DocumentMetadata) -> None:
    for name in _FIELDS:
        setattr(out, name, _text(_metadata(document, f"info:{name.capitalize()}"), MAX_METADATA_CHARS))
    out.format = _text(_metadata(document, "format"), MAX_FORMAT_CHARS)
    for key, time in (("CreationDate", out.document_create_time), ("ModDate", out.document_update_time)):
        read = _time(_metadata(document, f"info:{key}"))
        if read is not None:
            time.FromDatetime(read)


def _metadata(document: pymupdf.Document, key: str) -> str | None:
    found: str | None = document._getMetadata(key)
    return found


def _text(value: str | None, max_chars: int) -> str:
    """One line without control characters that UTF-8 can carry."""
    text = _CONTROL.sub(" ", (value or "")[: 4 * max_chars]).strip()[:max_chars]
    return text.encode("utf-8", "replace").decode()


def _time(value: str | None) -> dt.datetime | None:
    """A PDF's date in UTC (ISO 32000-2, 7.9.4), where it is one. Without a zone it is taken as UTC."""
    found = _DATE.match((value or "").strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (
        int(part or least) for part, least in zip(found.groups(), _LEAST, strict=False)
    )
    offset = dt.timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    try:
        local = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
        return local - offset if found[8] == "+" else local + offset
    except (ValueError, OverflowError):
        return None


_LEAST = (1, 1, 1, 0, 0, 0)


def _entries(document: pymupdf.Document) -> Iterator[tuple[int, str, int]]:
    """Level, title and page of each entry, in order. What is nested deeper than the contract allows stays at its
    deepest level."""
    page_count = document.page_count
    waiting = [(document.outline, 1)]
    looked_at = 0
    while waiting and looked_at < _MOST_LOOKED_AT:
        entry, level = waiting.pop()
        if entry is None or entry.this.m_internal is None:
            continue
        looked_at += 1
        page = entry.page if not entry.is_external else -1
        yield level, _text(entry.title, MAX_METADATA_CHARS), page + 1 if 0 <= page < page_count else 0
        waiting.append((entry.next, level))
        waiting.append((entry.down, min(level + 1, MAX_OUTLINE_LEVEL)))
