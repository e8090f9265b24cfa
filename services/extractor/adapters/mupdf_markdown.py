"""A page as Markdown, out of one pass over MuPDF's `dict`: headings, paragraphs, lists, code, tables, links."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from services.extractor.adapters.markdown_text import Run, Style, cell, joined, plain, rendered
from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_lines import RIGHT_TO_LEFT, Line, Link, Rect, in_blocks, in_columns, turned_lines

_HEADINGS = ((1.7, 1), (1.35, 2), (1.12, 3))
"""How many times larger than the page's usual letters a heading is, and its level."""
_BOLD_LEVEL = 4
_HEADING_CHARS = 200
_HEADING_LINES = 4
_OTHER_SIZE = 1.12
_NEW_PARAGRAPH = 1.6
"""So many times the usual distance of two lines begins a paragraph."""
_ALL_MONO = 0.6
"""Where so much of a page is monospaced, that means nothing."""
_BULLETS = (
    "\u2022\u2023\u25aa\u25ab\u25cf\u25cb\u25e6\u25a0\u25a1\u2043\u2219\u27a2\u2756\u2713\u2714\uf0b7\uf0a7\uf0d8"
)
_BULLET = re.compile(rf"^\s*(?:[{_BULLETS}]\s*|[-\u2013\u2014*\u00b7o]\s+)")
_SURE_BULLET = re.compile(rf"^\s*[{_BULLETS}]")
_NUMBER = re.compile(r"^\s*(\d{1,3}[.)])\s+")
_LETTER = re.compile(r"^\s*(\(?(?:[a-z]|[ivx]{1,5}|\d{1,3})\))\s+")
_REFERENCE = re.compile(r"^\s*\[\d{1,4}\]\s")
_SECTION = re.compile(r"^\s*(?:\d+(?:\.\d+)*\.?|[IVX]+\.|[A-Z]\.)\s+\S")
_ENDS = tuple('.!?:;\u2026\u3002\uff01\uff1f\u201d"')
_INDENT_EM = 0.8


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table on the page as it is shown; rows of the same length."""

    box: Rect
    rows: Sequence[Sequence[str]]


@dataclass(slots=True)
class _List:
    """The items that are open: where their marks stand, and how far what belongs to them is indented."""

    open: list[tuple[float, int]] = field(default_factory=list)

    def indent(self, x: float, em: float, width: int) -> int:
        """How far an item whose mark stands at `x` is indented, and notes that it is open."""
        while self.open and x < self.open[-1][0] - _INDENT_EM * em:
            self.open.pop()
        if self.open and abs(x - self.open[-1][0]) <= _INDENT_EM * em:
            self.open.pop()
        before = sum(each for _, each in self.open)
        self.open.append((x, width))
        return before


def markdown_of(
    blocks: Sequence[Mapping[str, Any]],
    *,
    matrix: pymupdf.Matrix | None,
    links: Sequence[Link],
    tables: Sequence[FoundTable],
) -> str:
    """The page's Markdown. `blocks` are those of `dict`, `matrix` turns the page as it is shown, `links` and `tables`
    are on the page as it is shown."""
    ways = turned_lines(blocks, matrix, links)
    sizes = Counter[float]()
    mono = 0
    for line in (line for lines in ways for line in lines):
        sizes[round(line.size * 2) / 2] += len(line.text)
        mono += len(line.text) if line.is_mono else 0
    body = sizes.most_common(1)[0][0] if sizes else 0.0
    keeps = ~Style.MONO if mono > _ALL_MONO * sizes.total() else ~Style.PLAIN
    pieces: list[str] = []
    left = list(tables)
    for way, lines in enumerate(ways):
        writer = _Writer(body or 1.0, keeps)
        # Tables are found where text is upright.
        kept = _without(lines, left) if way == 0 else lines
        for column in in_columns(kept):
            mine, left = _tables_of(column, left) if way == 0 else ([], left)
            writer.column(in_blocks(column), mine)
        pieces.append(writer.finish())
    pieces += [table_markdown(table.rows) for table in left]
    return "\n\n".join(piece for piece in pieces if piece)


def table_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a pipe table; the first one is its head."""
    written = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    if written:
        written.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(written)


