"""The ports about pictures in memory; see memory.py."""

import datetime as dt
import os
import struct
import zlib

from services.extractor.adapters.memory import MemoryDocuments
from services.extractor.domain.drawn import KEPT_FOR, MAX_TENANT_BYTES, MIN_WEIGHT_BYTES, DrawnKey
from services.extractor.domain.pages import DocumentFault, FailedPage, Picture, PictureFormat, Refused
from services.extractor.domain.pictures import no_such_image, no_such_page
from services.extractor.domain.ports import PictureTask

_PAGE_INCHES = (8.5, 11.0)


class MemoryPictureParser:
    """Implements `PictureParser` for the format of `MemoryParser`: a page is a white sheet, and carries no image."""

    async def picture(self, task: PictureTask) -> Picture | Refused | FailedPage:
        """See the port."""
        size_bytes = os.fstat(task.file.fileno()).st_size
        text = os.pread(task.file.fileno(), size_bytes, 0).removeprefix(b"%PDF-")
        page_count = len(text.split(b"\f")) if text else 0
        if not page_count:
            return Refused(DocumentFault.NO_PAGES)
        if task.page > page_count:
            raise no_such_page(page_count)
        if task.index is not None:
            raise no_such_image(0)
        dpi = min(task.dpi, task.max_side_px / max(_PAGE_INCHES))
        width_px, height_px = (max(1, round(inches * dpi)) for inches in _PAGE_INCHES)
        return Picture(task.format, width_px, height_px, _WHITE[task.format](width_px, height_px))


class MemoryDrawnPages:
    """Implements `DrawnPages`."""

    def __init__(self, documents: MemoryDocuments) -> None:
        self._documents = documents
        self._kept: dict[DrawnKey, tuple[object, dt.datetime, Picture]] = {}
        """With the row that they go with."""

    async def get(self, key: DrawnKey) -> Picture | None:
        """See the port."""
        row, _, picture = self._kept.get(key, (None, None, None))
        return picture if row is not None and row is self._row_of(key) else None

    async def keep(self, key: DrawnKey, picture: Picture, *, now: dt.datetime) -> None:
        """See the port."""
        self._kept.pop(key, None)
        self._kept[key] = (self._row_of(key), now, picture)
        total = 0
        for other, (_, _, kept) in reversed(tuple(self._kept.items())):
            total += max(len(kept.content), MIN_WEIGHT_BYTES) if other.tenant == key.tenant else 0
            if other.tenant == key.tenant and total > MAX_TENANT_BYTES:
                del self._kept[other]

    async def expire(self, *, now: dt.datetime, limit: int) -> int:
        """See the port."""
        old = [key for key, (_, time, _) in self._kept.items() if time <= now - KEPT_FOR][:limit]
        for key in old:
            del self._kept[key]
        return len(old)

    def _row_of(self, key: DrawnKey) -> object:
        return self._documents._alive((key.tenant, key.document_id))


def _white_png(width_px: int, height_px: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width_px, height_px, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff" * width_px) * height_px)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _jpeg_head(width_px: int, height_px: int) -> bytes:
    """As far as its size; nobody looks at more of it."""
    frame = struct.pack(">HBHHBBBB", 11, 8, height_px, width_px, 1, 1, 0x11, 0)
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9"


def _white_gray(width_px: int, height_px: int) -> bytes:
    return b"\xff" * (width_px * height_px)


_WHITE = {PictureFormat.PNG: _white_png, PictureFormat.JPEG: _jpeg_head, PictureFormat.GRAY: _white_gray}
