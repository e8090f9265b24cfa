"""The lines of a page as MuPDF's `dict` has them, turned so that they run to the right, in reading order."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from services.extractor.adapters.markdown_text import Run, Style, clean
from services.extractor.adapters.mupdf_import import pymupdf

Rect = tuple[float, float, float, float]
Link = tuple[Rect, str]

_BOLD = pymupdf.TEXT_FONT_BOLD
_ITALIC = pymupdf.TEXT_FONT_ITALIC
_MONO = pymupdf.TEXT_FONT_MONOSPACED

RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_COLUMN_LINES = 3
_COLUMN_WIDTH = 8.0
"""A column has so many lines, and they are so many times longer than high. What is narrower is read row by row."""
_MOST_ACROSS = 0.25
"""Part of the lines that may lie across two columns, as titles do."""
_OVERLAP = 0.3
_CANDIDATES = 8
_NESTED_COLUMNS = 4
_SAME_ROW = 0.5


@dataclass(slots=True)
class Line:
    """A line, or several pieces of one. Coordinates are those of the frame in which it runs to the right."""

    x0: float
    y0: float
    x1: float
    y1: float
    size: float
    runs: list[Run]
    block: int
    is_bold: bool
    is_mono: bool
    text: str


def turned_lines(
    blocks: Sequence[Mapping[str, Any]], matrix: pymupdf.Matrix | None, links: Sequence[Link]
) -> list[list[Line]]:
    """Lines by the way they run on the page as it is shown: first those of the way that most of the text runs."""
    by_turn: dict[int, list[Line]] = {}
    for number, block in enumerate(blocks):
        for line in block.get("lines", ()):
            x, y = line["dir"]
            if matrix is not None:
                x, y = x * matrix.a + y * matrix.c, x * matrix.b + y * matrix.d
            turn = (0 if x > 0 else 2) if abs(x) >= abs(y) else (1 if y > 0 else 3)
            made = _line(line, number, turn, matrix, links)
            if made is not None:
                by_turn.setdefault(turn, []).append(made)
    return sorted(by_turn.values(), key=lambda lines: -sum(len(line.text) for line in lines))


def turned(box: Sequence[float], turn: int, matrix: pymupdf.Matrix | None) -> Rect:
    """A box of the page in the frame of lines that are turned by so many quarters."""
    x0, y0, x1, y1 = pymupdf.Rect(box) * matrix if matrix is not None else box
    if turn == 1:
        return y0, -x1, y1, -x0
    if turn == 2:
        return -x1, -y1, -x0, -y0
    return (-y1, x0, -y0, x1) if turn == 3 else (x0, y0, x1, y1)


def _line(
    line: Mapping[str, Any], block: int, turn: int, matrix: pymupdf.Matrix | None, links: Sequence[Link]
) -> Line | None:
    runs: list[Run] = []
    chars = bold = mono = 0
    size = 0.0
    for span in line["spans"]:
        text = clean(span["text"])
        flags = span["flags"]
        style = Style.PLAIN
        if flags & _BOLD:
            style |= Style.BOLD
        if flags & _ITALIC:
            style |= Style.ITALIC
        if flags & _MONO:
            style |= Style.MONO
        count = len(text.strip())
        chars += count
        size += count * span["size"]
        bold += count if Style.BOLD in style else 0
        mono += count if Style.MONO in style else 0
        runs += _linked(span, text, style, links, matrix) if links else [Run(text, style)]
    if not chars:
        return None
    x0, y0, x1, y1 = turned(line["bbox"], turn, matrix)
    all_text = "".join(run.text for run in runs)
    return Line(x0, y0, x1, y1, size / chars, runs, block, bold > 0.9 * chars, mono > 0.9 * chars, all_text)


def _linked(
    span: Mapping[str, Any], text: str, style: Style, links: Sequence[Link], matrix: pymupdf.Matrix | None
) -> list[Run]:
    """The span cut where links begin and end, at the nearest ends of words."""
    x0, y0, x1, y1 = turned(span["bbox"], 0, matrix)
    middle = (y0 + y1) / 2
    for (left, top, right, bottom), uri in links:
        if not (top <= middle <= bottom and left < x1 and right > x0 and x1 > x0):
            continue
        begin = _word_start(text, (left - x0) / (x1 - x0))
        end = _word_end(text, (right - x0) / (x1 - x0))
        if begin < end:
            pieces = (text[:begin], ""), (text[begin:end], uri), (text[end:], "")
            return [Run(piece, style, leads) for piece, leads in pieces if piece]
    return [Run(text, style)]


def _word_start(text: str, part: float) -> int:
    at = min(max(round(part * len(text)), 0), len(text))
    starts = [i for i in range(len(text)) if not text[i].isspace() and (i == 0 or text[i - 1].isspace())]
    return min(starts, key=lambda i: abs(i - at), default=at)


def _word_end(text: str, part: float) -> int:
    at = min(max(round(part * len(text)), 0), len(text))
    ends = [i + 1 for i in range(len(text)) if not text[i].isspace() and (i + 1 == len(text) or text[i + 1].isspace())]
    return min(ends, key=lambda i: abs(i - at), default=at)


def in_columns(lines: Sequence[Line], depth: int = 0) -> Iterator[list[Line]]:
    """Pieces of the page, each of one column, in reading order. A line across two columns ends what is above it."""
    gutter = _gutter(lines) if depth < _NESTED_COLUMNS else None
    if gutter is None:
        yield list(lines)
        return
    beside: list[Line] = []
    across: list[Line] = []
    for line in sorted(lines, key=lambda line: line.y0 + line.y1):
        if line.x0 < gutter < line.x1:
            yield from _left_and_right(beside, gutter, depth)
            beside = []
            across.append(line)
        else:
            if across:
                yield _as_drawn(lines, across)
                across = []
            beside.append(line)
    if across:
        yield _as_drawn(lines, across)
    yield from _left_and_right(beside, gutter, depth)


def _as_drawn(lines: Sequence[Line], some: Sequence[Line]) -> list[Line]:
    wanted = {id(line) for line in some}
    return [line for line in lines if id(line) in wanted]


def _left_and_right(lines: Sequence[Line], gutter: float, depth: int) -> Iterator[list[Line]]:
    for side in ([x for x in lines if x.x1 <= gutter], [x for x in lines if x.x0 >= gutter]):
        if side:
            yield from in_columns(side, depth + 1)


def _gutter(lines: Sequence[Line]) -> float | None:
    """The left edge of a right column, if there are two columns: as many lines as can be on both sides, few across."""
    if len(lines) < 2 * _COLUMN_LINES:
        return None
    em = median(line.size for line in lines)
    starts, ends = sorted(line.x0 for line in lines), sorted(line.x1 for line in lines)
    edges = Counter(round(start / 2) for start in starts).most_common(_CANDIDATES)
    found: list[tuple[int, float]] = []
    for edge, _ in edges:
        at = edge * 2 - 2.0
        left, right = bisect_right(ends, at), len(starts) - bisect_left(starts, at)
        across = len(lines) - left - right
        if min(left, right) >= _COLUMN_LINES and across <= _MOST_ACROSS * len(lines):
            found.append((min(left, right) - across, at))
    found.sort(key=lambda one: (-one[0], one[1]))
    return next((at for _, at in found if _are_columns(lines, at, em)), None)


def _are_columns(lines: Sequence[Line], gutter: float, em: float) -> bool:
    sides = [x for x in lines if x.x1 <= gutter], [x for x in lines if x.x0 >= gutter]
    if any(median(x.x1 - x.x0 for x in side) < _COLUMN_WIDTH * em for side in sides):
        return False
    (left_top, left_bottom), (right_top, right_bottom) = ((min(x.y0 for x in s), max(x.y1 for x in s)) for s in sides)
    beside = min(left_bottom, right_bottom) - max(left_top, right_top)
    return beside >= _OVERLAP * min(left_bottom - left_top, right_bottom - right_top)


def in_blocks(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of one column by MuPDF's blocks, from top to bottom and at the same height from left to right; pieces
    of one line are put together."""
    blocks: dict[int, list[Line]] = {}
    for line in lines:
        blocks.setdefault(line.block, []).append(line)
    rows: list[list[list[Line]]] = []
    for block in sorted(blocks.values(), key=lambda block: min(line.y0 for line in block)):
        last = rows[-1][0] if rows else None
        if last is not None and _beside(last, block):
            rows[-1].append(block)
        else:
            rows.append([block])
    return [_merged(block) for row in rows for block in sorted(row, key=lambda block: min(line.x0 for line in block))]


