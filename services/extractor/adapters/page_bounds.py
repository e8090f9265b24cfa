"""The bounds of pagemesh/common/v1/page.proto: kept by parser processes, and checked by the service, which does not
trust them."""

import math
from collections.abc import Iterable

from pagemesh.common.v1 import page_pb2

MAX_TEXT_CHARS = 4_000_000
MAX_BLOCK_CHARS = 1_000_000
MAX_BLOCKS = 100_000
MAX_WORD_CHARS = 10_000
MAX_WORDS = 50_000
"""The contract would allow four times as many. Ten dense pages of a newspaper do not have so many, and a page of so
many is checked by the service in 50 ms."""
_FLAGS = frozenset((page_pb2.PAGE_FLAG_NO_TEXT, page_pb2.PAGE_FLAG_TRUNCATED))


def check_page(page: page_pb2.Page, number: int) -> None:
    """Raises ValueError where `page` is not page `number` or not what the contract allows."""
    if page.number != number:
        raise ValueError("another page than it says")
    if not (math.isfinite(page.width_pt + page.height_pt) and page.width_pt >= 0 and page.height_pt >= 0):
        raise ValueError("a page without a size")
    if len(page.text) > MAX_TEXT_CHARS or len(page.blocks) > MAX_BLOCKS or len(page.words) > MAX_WORDS:
        raise ValueError("more than a page may hold")
    if len(page.flags) > len(_FLAGS) or not _FLAGS.issuperset(page.flags):
        raise ValueError("a flag that there is not")
    _check_items(page.blocks, MAX_BLOCK_CHARS)
    _check_items(page.words, MAX_WORD_CHARS)
    if any(word.block < 0 or word.line < 0 for word in page.words):
        raise ValueError("a word in no line")


def _check_items(items: Iterable[page_pb2.Block | page_pb2.Word], max_chars: int) -> None:
    for item in items:
        box = item.box
        # A sum of four floats of 32 bits is a finite double exactly where all of them are finite.
        if len(item.text) > max_chars or not math.isfinite(box.x0 + box.y0 + box.x1 + box.y1):
            raise ValueError("text that is too long, or a box that is nowhere")
