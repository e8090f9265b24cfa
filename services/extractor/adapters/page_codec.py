"""Pages as they are stored: one zstd frame with its checksum for all pages of a segment.

Inside, each page is a head (number, flags, fault, length) and its bytes on the wire, one after the other.
"""

import struct
import threading
from collections.abc import Sequence

import zstandard

from services.extractor.domain.pages import FailedPage, Page, PageFault, PageFlag, Part

FORMAT = 1
"""Written beside each payload. What is written in another way gets another number."""
LEVEL = 3
MAX_SEGMENT_BYTES = 64 * 1024 * 1024

_HEAD = struct.Struct("<IHBI")
_FLAG_BITS = {
    PageFlag.NO_TEXT: 1,
    PageFlag.TRUNCATED: 2,
    PageFlag.OCR: 4,
    PageFlag.HIDDEN_TEXT: 8,
    PageFlag.PARTIAL: 16,
    PageFlag.BLANK: 32,
}
_FAULT_CODES = {PageFault.CORRUPT: 1, PageFault.TIMEOUT: 2, PageFault.MEMORY: 3, PageFault.CRASHED: 4}
_FAULTS = {code: fault for fault, code in _FAULT_CODES.items()}
_FLAGS = [
    PageFlag(sum(flag.value for flag, bit in _FLAG_BITS.items() if bits & bit)) for bits in range(1 << len(_FLAG_BITS))
]
_BITS = {flags: bits for bits, flags in enumerate(_FLAGS)}


class _Tools(threading.local):
    """A compressor and a decompressor for each thread: neither may be shared."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_tools = _Tools()


def encode(pages: Sequence[Page | FailedPage]) -> bytes:
    """The payload of a segment. For threads where there is much of it."""
    pieces: list[bytes] = []
    for page in pages:
        if isinstance(page, Page):
            pieces += (_HEAD.pack(page.number, _BITS[page.flags], 0, len(page.content)), page.content)
        else:
            pieces.append(_HEAD.pack(page.number, 0, _FAULT_CODES[page.fault], 0))
    return _tools.compressor.compress(b"".join(pieces))


def decode(payload: bytes, *, parts: Part) -> list[Page | FailedPage]:
    """Its pages, with `parts`. Raises ValueError where it is damaged."""
    try:
        if zstandard.frame_content_size(payload) > MAX_SEGMENT_BYTES:
            raise ValueError("a segment that is too large")
        data = _tools.decompressor.decompress(payload, max_output_size=MAX_SEGMENT_BYTES)
        return _pages(data, parts)
    except (zstandard.ZstdError, struct.error, KeyError, IndexError) as exc:
        raise ValueError("a segment that does not read") from exc


def _pages(data: bytes, parts: Part) -> list[Page | FailedPage]:
    pages: list[Page | FailedPage] = []
    at = 0
    while at < len(data):
        number, flags, fault, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + length > len(data):
            raise ValueError("a segment that ends too early")
        if fault:
            pages.append(FailedPage(number, _FAULTS[fault]))
        else:
            pages.append(Page(number, data[at : at + length], _FLAGS[flags], parts))
        at += length
    return pages
