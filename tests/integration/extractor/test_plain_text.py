"""The text of a page is PyMuPDF's own, to the letter, although another writer wrote it."""

import os
import random
from pathlib import Path

import pymupdf
import pytest

from services.extractor.adapters.mupdf_pages import text_page
from services.extractor.adapters.mupdf_plain_page import plain_page
from services.extractor.adapters.mupdf_text import plain_text
from services.extractor.adapters.parser_protocol import PartBit

CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", Path(__file__).parents[4] / "shared" / "corpus"))
PIECES = ("Hello world", "x", "\u00e9t\u00e9 \u4e2d", "two\nlines", "  ", "a \\u0041 back", "tab\tand\x0bmore")


def scattered(seed: int) -> pymupdf.Document:
    """Words on the page, across its edges and beside it, in all directions and sizes."""
    chance = random.Random(seed)
    document = pymupdf.open()
    page = document.new_page(width=300, height=300)
    for _ in range(12):
        page.insert_text(
            (chance.uniform(-60, 340), chance.uniform(-40, 340)),
            chance.choice(PIECES),
            fontsize=chance.choice((1, 8, 30, 90)),
            rotate=chance.choice((0, 90, 180, 270)),
        )
    if chance.random() < 0.5:
        page.set_cropbox(pymupdf.Rect(50, 50, 200, 250))
    if chance.random() < 0.3:
        page.set_rotation(90)
    return pymupdf.open(stream=document.tobytes(), filetype="pdf")


def mapped_to(*code_points: int) -> pymupdf.Document:
    """A line whose letters stand for these code points, by their font's ToUnicode."""
    document = pymupdf.open()
    page = document.new_page()
    letters = "ABCDEFGHIJ"[: len(code_points)]
    page.insert_text((72, 72), letters + "K")
    page.insert_text((72, 172), letters[::-1])
    (font, *_) = page.get_fonts()[0]
    lines = "".join(f"<{ord(a):02x}> <{code:04x}>\n" for a, code in zip(letters, code_points, strict=True))
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        "1 begincodespacerange <00> <ff> endcodespacerange\n"
        f"{len(code_points)} beginbfchar\n{lines}endbfchar endcmap end end"
    )
    xref = document.get_new_xref()
    document.update_object(xref, "<<>>")
    document.update_stream(xref, cmap.encode())
    document.xref_set_key(font, "ToUnicode", f"{xref} 0 R")
    return pymupdf.open(stream=document.tobytes(), filetype="pdf")


def check(document: pymupdf.Document) -> None:
    for page in document:
        textpage = page.get_textpage(flags=pymupdf.TEXTFLAGS_TEXT)
        assert plain_text(textpage.this) == textpage.extractText() == page.get_text()
        check_short_way(document, page.number + 1)


def check_short_way(document: pymupdf.Document, number: int) -> None:
    short = plain_page(document, number)
    if short is not None:
        assert short == text_page(document[number - 1], number, PartBit.TEXT)
    page = document[number - 1]
    assert (short is None) == (page.rotation != 0 or not page.get_text() or page.get_text().isspace())


@pytest.mark.parametrize("seed", range(40))
def test_wherever_words_stand(seed: int) -> None:
    check(scattered(seed))


@pytest.mark.parametrize(
    "code_points",
    [(0,), (10,), (10, 10), (10, 10, 10), (65, 10), (13, 10), (0xD800,), (0xDFFF, 65), (92,), (0xFFFF,), (0x2028, 10)],
    ids=lambda points: "-".join(f"{point:x}" for point in points),
)
def test_whatever_letters_stand_for(code_points: tuple[int, ...]) -> None:
    check(mapped_to(*code_points))


def test_a_page_without_text() -> None:
    document = pymupdf.open()
    document.new_page()
    check(document)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="PAGEMESH_CORPUS names no folder with files")
def test_real_files() -> None:
    for path in sorted(CORPUS.glob("clean/*.pdf"))[:40]:
        with pymupdf.open(path) as document:
            check(document)
