"""MuPDF's page, written as `pagemesh.common.v1.Page` within the contract's bounds."""

import math
from typing import Any

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.page_bounds import (
    MAX_BLOCK_CHARS,
    MAX_BLOCKS,
    MAX_TEXT_CHARS,
    MAX_WORD_CHARS,
    MAX_WORDS,
)
from services.extractor.adapters.parser_protocol import MAX_PAGE_BYTES, PartBit

_IMAGE_BLOCK = 1
_FLOAT_MAX = 3.4e38


def text_page(page: pymupdf.Page, number: int, parts: PartBit) -> bytes:
    """The parts of a page that are asked for, at most MAX_PAGE_BYTES, `number` counting from 1."""
    out = _frame_of(page, number)
    textpage = page.get_textpage(flags=pymupdf.TEXTFLAGS_TEXT)
    matrix = page.rotation_matrix if parts != PartBit.TEXT and page.rotation else None
    writer = _Writer(out, matrix)
    if PartBit.TEXT in parts:
        writer.text(textpage.extractText())
    if PartBit.BLOCKS in parts:
        writer.blocks(textpage.extractBLOCKS())
    if PartBit.WORDS in parts:
        writer.words(textpage.extractWORDS())
    return writer.finish()


def image_page(page: pymupdf.Page, number: int) -> bytes:
    """The page of an image file: its size and nothing else; the pixels are not decoded."""
    out = _frame_of(page, number)
    out.flags.append(page_pb2.PAGE_FLAG_NO_TEXT)
    return out.SerializeToString()


def _frame_of(page: pymupdf.Page, number: int) -> page_pb2.Page:
    rect = page.rect
    return page_pb2.Page(number=number, width_pt=max(_finite(rect.width), 0), height_pt=max(_finite(rect.height), 0))


class _Writer:
    """Fills a page until a bound is reached. What does not fit is cut off and the page is flagged."""

    def __init__(self, out: page_pb2.Page, matrix: pymupdf.Matrix | None) -> None:
        self._out = out
        self._matrix = matrix
        self._left_bytes = MAX_PAGE_BYTES - 1024  # the rest of the message
        self._truncated = False
        self._has_text = False

    def text(self, text: str) -> None:
        self._out.text = self._bounded(text, MAX_TEXT_CHARS)
        self._has_text |= bool(text) and not text.isspace()

    def blocks(self, blocks: list[tuple[Any, ...]]) -> None:
        for x0, y0, x1, y1, text, _, kind in blocks[:MAX_BLOCKS]:
            kept = "" if kind == _IMAGE_BLOCK else self._bounded(text, MAX_BLOCK_CHARS)
            if not self._take(40):
                return
            self._out.blocks.add(box=self._box(x0, y0, x1, y1), text=kept)
            self._has_text |= bool(kept) and not kept.isspace()
        self._truncated |= len(blocks) > MAX_BLOCKS

    def words(self, words: list[tuple[Any, ...]]) -> None:
        for x0, y0, x1, y1, text, block, line, _ in words[:MAX_WORDS]:
            kept = self._bounded(text, MAX_WORD_CHARS)
            if not self._take(48):
                return
            self._out.words.add(text=kept, box=self._box(x0, y0, x1, y1), block=block, line=line)
            self._has_text = True
        self._truncated |= len(words) > MAX_WORDS

    def finish(self) -> bytes:
        if not self._has_text:
            self._out.flags.append(page_pb2.PAGE_FLAG_NO_TEXT)
        if self._truncated:
            self._out.flags.append(page_pb2.PAGE_FLAG_TRUNCATED)
        return self._out.SerializeToString()

    def _bounded(self, text: str, max_chars: int) -> str:
        """`text`, cut to what is allowed and what is left; code points that UTF-8 cannot carry become `?`."""
        if len(text) > max_chars:
            self._truncated = True
            text = text[:max_chars]
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > self._left_bytes:
            self._truncated = True
            encoded = encoded[: self._left_bytes]
        self._left_bytes -= len(encoded)
        return encoded.decode("utf-8", "ignore")

    def _take(self, size_bytes: int) -> bool:
        self._left_bytes -= size_bytes
        if self._left_bytes <= 0:
            self._truncated = True
        return self._left_bytes > 0

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> page_pb2.BoundingBox:
        if self._matrix is not None:
            shown = pymupdf.Rect(x0, y0, x1, y1) * self._matrix
            x0, y0, x1, y1 = shown.x0, shown.y0, shown.x1, shown.y1
        x0, y0, x1, y1 = _finite(x0), _finite(y0), _finite(x1), _finite(y1)
        return page_pb2.BoundingBox(x0=min(x0, x1), y0=min(y0, y1), x1=max(x0, x1), y1=max(y0, y1))


def _finite(value: float) -> float:
    return value if math.isfinite(value) and abs(value) < _FLOAT_MAX else 0.0