def _beside(one: Sequence[Line], other: Sequence[Line]) -> bool:
    top, bottom = max(one[0].y0, other[0].y0), min(one[-1].y1, other[-1].y1)
    return bottom - top > _SAME_ROW * min(one[-1].y1 - one[0].y0, other[-1].y1 - other[0].y0)


def _merged(block: Sequence[Line]) -> list[Line]:
    out: list[Line] = []
    for each in block:
        line, last = each, out[-1] if out else None
        overlap = min(last.y1, line.y1) - max(last.y0, line.y0) if last else 0.0
        if last is None or overlap <= _SAME_ROW * min(last.y1 - last.y0, line.y1 - line.y0):
            out.append(line)
            continue
        if line.x1 <= last.x0 and not RIGHT_TO_LEFT.search(line.text):
            last, line = line, last
        chars, more = len(last.text), len(line.text)
        out[-1] = Line(
            min(last.x0, line.x0),
            min(last.y0, line.y0),
            max(last.x1, line.x1),
            max(last.y1, line.y1),
            (last.size * chars + line.size * more) / (chars + more),
            [*last.runs, Run(" "), *line.runs],
            last.block,
            last.is_bold and line.is_bold,
            last.is_mono and line.is_mono,
            f"{last.text} {line.text}",
        )
    return out
