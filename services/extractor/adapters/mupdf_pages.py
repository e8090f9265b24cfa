"""MuPDF's page, written as `pagemesh.common.v1.Page` within the contract's bounds."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.markdown_text import safe_uri
from services.extractor.adapters.mupdf_drawn import drawn_on, is_blank, may_hold_tables
from services.extractor.adapters.mupdf_hidden import Hidden, hidden_text
from services.extractor.adapters.mupdf_images import placed_images
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_markdown import FoundTable, markdown_of
from services.extractor.adapters.mupdf_tables import find_tables
from services.extractor.adapters.mupdf_text import plain_text
from services.extractor.adapters.page_bounds import (
    MAX_BLOCK_CHARS,
    MAX_BLOCKS,
    MAX_IMAGES,
    MAX_LINKS,
    MAX_TEXT_CHARS,
    MAX_URI_CHARS,
    MAX_WORD_CHARS,
    MAX_WORDS,
)
from services.extractor.adapters.parser_protocol import MAX_PAGE_BYTES, PartBit

_IMAGE_BLOCK = 1
_FLOAT_MAX = 3.4e38
_INT_MAX = (1 << 31) - 1
Words = list[tuple[Any, ...]]
"""As MuPDF gives them: box, text, block, line, place in the line."""
_DRAWN = PartBit.MARKDOWN | PartBit.TABLES | PartBit.FLAGS
"""Parts for which is looked at what is drawn."""


def text_page(page: pymupdf.Page, number: int, parts: PartBit) -> bytes:
    """The parts of a page that are asked for, at most MAX_PAGE_BYTES, `number` counting from 1."""
    pymupdf.TOOLS.reset_mupdf_warnings()
    out = _frame_of(page, number)
    textpage = page.get_textpage(flags=pymupdf.TEXTFLAGS_TEXT)
    matrix = page.rotation_matrix if parts != PartBit.TEXT and page.rotation else None
    writer = _Writer(out, matrix)
    text = plain_text(textpage.this)
    writer.has_text = bool(text) and not text.isspace()
    if PartBit.TEXT in parts:
        writer.text(text)
    if PartBit.BLOCKS in parts:
        writer.blocks(textpage.extractBLOCKS())
    words = textpage.extractWORDS() if PartBit.WORDS in parts else []
    writer.words(words)
    if parts & _DRAWN:
        _write_drawn(page, textpage, writer, parts, words)
    elif not writer.has_text:
        writer.flag(page_pb2.PAGE_FLAG_BLANK, is_blank(drawn_on(page)))
    _write_placed(page, writer, parts)
    writer.flag(page_pb2.PAGE_FLAG_PARTIAL, was_damaged())
    return writer.finish()


def image_page(page: pymupdf.Page, number: int, parts: PartBit) -> bytes:
    """The page of an image file: its size as it is shown, and the image; the pixels are not decoded."""
    pymupdf.TOOLS.reset_mupdf_warnings()
    writer = _Writer(_frame_of(page, number), None)
    if PartBit.IMAGES in parts:
        writer.images(page)
    writer.flag(page_pb2.PAGE_FLAG_PARTIAL, was_damaged())
    return writer.finish()


def was_damaged() -> bool:
    """Whether MuPDF went on after an error since its messages were last forgotten. What it says stays here."""
    said = pymupdf.TOOLS.mupdf_warnings(reset=True).lower()
    return any(word in said for word in _DAMAGE)


_DAMAGE = (
    "error",
    "ignoring",
    "cannot",
    "broken",
    "corrupt",
    "truncated",
    "premature",
    "invalid",
    "unexpected",
    "too many",
    "not found",
    "missing",
    "unterminated",
)
"""Words of warnings after which something may be absent from the page; others are about how it looks."""


def _write_drawn(
    page: pymupdf.Page, textpage: pymupdf.TextPage, writer: "_Writer", parts: PartBit, words: Words
) -> None:
    drawn = drawn_on(page)
    if not writer.has_text:
        writer.flag(page_pb2.PAGE_FLAG_BLANK, is_blank(drawn))
        return
    tables: Sequence[FoundTable] = ()
    if parts & (PartBit.MARKDOWN | PartBit.TABLES) and may_hold_tables(drawn):
        tables = find_tables(page)
    if PartBit.TABLES in parts:
        writer.tables(tables)
    if not parts & (PartBit.MARKDOWN | PartBit.FLAGS):
        return
    blocks = textpage.extractDICT()["blocks"]
    if PartBit.MARKDOWN in parts:
        links = [(box, safe) for box, uri, _ in _links(page) if (safe := safe_uri(uri))]
        writer.markdown(markdown_of(blocks, matrix=writer.matrix, links=links, tables=tables))
    hidden = hidden_text(page, blocks, drawn)
    writer.flag(page_pb2.PAGE_FLAG_HIDDEN_TEXT, hidden.any)
    if hidden.boxes:
        writer.hide(words, hidden)


def _write_placed(page: pymupdf.Page, writer: "_Writer", parts: PartBit) -> None:
    if PartBit.IMAGES in parts:
        writer.images(page)
    if PartBit.LINKS in parts:
        writer.links(page)


def _links(page: pymupdf.Page) -> Iterator[tuple[tuple[float, float, float, float], str, int]]:
    """Where each link is on the page as it is shown, and its address or the number of its page."""
    document = page.parent
    link = pymupdf.mupdf.fz_load_links(pymupdf._as_fz_page(page.this))
    for _ in range(MAX_LINKS + 1):
        if not link.m_internal:
            return
        rect, uri = link.m_internal.rect, link.m_internal.uri or ""
        box = rect.x0, rect.y0, rect.x1, rect.y1
        if pymupdf.mupdf.fz_is_external_link(uri):
            yield box, uri, 0
        else:
            location, _, _ = pymupdf.mupdf.fz_resolve_link(document.this, uri)
            yield box, "", pymupdf.mupdf.fz_page_number_from_location(document.this, location) + 1
        link = link.next()


def _frame_of(page: pymupdf.Page, number: int) -> page_pb2.Page:
    rect = page.rect
    return page_pb2.Page(number=number, width_pt=max(_finite(rect.width), 0), height_pt=max(_finite(rect.height), 0))


class _Writer:
    """Fills a page until a bound is reached. What does not fit is cut off and the page is flagged."""

    def __init__(self, out: page_pb2.Page, matrix: pymupdf.Matrix | None) -> None:
        self._out = out
        self.matrix = matrix
        """How boxes are turned."""
        self._left_bytes = MAX_PAGE_BYTES - 1024  # the rest of the message
        self._truncated = False
        self.has_text = False

    def text(self, text: str) -> None:
        self._out.text = self._bounded(text, MAX_TEXT_CHARS)

    def markdown(self, text: str) -> None:
        self._out.markdown = self._bounded(text, MAX_TEXT_CHARS)

    def blocks(self, blocks: list[tuple[Any, ...]]) -> None:
        for x0, y0, x1, y1, text, _, kind in blocks[:MAX_BLOCKS]:
            kept = "" if kind == _IMAGE_BLOCK else self._bounded(text, MAX_BLOCK_CHARS)
            if not self._take(40):
                return
            self._out.blocks.add(box=self._box(x0, y0, x1, y1), text=kept)
        self._truncated |= len(blocks) > MAX_BLOCKS

    def words(self, words: Words) -> None:
        for x0, y0, x1, y1, text, block, line, _ in words[:MAX_WORDS]:
            kept = self._bounded(text, MAX_WORD_CHARS)
            if not self._take(48):
                return
            self._out.words.add(text=kept, box=self._box(x0, y0, x1, y1), block=block, line=line)
        self._truncated |= len(words) > MAX_WORDS

    def hide(self, words: Words, hidden: Hidden) -> None:
        """Marks those of the words that are written which nobody sees."""
        for written, (x0, y0, x1, y1, _, block, line, _) in zip(self._out.words, words, strict=False):
            if hidden.holds(block, line, (x0, y0, x1, y1)):
                written.hidden = True

    def tables(self, tables: Sequence[FoundTable]) -> None:
        for table in tables:
            if not self._take(48 + sum(8 + 4 * len(row) for row in table.rows)):
                return
            added = self._out.tables.add(box=_box(*table.box))
            for row in table.rows:
                added.rows.add(cells=[self._bounded(text, MAX_TEXT_CHARS) for text in row])

    def images(self, page: pymupdf.Page) -> None:
        for index, (image, matrix) in enumerate(itertools.islice(placed_images(page), MAX_IMAGES + 1)):
            if index == MAX_IMAGES or not self._take(56):
                self._truncated = True
                return
            rect = pymupdf.Rect(0, 0, 1, 1) * pymupdf.Matrix(matrix)
            width, height = min(image.w(), _INT_MAX), min(image.h(), _INT_MAX)
            self._out.images.add(index=index, box=self._box(*rect), width_px=width, height_px=height)

    def links(self, page: pymupdf.Page) -> None:
        for box, uri, number in _links(page):
            if len(self._out.links) == MAX_LINKS:
                self._truncated = True
                return
            if len(uri) > MAX_URI_CHARS or not (uri or 1 <= number <= _INT_MAX):
                continue  # an address that long leads nowhere
            kept = self._bounded(uri, MAX_URI_CHARS)
            if not self._take(40):
                return
            if uri:
                self._out.links.add(box=_box(*box), uri=kept)
            else:
                self._out.links.add(box=_box(*box), page=number)

    def flag(self, flag: page_pb2.PageFlag.ValueType, holds: bool) -> None:
        if holds:
            self._out.flags.append(flag)

    def finish(self) -> bytes:
        self.flag(page_pb2.PAGE_FLAG_NO_TEXT, not self.has_text)
        self.flag(page_pb2.PAGE_FLAG_TRUNCATED, self._truncated)
        return self._out.SerializeToString()

    def _bounded(self, text: str, max_chars: int) -> str:
        """`text`, cut to what is allowed and what is left; code points that UTF-8 cannot carry become `?`."""
        if len(text) > max_chars:
            self._truncated = True
            text = text[:max_chars]
        encoded = text.encode("utf-8", "replace")
        if len(encoded) > self._left_bytes:
            self._truncated = True
            encoded = encoded[: max(self._left_bytes, 0)]
        self._left_bytes -= len(encoded)
        return encoded.decode("utf-8", "ignore")

    def _take(self, size_bytes: int) -> bool:
        self._left_bytes -= size_bytes
        if self._left_bytes <= 0:
            self._truncated = True
        return self._left_bytes > 0

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> page_pb2.BoundingBox:
        if self.matrix is not None:
            shown = pymupdf.Rect(x0, y0, x1, y1) * self.matrix
            x0, y0, x1, y1 = shown.x0, shown.y0, shown.x1, shown.y1
        return _box(x0, y0, x1, y1)


def _box(x0: float, y0: float, x1: float, y1: float) -> page_pb2.BoundingBox:
    x0, y0, x1, y1 = _finite(x0), _finite(y0), _finite(x1), _finite(y1)
    return page_pb2.BoundingBox(x0=min(x0, x1), y0=min(y0, y1), x1=max(x0, x1), y1=max(y0, y1))


def _finite(value: float) -> float:
    return value if math.isfinite(value) and abs(value) < _FLOAT_MAX else 0.0
