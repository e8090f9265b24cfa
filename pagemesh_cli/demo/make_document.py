"""Sets document.txt as document.pdf: `python pagemesh_cli/demo/make_document.py`. The same text gives the same bytes.

The prose is Pagemesh's own, and the fonts are PDF's base fonts, which are not embedded: the file may be passed on under
the licence of the rest. It needs PyMuPDF, which is there in a development environment; the result is committed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pymupdf

FOLDER = Path(__file__).parent
TITLE = "Reading documents you did not write"
_WIDTH, _HEIGHT = 595.0, 842.0
_MARGIN = 72.0
_LEADING = 1.35


@dataclass(frozen=True)
class Style:
    """How a paragraph is set; sizes in points."""

    font: str
    size: float
    space_before: float


_STYLES = {
    "# ": Style("tibo", 18.0, 0.0),
    "## ": Style("tibo", 12.5, 14.0),
    "": Style("tiro", 11.0, 6.0),
}


def wrap(text: str, style: Style) -> Iterator[str]:
    """The paragraph's lines, each as long as fits between the margins."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and pymupdf.get_text_length(longer, style.font, style.size) > _WIDTH - 2 * _MARGIN:
            yield line
            line = word
        else:
            line = longer
    yield line


def set_document(text: str) -> pymupdf.Document:
    """One paragraph for each line of `text`; `#` and `##` begin headings, which stay with what follows them."""
    document = pymupdf.open()
    page, y = document.new_page(width=_WIDTH, height=_HEIGHT), _MARGIN
    for paragraph in filter(None, text.splitlines()):
        mark = next(mark for mark in ("# ", "## ", "") if paragraph.startswith(mark))
        style = _STYLES[mark]
        room_for_more = 4 * style.size * _LEADING if mark else 0.0
        y += style.space_before
        for line in wrap(paragraph.removeprefix(mark), style):
            if y + style.size * _LEADING + room_for_more > _HEIGHT - _MARGIN:
                page, y = document.new_page(width=_WIDTH, height=_HEIGHT), _MARGIN
            y += style.size * _LEADING
            page.insert_text((_MARGIN, y), line, fontname=style.font, fontsize=style.size)
    for number, page in enumerate(document, start=1):
        page.insert_text((_WIDTH / 2 - 3, _HEIGHT - _MARGIN / 2), str(number), fontname="tiro", fontsize=9.0)
    return document


def main() -> None:
    document = set_document((FOLDER / "document.txt").read_text())
    document.set_metadata({"title": TITLE, "author": "Pagemesh", "producer": "", "creator": ""})
    document.save(FOLDER / "document.pdf", garbage=4, deflate=True, no_new_id=True)


if __name__ == "__main__":
    main()
