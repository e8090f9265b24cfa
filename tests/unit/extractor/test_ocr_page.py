"""A page as it is written after its picture was read."""

import pytest

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.ocr_page import RecognisedPageWriter
from services.extractor.adapters.page_bounds import MAX_WORDS
from services.extractor.domain.pages import Page, PageFlag
from services.extractor.domain.recognised import Box, PlacedWord, TextBlock

PARSED = page_pb2.Page(
    number=3,
    width_pt=600,
    height_pt=800,
    text="what is hidden in the file",
    blocks=[page_pb2.Block(text="what is hidden in the file")],
    words=[page_pb2.Word(text="hidden")],
    flags=[page_pb2.PAGE_FLAG_NO_TEXT, page_pb2.PAGE_FLAG_PARTIAL, page_pb2.PAGE_FLAG_HIDDEN_TEXT],
    images=[page_pb2.PageImage(index=0, width_px=9, height_px=9)],
    links=[page_pb2.Link(page=1)],
    language="de",
)


def row(*words: str) -> tuple[PlacedWord, ...]:
    return tuple(PlacedWord(word, Box(100 * n, 200, 100 * n + 50, 220)) for n, word in enumerate(words, 1))


def written(*blocks: TextBlock, complete: bool = True) -> tuple[page_pb2.Page, PageFlag]:
    parsed = Page(3, PARSED.SerializeToString(), PageFlag.NO_TEXT | PageFlag.PARTIAL | PageFlag.HIDDEN_TEXT)
    writer = RecognisedPageWriter(guess_language=lambda text: "en" if text else "")
    page = writer.write(parsed, blocks, width_px=1200, height_px=1600, complete=complete)
    assert page.number == 3
    return page_pb2.Page.FromString(page.content), page.flags


def test_text_blocks_and_words_are_those_that_were_read() -> None:
    page, flags = written(TextBlock((row("Title"),), heading=1), TextBlock((row("two", "words"), row("more"))))
    assert page.text == "Title\ntwo words\nmore\n"
    assert [block.text for block in page.blocks] == ["Title\n", "two words\nmore\n"]
    assert [(word.text, word.block, word.line) for word in page.words] == [
        ("Title", 0, 0),
        ("two", 1, 0),
        ("words", 1, 0),
        ("more", 1, 1),
    ]
    assert page.markdown == "# Title\n\ntwo words\nmore"
    assert page.language == "en"
    assert list(page.flags) == [page_pb2.PAGE_FLAG_PARTIAL, page_pb2.PAGE_FLAG_OCR]
    assert flags == PageFlag.PARTIAL | PageFlag.OCR


def test_boxes_are_in_points() -> None:
    page, _ = written(TextBlock((row("two", "words"),)))
    box, around = page.words[1].box, page.blocks[0].box
    assert (box.x0, box.y0, box.x1, box.y1) == (100, 100, 125, 110)
    assert (around.x0, around.y0, around.x1, around.y1) == (50, 100, 125, 110)


def test_what_is_no_text_stays() -> None:
    page, _ = written(TextBlock((row("text"),)))
    assert (page.width_pt, page.height_pt) == (600, 800)
    assert (page.images, page.links) == (PARSED.images, PARSED.links)


def test_a_page_in_which_nothing_was_found_has_no_text() -> None:
    page, flags = written()
    assert page.text == ""
    assert page.words == []
    assert flags == PageFlag.PARTIAL | PageFlag.OCR | PageFlag.NO_TEXT
    assert page_pb2.PAGE_FLAG_NO_TEXT in page.flags


def test_a_reading_that_was_cut_is_truncated() -> None:
    page, flags = written(TextBlock((row("text"),)), complete=False)
    assert PageFlag.TRUNCATED in flags
    assert page_pb2.PAGE_FLAG_TRUNCATED in page.flags


def test_a_page_has_no_more_words_than_it_may() -> None:
    page, flags = written(TextBlock((row(*"a" * (MAX_WORDS + 1)),)))
    assert len(page.words) == MAX_WORDS
    assert PageFlag.TRUNCATED in flags


@pytest.mark.parametrize(
    ("words", "markdown"),
    [
        ("a*b _c_ [d] <e> `f` g|h", r"a\*b \_c\_ \[d\] \<e\> \`f\` g\|h"),
        ("# no heading", r"\# no heading"),
        ("- no list", r"\- no list"),
        ("1. no list", r"1\. no list"),
        ("12) no list", r"12\) no list"),
        ("\u2022 an item - of a list", "- an item - of a list"),
        ("\u2022 - twice", r"- \- twice"),
        ("3.14 is no list", "3.14 is no list"),
    ],
)
def test_what_would_be_markup_is_escaped(words: str, markdown: str) -> None:
    page, _ = written(TextBlock((row(*words.split()),)))
    assert page.markdown == markdown
