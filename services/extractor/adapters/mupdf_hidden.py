"""Text that a page carries and nobody sees: which it is, so that whoever reads the page can leave it out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.extractor.adapters.mupdf_drawn import MOST_PATHS, Drawn, Rect
from services.extractor.adapters.mupdf_import import pymupdf

_FILLED = pymupdf.mupdf.FZ_STEXT_FILLED
_STROKED = pymupdf.mupdf.FZ_STEXT_STROKED
_CLIPPED = pymupdf.mupdf.FZ_STEXT_CLIPPED
_LEAST_SIZE_PT = 1.0
_BACKGROUND_PT = 4.0
"""An area behind a word is at least so high and wide."""
_SAME_COLOUR = 12
"""How far two colours may be apart, of 255, in each of their parts and be told apart by nobody."""
_OUTSIDE_PT = 1.0
_LAYER_SHARE = 0.8
"""Of a page's letters: where so many are not painted and lie on pictures, they are the text of a scan."""
_PICTURES = ("fill-image", "fill-shade", "fill-imgmask")

Span = Mapping[str, Any]


@dataclass(slots=True)
class Hidden:
    """`any` says whether the page carries text that nobody sees. `boxes` are those of it that is not the text of a
    scan, by block and line as in `dict`."""

    any: bool = False
    boxes: dict[tuple[int, int], list[Rect]] = field(default_factory=dict)

    def holds(self, block: int, line: int, box: Rect) -> bool:
        """Whether a word of that block and line, with that box, is among it."""
        x = (box[0] + box[2]) / 2
        return any(x0 <= x <= x1 for x0, _, x1, _ in self.boxes.get((block, line), ()))


def hidden_text(page: pymupdf.Page, blocks: Sequence[Mapping[str, Any]], drawn: Drawn) -> Hidden:
    """What nobody sees of the text. `blocks` are those of `dict`, with the page's rotation undone."""
    found = Hidden(any=any(_is_drawn_outside(kind, box, page) for kind, box in drawn))
    pictures = [box for kind, box in drawn if kind in _PICTURES]
    visible: list[tuple[tuple[int, int], Span]] = []
    layer: list[tuple[tuple[int, int], Span]] = []
    unseen: list[tuple[tuple[int, int], Span]] = []
    for place, span in _spans(blocks):
        if not _is_unseen(span) and not _is_outside(span["bbox"], page):
            visible.append((place, span))
        elif not _is_painted(span) and any(_holds(box, span) for box in pictures):
            layer.append((place, span))
        else:
            unseen.append((place, span))
    lost = _lost_in_background(page, [span for _, span in visible], drawn)
    unseen += [(place, span) for place, span in visible if id(span) in lost]
    letters = sum(len(span["text"]) for _, span in (*visible, *layer))
    if sum(len(span["text"]) for _, span in layer) < _LAYER_SHARE * letters:
        unseen += layer
    found.any |= bool(unseen or layer)
    for place, span in unseen:
        found.boxes.setdefault(place, []).append(tuple(span["bbox"]))
    return found


def _spans(blocks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[int, int], Span]]:
    for number, block in enumerate(blocks):
        for line_number, line in enumerate(block.get("lines", ())):
            for span in line["spans"]:
                if not span["text"].isspace() and span["text"]:
                    yield (number, line_number), span


def _is_drawn_outside(kind: str, box: Rect, page: pymupdf.Page) -> bool:
    """Text that is drawn outside of the page."""
    x0, y0, x1, y1 = box
    return kind in ("fill-text", "stroke-text") and x1 > x0 and y1 > y0 and _is_outside(box, page)


def _is_outside(box: Sequence[float], page: pymupdf.Page) -> bool:
    x0, y0, x1, y1 = box
    shown = page.rect
    width, height = (shown.height, shown.width) if page.rotation in (90, 270) else (shown.width, shown.height)
    return x1 < -_OUTSIDE_PT or y1 < -_OUTSIDE_PT or x0 > width + _OUTSIDE_PT or y0 > height + _OUTSIDE_PT


def _is_painted(span: Span) -> bool:
    return bool(span["char_flags"] & (_FILLED | _STROKED))


def _is_unseen(span: Span) -> bool:
    """Text that is not painted, or as good as not: render mode 3, transparent, tiny."""
    if not _is_painted(span):
        return not span["char_flags"] & _CLIPPED
    return bool((span["alpha"] == 0 and not span["char_flags"] & _CLIPPED) or span["size"] < _LEAST_SIZE_PT)


def _lost_in_background(page: pymupdf.Page, spans: Sequence[Span], drawn: Drawn) -> frozenset[int]:
    """The ids of those in the colour of what is behind them, which is the page's white or the last area that was filled
    there. Text on an image or a shade is taken to be seen."""
    areas = [
        box
        for kind, box in drawn
        if kind in ("fill-path", *_PICTURES) and min(box[2] - box[0], box[3] - box[1]) >= _BACKGROUND_PT
    ]
    if len(areas) > MOST_PATHS:
        return frozenset()
    suspects = [span for span in spans if _near(span["color"], 0xFFFFFF) or any(_holds(box, span) for box in areas)]
    if not suspects:
        return frozenset()
    pictures = [box for kind, box in drawn if kind in _PICTURES]
    fills: list[tuple[Rect, int]] = []
    if areas:
        fills = [
            (tuple(each["rect"]), _colour(each["fill"]))
            for each in page.get_cdrawings()
            if each.get("fill") is not None and each.get("fill_opacity", 1) > 0.5
        ]
    lost = []
    for span in suspects:
        if any(_holds(box, span) for box in pictures):
            continue
        behind = next((colour for box, colour in reversed(fills) if _holds(box, span)), 0xFFFFFF)
        if _near(span["color"], behind):
            lost.append(id(span))
    return frozenset(lost)


def _holds(box: Sequence[float], span: Span) -> bool:
    x0, y0, x1, y1 = span["bbox"]
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def _colour(parts: Sequence[float]) -> int:
    red, green, blue = (min(max(round(part * 255), 0), 255) for part in parts)
    return red << 16 | green << 8 | blue


def _near(one: int, other: int) -> bool:
    return all(abs((one >> shift & 0xFF) - (other >> shift & 0xFF)) <= _SAME_COLOUR for shift in (0, 8, 16))
