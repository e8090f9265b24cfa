"""What is drawn on a page, as boxes in the order of drawing, without looking at a pixel: MuPDF's `bboxlog`."""

from collections import Counter
from collections.abc import Sequence

from services.extractor.adapters.mupdf_import import pymupdf

Rect = tuple[float, float, float, float]
Drawn = Sequence[tuple[str, Rect]]

MOST_PATHS = 5_000
"""A page with more is a map or a drawing, in which nobody looks for tables or for what lies behind a word."""
_RULE_PT = 3.0
_RULE_LENGTH_PT = 15.0
_CELLS = 4


def drawn_on(page: pymupdf.Page) -> Drawn:
    """What is drawn and where, with the page's rotation undone, as text boxes are."""
    drawn: Drawn = page.get_bboxlog()
    return drawn


def is_blank(drawn: Drawn) -> bool:
    """Whether nothing is drawn."""
    return not any(x1 > x0 or y1 > y0 for _, (x0, y0, x1, y1) in drawn)


def may_hold_tables(drawn: Drawn) -> bool:
    """Whether lines or boxes are drawn that could be those of a table: lines of the same extent below each other and
    beside each other, or boxes in rows and columns."""
    across, down = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    boxes: set[tuple[int, int, int, int]] = set()
    paths = 0
    for kind, (x0, y0, x1, y1) in drawn:
        if kind not in ("fill-path", "stroke-path"):
            continue
        paths += 1
        width, height = x1 - x0, y1 - y0
        if height <= _RULE_PT and width >= _RULE_LENGTH_PT:
            across[_grid(x0), _grid(x1)] += 1
        elif width <= _RULE_PT and height >= _RULE_LENGTH_PT / 2:
            down[_grid(y0), _grid(y1)] += 1
        elif width >= _RULE_LENGTH_PT and height >= _RULE_LENGTH_PT / 2:
            boxes.add((_grid(x0), _grid(y0), _grid(x1), _grid(y1)))
    if paths > MOST_PATHS:
        return False
    # Two of each are a frame.
    has_lines = max(across.values(), default=0) > 2 and max(down.values(), default=0) > 1
    return has_lines or _are_cells(boxes)


def _are_cells(boxes: set[tuple[int, int, int, int]]) -> bool:
    """Whether there are four boxes of which each has one of its height beside it and one of its width below it."""
    columns = Counter((x0, x1) for x0, _, x1, _ in boxes)
    rows = Counter((y0, y1) for _, y0, _, y1 in boxes)
    return sum(columns[x0, x1] > 1 and rows[y0, y1] > 1 for x0, y0, x1, y1 in boxes) >= _CELLS


def _grid(value: float) -> int:
    return round(value / _RULE_PT)
