"""Lines that were read in a picture, put into paragraphs and reading order: columns, rows, headings."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from services.extractor.domain.recognised import Box, LineWord, PlacedWord, Point, TextBlock, TextLine

_COLUMN_LINES = 3
_COLUMN_WIDTH = 8.0
"""A column has so many lines, and its lines are so many times longer than high. What is narrower is a table or a form,
which is read row by row."""
_MOST_ACROSS = 0.25
"""Part of the lines that may lie across two columns, as titles do."""
_COLUMN_OVERLAP = 0.3
_CANDIDATES = 16
_NESTED_COLUMNS = 6
"""Bounds of the search for columns: a page of noise has an edge everywhere."""
_GUTTER = 0.3
"""Width of the space between two columns, in heights of a line."""
_SAME_ROW = 0.4
_PARAGRAPH_PITCH = 1.35
"""So many times the usual distance of two lines begins a paragraph."""
_OTHER_SIZE = 1.4
_HEADINGS = ((1.8, 1), (1.35, 2))
"""How many times higher than the page's usual line a heading is, and its level. The height that is found for a line
depends on its letters: `no` is a third lower than `Ag`."""
_HEADING_LINES = 3


@dataclass(frozen=True, slots=True)
class _Placed:
    """A line in a frame in which the page's text runs to the right: from `u0` to `u1`, around `v`."""

    line: TextLine
    u0: float
    u1: float
    v: float
    height: float

    @property
    def length(self) -> float:
        return self.u1 - self.u0


_Row = list[_Placed]


def blocks_of(lines: Sequence[TextLine]) -> tuple[TextBlock, ...]:
    """The paragraphs in reading order. Lines that run another way than most of the text come last, each by itself."""
    if not lines:
        return ()
    along, others = _by_direction(lines)
    direction = _mean_direction(along)
    placed = [_placed(line, direction) for line in along]
    usual = _usual_height(placed)
    blocks = []
    for column in _in_columns(placed):
        blocks += [_block(rows, usual) for rows in _paragraphs(_rows(column))]
    blocks += [TextBlock((tuple(_words(line)),)) for line in others]
    return tuple(blocks)


def _by_direction(lines: Sequence[TextLine]) -> tuple[list[TextLine], list[TextLine]]:
    """Those that run the way most of the text runs, to the nearest quarter turn, and the rest."""
    lengths: defaultdict[int, float] = defaultdict(float)
    for line in lines:
        lengths[_quarter(line)] += math.hypot(*_top(line))
    most = max(lengths, key=lengths.__getitem__)
    return [line for line in lines if _quarter(line) == most], [line for line in lines if _quarter(line) != most]


def _top(line: TextLine) -> Point:
    (x0, y0), (x1, y1) = line.corners[:2]
    return x1 - x0, y1 - y0


def _quarter(line: TextLine) -> int:
    x, y = _top(line)
    return round(math.atan2(y, x) / (math.pi / 2)) % 4


def _mean_direction(lines: Sequence[TextLine]) -> Point:
    """A vector of length 1. Long lines count for more, so that a page that is a little askew is put straight."""
    x, y = (sum(values) for values in zip(*map(_top, lines), strict=True))
    length = math.hypot(x, y)
    return (x / length, y / length) if length else (1.0, 0.0)


def _placed(line: TextLine, direction: Point) -> _Placed:
    cos, sin = direction
    us = [x * cos + y * sin for x, y in line.corners]
    vs = [y * cos - x * sin for x, y in line.corners]
    return _Placed(line, min(us), max(us), (min(vs) + max(vs)) / 2, max(max(vs) - min(vs), 1.0))


def _usual_height(lines: Sequence[_Placed]) -> float:
    """Height of the line in which the middle character stands."""
    ordered = sorted((line.height, sum(len(word.text) for word in line.line.words)) for line in lines)
    left = sum(chars for _, chars in ordered) / 2
    for height, chars in ordered:
        left -= chars
        if left <= 0:
            return height
    return ordered[-1][0]


def _in_columns(lines: Sequence[_Placed], depth: int = 0) -> Iterator[list[_Placed]]:
    """Pieces of the page, each of one column, in reading order. A line across two columns ends what is above it."""
    gutter = _gutter(lines) if depth < _NESTED_COLUMNS else None
    if gutter is None:
        yield list(lines)
        return
    beside: list[_Placed] = []
    across: list[_Placed] = []
    for line in sorted(lines, key=lambda line: line.v):
        if line.u0 < gutter < line.u1:
            yield from _left_and_right(beside, gutter, depth)
            beside = []
            across.append(line)
        else:
            if across:
                yield across
                across = []
            beside.append(line)
    if across:
        yield across
    yield from _left_and_right(beside, gutter, depth)