def _without(lines: Sequence[Line], tables: Sequence[FoundTable]) -> list[Line]:
    def is_inside(line: Line, box: Rect) -> bool:
        x, y = (line.x0 + line.x1) / 2, (line.y0 + line.y1) / 2
        return box[0] - 1 <= x <= box[2] + 1 and box[1] - 1 <= y <= box[3] + 1

    return [line for line in lines if not any(is_inside(line, table.box) for table in tables)]


def _tables_of(column: Sequence[Line], tables: Sequence[FoundTable]) -> tuple[list[FoundTable], list[FoundTable]]:
    """Tables that stand in the column, between its first line and its last one, and the others."""
    if not column:
        return [], list(tables)
    top, bottom = min(line.y0 for line in column), max(line.y1 for line in column)
    begin, end = min(line.x0 for line in column), max(line.x1 for line in column)
    mine = [
        table
        for table in tables
        if top <= (table.box[1] + table.box[3]) / 2 <= bottom and table.box[0] < end and table.box[2] > begin
    ]
    return mine, [table for table in tables if table not in mine]


class _Writer:
    """Writes columns one after the other."""

    def __init__(self, body: float, keeps: Style) -> None:
        self._body = body
        self._keeps = keeps
        self._out: list[str] = []
        self._list = _List()
        self._tight = False
        """Whether the last thing written was an item of a list."""
        self._heading: tuple[int, float] | None = None

    def column(self, blocks: Sequence[Sequence[Line]], tables: Sequence[FoundTable]) -> None:
        waiting = sorted(tables, key=lambda table: table.box[1])
        for block in blocks:
            while waiting and waiting[0].box[1] < block[0].y0:
                self._add(table_markdown(waiting.pop(0).rows))
            self._block(block)
        for table in waiting:
            self._add(table_markdown(table.rows))

    def finish(self) -> str:
        return "".join(self._out).strip("\n")

    def _add(self, text: str, *, item: bool = False, level: int = 0) -> None:
        if not text:
            return
        if not item:
            self._list.open.clear()
        self._out.append(("\n" if item and self._tight else "\n\n") + text)
        self._tight = item
        self._heading = None

    def _block(self, lines: Sequence[Line]) -> None:
        right = max(line.x1 for line in lines)
        pitch = _pitch(lines)
        for paragraph in _paragraphs(lines, pitch):
            if Style.MONO in self._keeps and all(line.is_mono for line in paragraph) and len(paragraph) > 1:
                self._code(paragraph)
            elif (level := self._level(paragraph)) is not None:
                self._title(paragraph, level)
            else:
                self._paragraph(paragraph, right)

    def _level(self, lines: Sequence[Line]) -> int | None:
        text = " ".join(line.text for line in lines).strip()
        if len(lines) > _HEADING_LINES or len(text) > _HEADING_CHARS or not re.search(r"[^\W\d_]{2}", text):
            return None
        if _SURE_BULLET.match(text):
            return None
        size = median(line.size for line in lines) / self._body
        level = next((level for least, level in _HEADINGS if size >= least), None)
        if level is None and size > 0.95 and all(line.is_bold for line in lines) and len(lines) <= 2:
            is_title = len(text) <= 100 and (not text.endswith(_ENDS) or _SECTION.match(text))
            return _BOLD_LEVEL if is_title else None
        return level

    def _title(self, lines: Sequence[Line], level: int) -> None:
        runs: list[Run] = []
        for line in lines:
            runs = joined(runs, line.runs)
        text = rendered(runs, at_start=False, keeps=self._keeps & ~Style.BOLD)
        # Lines of one title are often blocks of their own.
        above = self._heading
        y = lines[0].y0
        if above is not None and above[0] == level and 0 <= y - above[1] < 0.8 * lines[0].size:
            self._out[-1] += " " + text
        else:
            self._add("#" * level + " " + text)
        self._heading = level, lines[-1].y1

    def _code(self, lines: Sequence[Line]) -> None:
        left = min(line.x0 for line in lines)
        widths = [(line.x1 - line.x0) / len(line.text) for line in lines if line.text.strip()]
        width = median(widths) if widths else 1.0
        texts = [" " * max(0, round((line.x0 - left) / (width or 1.0))) + line.text.rstrip() for line in lines]
        fence = "`" * max(3, 1 + max((len(run) for text in texts for run in re.findall("`+", text)), default=0))
        self._add("\n".join([fence, *texts, fence]))

    def _paragraph(self, lines: Sequence[Line], right: float) -> None:
        first = lines[0]
        mark, runs = _item(lines[0])
        pieces: list[list[Run]] = [runs if mark else first.runs]
        broken = [not mark and _is_broken(above, below, right) for above, below in itertools.pairwise(lines)]
        # Where most of the lines are ended on purpose, the longest one is too.
        all_broken = 2 * sum(broken) >= len(broken) > 0
        for below, is_broken in zip(lines[1:], broken, strict=True):
            if is_broken or (all_broken and not mark):
                pieces.append(below.runs)
            else:
                pieces[-1] = joined(pieces[-1], below.runs)
        texts = [rendered(piece, keeps=self._keeps, at_start=not mark) for piece in pieces]
        text = "  \n".join(text for text in texts if text)
        if not mark:
            self._add(text)
            return
        indent = self._list.indent(first.x0, first.size, len(mark) + 1)
        self._add(" " * indent + f"{mark} {text}", item=True)


