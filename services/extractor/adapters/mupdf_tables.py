"""Tables of a page, by the lines that are drawn around their cells."""

from services.extractor.adapters.mupdf_import import pymupdf
from services.extractor.adapters.mupdf_markdown import FoundTable
from services.extractor.adapters.page_bounds import MAX_CELL_CHARS, MAX_TABLE_COLUMNS, MAX_TABLE_ROWS, MAX_TABLES

_LEAST_FILLED = 0.4
"""Boxes of a drawing that hold next to no text are no table."""


def find_tables(page: pymupdf.Page) -> list[FoundTable]:
    """Tables from top to bottom on the page as it is shown. Takes 70 ms and more: only where `may_hold_tables`."""
    found = []
    for table in page.find_tables().tables[:MAX_TABLES]:
        rows = [[(text or "").strip() for text in row] for row in table.extract()]
        rows = _without_empty(rows)
        if _is_table(rows):
            x0, y0, x1, y1 = table.bbox
            found.append(FoundTable((x0, y0, x1, y1), rows))
    return sorted(found, key=lambda table: (table.box[1], table.box[0]))


def _without_empty(rows: list[list[str]]) -> list[list[str]]:
    """The rows and columns that say something; lines that are drawn twice make some that do not."""
    kept = [row for row in rows if any(row)]
    filled = [index for index in range(len(kept[0]) if kept else 0) if any(row[index] for row in kept)]
    return [[row[index] for index in filled] for row in kept]


def _is_table(rows: list[list[str]]) -> bool:
    if not 2 <= len(rows) <= MAX_TABLE_ROWS or not 2 <= len(rows[0]) <= MAX_TABLE_COLUMNS:
        return False
    filled = sum(bool(text) for row in rows for text in row)
    longest = max(len(text) for row in rows for text in row)
    full = sum(sum(map(bool, row)) > 1 for row in rows)
    return full > 1 and filled >= _LEAST_FILLED * len(rows) * len(rows[0]) and longest <= MAX_CELL_CHARS
