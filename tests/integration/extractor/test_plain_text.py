"""The text of a page is PyMuPDF's own, to the letter, although another writer wrote it."""

import os
import random
import socket
from pathlib import Path

import pymupdf
import pytest

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.mupdf_pages import text_page
from services.extractor.adapters.mupdf_plain_page import plain_page
from services.extractor.adapters.mupdf_text import plain_text
from services.extractor.adapters.mupdf_worker import Worker
from services.extractor.adapters.parser_protocol import Format, Order, OrderKind, PartBit
from services.extractor.adapters.picture_protocol import PictureCode, PictureOrder

CORPUS = Path(os.environ.get("PAGEMESH_CORPUS", Path(__file__).parents[4] / "shared" / "corpus"))
PICTURE = PictureOrder(format=PictureCode.PNG, dpi=9, max_side_px=64, jpeg_quality=90, max_pixels=10_000)
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


def test_a_damaged_page_is_called_so_the_short_way_too() -> None:
    made = pymupdf.open()
    page = made.new_page()
    page.insert_text((72, 72), "Hello")
    (xref, *_) = page.get_contents()
    made.update_stream(xref, made.xref_stream(xref) + b"\n/Nowhere Do\n")
    document = pymupdf.open(stream=made.tobytes(), filetype="pdf")
    short = plain_page(document, 1)
    assert short == text_page(document[0], 1, PartBit.TEXT)
    assert short is not None
    assert list(page_pb2.Page.FromString(short).flags) == [page_pb2.PAGE_FLAG_PARTIAL]


@pytest.mark.parametrize(
    ("parts", "profiles"), [(PartBit.TEXT, False), (PartBit.TEXT | PartBit.FLAGS, True), (None, True)]
)
def test_colour_profiles_are_read_where_colours_count(
    parts: PartBit | None, profiles: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.pdf"
    with pymupdf.open() as document:
        document.new_page().insert_text((72, 72), "Hello")
        document.save(path)
    set_to: list[bool] = []
    monkeypatch.setattr(pymupdf.TOOLS, "set_icc", set_to.append)
    mine, its = socket.socketpair()
    with mine, its, path.open("rb") as file:
        kind = OrderKind.PICTURE if parts is None else OrderKind.PARSE
        order = Order(kind, 1, Format.PDF, parts or PartBit(0), 1, 1, max_pixels=1_000_000)
        socket.send_fds(mine, [order.pack() + PICTURE.pack() if parts is None else order.pack()], [file.fileno()])
        assert Worker(its).obey()
    assert set_to == [profiles]


@pytest.mark.skipif(not CORPUS.is_dir(), reason="PAGEMESH_CORPUS names no folder with files")
def test_real_files() -> None:
    for path in sorted(CORPUS.glob("clean/*.pdf"))[:40]:
        with pymupdf.open(path) as document:
            check(document)