def _item(line: Line) -> tuple[str, list[Run]]:
    """The mark of a list's item that the line begins, and what follows it; no mark where it begins none."""
    bullet = _BULLET.match(line.text)
    if bullet is not None and line.text[bullet.end() :].strip():
        return "-", _cut(line.runs, bullet.end())
    number = _NUMBER.match(line.text)
    if number is not None:
        return number[1], _cut(line.runs, number.end())
    if _LETTER.match(line.text):
        return "-", line.runs
    return "", line.runs


def _cut(runs: Sequence[Run], chars: int) -> list[Run]:
    """The runs without their first characters."""
    out: list[Run] = []
    for run in runs:
        kept = run.text[chars:]
        chars = max(0, chars - len(run.text))
        if kept:
            out.append(Run(kept, run.style, run.uri))
    return out


def _pitch(lines: Sequence[Line]) -> float:
    distances = [below.y1 - above.y1 for above, below in itertools.pairwise(lines)]
    return median(distances) if distances else 0.0


def _paragraphs(lines: Sequence[Line], pitch: float) -> Iterator[list[Line]]:
    """MuPDF's block, cut where the size changes, a mark of a list stands, or a line is set in or further away."""
    left = min(line.x0 for line in lines)
    right = max(line.x1 for line in lines)
    begun = [lines[0]]
    listed = bool(_item(lines[0])[0])
    for above, below in itertools.pairwise(lines):
        if _begins(above, below, pitch=pitch, left=left, right=right, listed=listed):
            yield begun
            begun = []
            listed = listed or bool(_SURE_BULLET.match(below.text))
        begun.append(below)
    yield begun


def _begins(above: Line, below: Line, *, pitch: float, left: float, right: float, listed: bool) -> bool:
    """Whether a paragraph begins with `below`."""
    sizes = sorted((above.size, below.size))
    if sizes[1] > _OTHER_SIZE * sizes[0] or below.y1 - above.y1 > _NEW_PARAGRAPH * max(pitch, 0.1):
        # A line of a formula or a single mark in another size is no paragraph.
        return len(below.text.strip()) > 1 and len(above.text.strip()) > 1
    if above.is_mono != below.is_mono:
        return True
    if above.is_bold and not below.is_bold:
        return above.x1 < left + 0.9 * (right - left) and not above.text.rstrip().endswith((",", "-"))
    if _SURE_BULLET.match(below.text) or (listed and _item(below)[0]):
        return True
    if _REFERENCE.match(below.text) and below.x0 - left < below.size:
        return True
    is_set_in = _INDENT_EM * below.size < below.x0 - left < 5 * below.size and above.x0 - left < below.size / 2
    return is_set_in and not listed and above.text.rstrip().endswith(_ENDS) and not RIGHT_TO_LEFT.search(below.text)


def _is_broken(above: Line, below: Line, right: float) -> bool:
    """Whether the line ends where it does because its author wanted so: the next word would have had room."""
    if RIGHT_TO_LEFT.search(below.text) or plain(above.runs).rstrip().endswith("-"):
        return False
    words = below.text.split(maxsplit=1)
    if not words:
        return False
    width = (below.x1 - below.x0) * (len(words[0]) + 1) / max(len(below.text), 1)
    return above.x1 + width + 1.5 * above.size < right
