"""Rows under a table's head, for lists of objects: columns are told by their labels.

Two forms of a table are read. Cells that come one in a line, as parsers give them: a run of lines that are the labels,
then as many lines for each row. Rows that are a line each, with one column of free text at most: what is left and right
of it is cut off word by word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.summarizer.domain.fields_values import Target, Template, pointer_of
from services.summarizer.domain.found_field import FoundField

MAX_ROWS = 200
_MIN_COLUMNS = 2

Read = Callable[[str, Target], str]
"""What of a text is a value of the target; empty where nothing is."""
Labels = Mapping[Target, Sequence[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page; `words` are what its words mean, with the offsets where they end."""

    text: str
    page: int
    words: tuple[tuple[str, int], ...]
    is_cell: bool
    """It is part of the line before it, and stands apart in it."""

    @property
    def meanings(self) -> tuple[str, ...]:
        """What its words mean."""
        return tuple(word for word, _ in self.words)


def rows_of(targets: Sequence[Target], labels: Labels, lines: Sequence[Line], read: Read) -> Iterator[list[FoundField]]:
    """The rows of each list of objects, from the first table whose head names at least two of its columns."""
    whole = [line for line in lines if not line.is_cell]
    lists: dict[Template, list[Target]] = {}
    for target in targets:
        if target.template.count(None) == 1 and target.template[-1] is not None and target.template[-2] is None:
            lists.setdefault(target.template[:-1], []).append(target)
    for at, columns in lists.items():
        if len(columns) >= _MIN_COLUMNS:
            found = _cell_rows(columns, labels, whole, read) or _line_rows(columns, labels, whole, read)
            for index, row in enumerate(found[:MAX_ROWS]):
                path = tuple(index if part is None else part for part in at)
                yield [
                    FoundField(pointer_of((*path, column.name)), value, quote, page)
                    for column, value, quote, page in row
                ]


_Row = list[tuple[Target, str, str, int]]


def _cell_rows(columns: Sequence[Target], labels: Labels, lines: Sequence[Line], read: Read) -> list[_Row]:
    for start in range(len(lines)):
        head: list[Target | None] = []
        while start + len(head) < len(lines) and len(head) <= 2 * len(columns):
            named = _named(columns, labels, lines[start + len(head)].meanings)
            # A column that the schema does not ask for may stand between two that it does.
            after = start + len(head) + 1
            if named is None and not (head and after < len(lines) and _named(columns, labels, lines[after].meanings)):
                break
            head.append(named)
        known = [column for column in head if column is not None]
        if len(known) >= _MIN_COLUMNS and len(set(known)) == len(known):
            return _below(head, lines, start + len(head), read)
    return []


def _below(head: Sequence[Target | None], lines: Sequence[Line], start: int, read: Read) -> list[_Row]:
    rows: list[_Row] = []
    for at in range(start, len(lines) - len(head) + 1, len(head)):
        cells = lines[at : at + len(head)]
        quote = " ".join(line.text for line in cells)
        row: _Row = []
        for column, cell in zip(head, cells, strict=True):
            value = read(cell.text, column) if column is not None else ""
            if column is not None and value != cell.text.strip():
                return rows  # the table is at its end, or is none
            if column is not None:
                row.append((column, value, quote, cell.page))
        if len({cell.page for cell in cells}) > 1:
            return rows
        rows.append(row)
    return rows


def _named(columns: Sequence[Target], labels: Labels, meanings: tuple[str, ...]) -> Target | None:
    return next((column for column in columns if meanings in labels[column]), None)


def _line_rows(columns: Sequence[Target], labels: Labels, lines: Sequence[Line], read: Read) -> list[_Row]:
    for at, line in enumerate(lines):
        head = _head(columns, labels, line.meanings)
        if len(head) < _MIN_COLUMNS or sum(map(_is_free_text, head)) > 1:
            continue
        rows: list[_Row] = []
        for row_line in lines[at + 1 :]:
            row = _row(head, row_line, read)
            if not row or row_line.page != line.page:
                break
            rows.append(row)
        if rows:
            return rows
    return []


def _is_free_text(column: Target) -> bool:
    return not column.kinds or ("string" in column.kinds and column.format != "date")


def _head(columns: Sequence[Target], labels: Labels, meanings: tuple[str, ...]) -> list[Target]:
    """The columns that the words name one after the other; empty where a word is left over."""
    head: list[Target] = []
    at = 0
    while at < len(meanings):
        named = [
            (len(label), column)
            for column in columns
            for label in labels[column]
            if meanings[at : at + len(label)] == label and column not in head
        ]
        if not named:
            return []
        size, column = max(named, key=lambda item: item[0])
        head.append(column)
        at += size
    return head


def _row(head: Sequence[Target], line: Line, read: Read) -> _Row:
    """The values of a line: single words from left and right, the free text between. Empty where one is none."""
    words = line.text.split()
    if len(words) < len(head):
        return []
    free = next((place for place, column in enumerate(head) if _is_free_text(column)), len(head) - 1)
    left, right = words[:free], words[len(words) - (len(head) - free - 1) :] if free < len(head) - 1 else []
    middle = " ".join(words[len(left) : len(words) - len(right)])
    row: _Row = []
    for column, text in zip(head, (*left, middle, *right), strict=True):
        if read(text, column) != text:
            return []
        row.append((column, text, line.text, line.page))
    return row
