"""The bounds of pagemesh/common/v1/page.proto and of ExtractionStart: kept by parser processes, and checked by the
service, which does not trust them."""

import math
from collections.abc import Iterable

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2

MAX_TEXT_CHARS = 4_000_000
MAX_BLOCK_CHARS = 1_000_000
MAX_BLOCKS = 100_000
MAX_WORD_CHARS = 10_000
MAX_WORDS = 50_000
"""Ten dense pages of a newspaper do not have so many."""
MAX_TABLES = 1_000
MAX_TABLE_ROWS = 10_000
MAX_TABLE_COLUMNS = 1_000
MAX_CELL_CHARS = 100_000
MAX_IMAGES = 10_000
MAX_LINKS = 10_000
MAX_URI_CHARS = 8_192
MAX_OUTLINE = 10_000
MAX_OUTLINE_LEVEL = 64
MAX_METADATA_CHARS = 2_000
MAX_FORMAT_CHARS = 200
_SECONDS = (-62_135_596_800, 253_402_300_799)
"""What a timestamp may say: from the year 1 to 9999."""
_FLAGS = frozenset(
    (
        page_pb2.PAGE_FLAG_NO_TEXT,
        page_pb2.PAGE_FLAG_TRUNCATED,
        page_pb2.PAGE_FLAG_HIDDEN_TEXT,
        page_pb2.PAGE_FLAG_PARTIAL,
        page_pb2.PAGE_FLAG_BLANK,
    )
)
"""Those that a parser can find out."""


def check_page(page: page_pb2.Page, number: int) -> None:
    """Raises ValueError where `page` is not page `number` or not what the contract allows."""
    if page.number != number:
        raise ValueError("another page than it says")
    size = page.width_pt, page.height_pt
    if not (min(size) >= 0 and math.isfinite(sum(size))):
        raise ValueError("a page without a size")
    if len(page.text) > MAX_TEXT_CHARS or len(page.markdown) > MAX_TEXT_CHARS:
        raise ValueError("more than a page may hold")
    flags = page.flags
    if flags and (len(flags) > len(_FLAGS) or not _FLAGS.issuperset(flags)):
        raise ValueError("a flag that there is not")
    if page.language:
        raise ValueError("a language, which no parser guesses")
    # Most pages have none of these, and to look is a fifth of what it costs to find nothing wrong with nothing.
    if page.blocks:
        _check_blocks(page)
    if page.words:
        _check_words(page)
    if page.tables:
        _check_tables(page)
    if page.images or page.links:
        _check_placed(page)


def check_info(info: bytes) -> None:
    """Raises ValueError or DecodeError where `info` is no ExtractionStart of metadata and outline alone, or not what
    the contract allows."""
    start = extraction_pb2.ExtractionStart.FromString(info)
    if any(field.name not in ("metadata", "outline") for field, _ in start.ListFields()):
        raise ValueError("more than a document says of itself")
    metadata = start.metadata
    texts = (metadata.title, metadata.author, metadata.subject, metadata.keywords, metadata.creator, metadata.producer)
    if max(map(len, texts)) > MAX_METADATA_CHARS or len(metadata.format) > MAX_FORMAT_CHARS:
        raise ValueError("metadata that is too long")
    for time in (metadata.document_create_time, metadata.document_update_time):
        if not _SECONDS[0] <= time.seconds <= _SECONDS[1] or not 0 <= time.nanos < 1_000_000_000:
            raise ValueError("a time of no calendar")
    if len(start.outline) > MAX_OUTLINE:
        raise ValueError("an outline that is too long")
    for item in start.outline:
        if not 1 <= item.level <= MAX_OUTLINE_LEVEL or item.page < 0 or len(item.title) > MAX_METADATA_CHARS:
            raise ValueError("no entry of an outline")


def _check_blocks(page: page_pb2.Page) -> None:
    if len(page.blocks) > MAX_BLOCKS:
        raise ValueError("more than a page may hold")
    _check_items(page.blocks, MAX_BLOCK_CHARS)


def _check_words(page: page_pb2.Page) -> None:
    if len(page.words) > MAX_WORDS:
        raise ValueError("more than a page may hold")
    _check_items(page.words, MAX_WORD_CHARS)
    if any(word.block < 0 or word.line < 0 for word in page.words):
        raise ValueError("a word in no line")


def _check_items(items: Iterable[page_pb2.Block | page_pb2.Word], max_chars: int) -> None:
    for item in items:
        if len(item.text) > max_chars or not _is_somewhere(item.box):
            raise ValueError("text that is too long, or a box that is nowhere")


def _is_somewhere(box: page_pb2.BoundingBox) -> bool:
    # A sum of four floats of 32 bits is a finite double exactly where all of them are finite.
    return math.isfinite(box.x0 + box.y0 + box.x1 + box.y1)


def _check_tables(page: page_pb2.Page) -> None:
    if len(page.tables) > MAX_TABLES:
        raise ValueError("more tables than a page may hold")
    for table in page.tables:
        widths = {len(row.cells) for row in table.rows}
        if len(table.rows) > MAX_TABLE_ROWS or len(widths) > 1 or max(widths, default=0) > MAX_TABLE_COLUMNS:
            raise ValueError("a table that is too large, or has rows of different lengths")
        if any(len(cell) > MAX_CELL_CHARS for row in table.rows for cell in row.cells):
            raise ValueError("a cell that is too long")
        if not _is_somewhere(table.box):
            raise ValueError("a table that is nowhere")


def _check_placed(page: page_pb2.Page) -> None:
    if len(page.images) > MAX_IMAGES or len(page.links) > MAX_LINKS:
        raise ValueError("more than a page may hold")
    for index, image in enumerate(page.images):
        if image.index != index or image.width_px < 0 or image.height_px < 0 or not _is_somewhere(image.box):
            raise ValueError("no image of the page")
    for link in page.links:
        target = link.WhichOneof("target")
        if target is None or (target == "page" and link.page < 1) or len(link.uri) > MAX_URI_CHARS:
            raise ValueError("a link to nowhere")
        if not _is_somewhere(link.box):
            raise ValueError("a link from nowhere")
