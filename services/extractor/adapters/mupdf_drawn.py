"""What is drawn on a page, as boxes in the order of drawing, without looking at a pixel: MuPDF's `bboxlog`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.extractor.adapters.mupdf_import import pymupdf

Rect = tuple[float, float, float, float]
Drawn = Sequence[tuple[str, Rect]]

_FILLED = pymupdf.mupdf.FZ_STEXT_FILLED
_STROKED = pymupdf.mupdf.FZ_STEXT_STROKED
_CLIPPED = pymupdf.mupdf.FZ_STEXT_CLIPPED
_LEAST_SIZE_PT = 1.0
_MOST_PATHS = 5_000
"""A page with more is a map or a drawing, in which nobody looks for tables or for what lies behind a word."""
_RULE_PT = 3.0
_RULE_LENGTH_PT = 15.0
_CELLS = 4
_BACKGROUND_PT = 4.0
"""An area behind a word is at least so high and wide."""
_SAME_COLOUR = 12
"""How far two colours may be apart, of 255, in each of their parts and be told apart by nobody."""
_OUTSIDE_PT = 1.0


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
    if paths > _MOST_PATHS:
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


def has_hidden_text(page: pymupdf.Page, blocks: Sequence[Mapping[str, Any]], drawn: Drawn) -> bool:
    """Whether the page carries text that nobody sees. `blocks` are those of `dict`."""
    if any(_is_unseen_text(kind, box, page) for kind, box in drawn):
        return True
    visible = []
    for span in _spans(blocks):
        if _is_unseen(span):
            return True
        visible.append(span)
    return _is_lost_in_background(page, visible, drawn)


def _spans(blocks: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for block in blocks:
        for line in block.get("lines", ()):
            for span in line["spans"]:
                if not span["text"].isspace() and span["text"]:
                    yield span


def _is_unseen_text(kind: str, box: Rect, page: pymupdf.Page) -> bool:
    """Text that is drawn outside of the page."""
    if kind not in ("fill-text", "stroke-text"):
        return False
    x0, y0, x1, y1 = box
    shown = page.rect
    width, height = (shown.height, shown.width) if page.rotation in (90, 270) else (shown.width, shown.height)
    outside = x1 < -_OUTSIDE_PT or y1 < -_OUTSIDE_PT or x0 > width + _OUTSIDE_PT or y0 > height + _OUTSIDE_PT
    return outside and x1 > x0 and y1 > y0


def _is_unseen(span: Mapping[str, Any]) -> bool:
    """Text that is not painted, or as good as not: render mode 3, transparent, tiny."""
    painted = span["char_flags"] & (_FILLED | _STROKED)
    if not painted:
        return not span["char_flags"] & _CLIPPED
    return bool((span["alpha"] == 0 and not span["char_flags"] & _CLIPPED) or span["size"] < _LEAST_SIZE_PT)


def _is_lost_in_background(page: pymupdf.Page, spans: Sequence[Mapping[str, Any]], drawn: Drawn) -> bool:
    """Text in the colour of what is behind it, which is the page's white or the last area that was filled there. Text
    on an image or a shade is taken to be seen."""
    areas = [
        box
        for kind, box in drawn
        if kind in ("fill-path", "fill-image", "fill-shade", "fill-imgmask")
        and min(box[2] - box[0], box[3] - box[1]) >= _BACKGROUND_PT
    ]
    if len(areas) > _MOST_PATHS:
        return False
    suspects = [span for span in spans if _near(span["color"], 0xFFFFFF) or any(_holds(box, span) for box in areas)]
    if not suspects:
        return False
    if not areas:
        return True
    pictures = [box for kind, box in drawn if kind in ("fill-image", "fill-shade", "fill-imgmask")]
    fills = [
        (tuple(each["rect"]), _colour(each["fill"]))
        for each in page.get_cdrawings()
        if each.get("fill") is not None and each.get("fill_opacity", 1) > 0.5
    ]
    for span in suspects:
        if any(_holds(box, span) for box in pictures):
            continue
        behind = next((colour for box, colour in reversed(fills) if _holds(box, span)), 0xFFFFFF)
        if _near(span["color"], behind):
            return True
    return False


def _holds(box: Sequence[float], span: Mapping[str, Any]) -> bool:
    x0, y0, x1, y1 = span["bbox"]
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def _colour(parts: Sequence[float]) -> int:
    red, green, blue = (min(max(round(part * 255), 0), 255) for part in parts)
    return red << 16 | green << 8 | blue


def _near(one: int, other: int) -> bool:
    return all(abs((one >> shift & 0xFF) - (other >> shift & 0xFF)) <= _SAME_COLOUR for shift in (0, 8, 16))