def _left_and_right(lines: Sequence[_Placed], gutter: float, depth: int) -> Iterator[list[_Placed]]:
    for side in ([x for x in lines if x.u1 <= gutter], [x for x in lines if x.u0 >= gutter]):
        if side:
            yield from _in_columns(side, depth + 1)


def _gutter(lines: Sequence[_Placed]) -> float | None:
    """Where the space between two columns is, if there are two: as many lines as can be on both sides, few across."""
    if len(lines) < 2 * _COLUMN_LINES:
        return None
    em = median(line.height for line in lines)
    starts, ends = sorted(line.u0 for line in lines), sorted(line.u1 for line in lines)
    edges = sorted((*starts, *ends))
    found: list[tuple[int, float]] = []
    left = right_begin = 0
    for edge, following in pairwise(edges):
        if following - edge < _GUTTER * em:
            continue
        at = (edge + following) / 2
        while left < len(ends) and ends[left] <= at:
            left += 1
        while right_begin < len(starts) and starts[right_begin] < at:
            right_begin += 1
        right = len(starts) - right_begin
        across = len(lines) - left - right
        if across <= _MOST_ACROSS * len(lines):
            found.append((min(left, right) - across, at))
    found.sort(key=lambda gutter: -gutter[0])
    return next((at for _, at in found[:_CANDIDATES] if _are_columns(lines, at, em)), None)


def _are_columns(lines: Sequence[_Placed], gutter: float, em: float) -> bool:
    sides = [x for x in lines if x.u1 <= gutter], [x for x in lines if x.u0 >= gutter]
    if any(len(side) < _COLUMN_LINES or median(x.length for x in side) < _COLUMN_WIDTH * em for side in sides):
        return False
    (left_top, left_bottom), (right_top, right_bottom) = ((min(x.v for x in s), max(x.v for x in s)) for s in sides)
    beside = min(left_bottom, right_bottom) - max(left_top, right_top)
    return beside >= _COLUMN_OVERLAP * min(left_bottom - left_top, right_bottom - right_top)


def _rows(lines: Sequence[_Placed]) -> list[_Row]:
    """Lines from top to bottom; those at the same height are one row, from left to right."""
    rows: list[_Row] = []
    for line in sorted(lines, key=lambda line: line.v):
        last = rows[-1][-1] if rows else None
        if last is not None and line.v - last.v < _SAME_ROW * min(line.height, last.height):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.u0) for row in rows]


def _paragraphs(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows that follow each other at the usual distance and in about the same size."""
    distances = [below[0].v - above[0].v for above, below in pairwise(rows)]
    usual = median(distances) if distances else 0.0
    paragraphs: list[list[_Row]] = [[rows[0]]]
    for above, below, distance in zip(rows, rows[1:], distances, strict=False):
        heights = sorted((_height(above), _height(below)))
        # Where the page has a few lines only, what is usual among them may be the space between paragraphs.
        too_far = distance > _PARAGRAPH_PITCH * min(usual, 2 * heights[0])
        if too_far or heights[1] > _OTHER_SIZE * heights[0]:
            paragraphs.append([])
        paragraphs[-1].append(below)
    return paragraphs


def _height(row: _Row) -> float:
    return max(line.height for line in row)


def _block(rows: Sequence[_Row], usual_height: float) -> TextBlock:
    lines = tuple(tuple(word for line in row for word in _words(line.line)) for row in rows)
    size = median(_height(row) for row in rows) / usual_height
    level = next((level for least, level in _HEADINGS if size >= least), 0)
    return TextBlock(lines, level if len(lines) <= _HEADING_LINES else 0)


def _words(line: TextLine) -> Iterator[PlacedWord]:
    for word in line.words:
        yield PlacedWord(word.text, _box(line, word))


def _box(line: TextLine, word: LineWord) -> Box:
    start_top, end_top, end_bottom, start_bottom = line.corners
    points = [
        _between(edge, part)
        for edge in ((start_top, end_top), (start_bottom, end_bottom))
        for part in (word.begin, word.end)
    ]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Box(min(xs), min(ys), max(xs), max(ys))


def _between(edge: tuple[Point, Point], part: float) -> Point:
    (x0, y0), (x1, y1) = edge
    return x0 + (x1 - x0) * part, y0 + (y1 - y0) * part
