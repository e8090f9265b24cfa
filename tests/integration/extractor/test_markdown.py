"""Markdown of made pages, exactly."""

import pymupdf
import pytest

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.mupdf_pages import text_page
from services.extractor.adapters.parser_protocol import PartBit

Text = tuple[float, float, str]
FIRST = "The first column tells how it began, in the"
LONG = "A sentence that is long enough to be the text of the page and not a title of it."


def markdown(page: pymupdf.Page) -> str:
    """As a reader of the stored file gets it."""
    data = page.parent.tobytes()
    with pymupdf.open(stream=data, filetype="pdf") as read:
        return page_pb2.Page.FromString(text_page(read[page.number], 1, PartBit.MARKDOWN)).markdown


@pytest.fixture
def page() -> pymupdf.Page:
    document = pymupdf.open()
    return document.new_page(width=612, height=792)


def write(page: pymupdf.Page, *texts: Text, **how: object) -> None:
    for x, y, text in texts:
        page.insert_text((x, y), text, **how)


def test_headings_are_told_by_their_size_and_boldness(page: pymupdf.Page) -> None:
    write(page, (72, 72, "A Title"), fontsize=24)
    write(page, (72, 120, "2 Method"), fontsize=16)
    write(page, (72, 150, "2.1 Apparatus"), fontsize=11, fontname="hebo")
    write(page, (72, 180, LONG), fontsize=11)
    assert markdown(page) == f"# A Title\n\n## 2 Method\n\n#### 2.1 Apparatus\n\n{LONG}"


def test_columns_are_read_one_after_the_other_however_they_were_drawn(page: pymupdf.Page) -> None:
    left = [f"The left column has its line {number} here" for number in range(8)]
    right = [f"The right column has its line {number} here" for number in range(8)]
    write(page, (72, 60, "A line that runs across both of the columns and is as wide as the whole page is"))
    for row, (one, other) in enumerate(zip(left, right, strict=True)):
        write(page, (320, 100 + 14 * row, other), (72, 100 + 14 * row, one))
    found = markdown(page)
    assert found.index("left column has its line 7") < found.index("right column has its line 0")
    assert found.startswith("A line that runs across")


def test_words_that_are_cut_at_a_lines_end_are_whole(page: pymupdf.Page) -> None:
    write(page, (72, 72, "The apparatus was built by the depart-"), (72, 86, "ment of physics, as a well-known"))
    assert markdown(page) == "The apparatus was built by the department of physics, as a well-known"


def test_lists_are_nested_as_they_are_set_in(page: pymupdf.Page) -> None:
    write(page, (72, 60, "What we need for the cake, all of it fresh and of the best kind:"))
    write(page, (72, 90, "\u2022 apples"), (90, 104, "\u2022 red ones"), (90, 118, "\u2022 green ones"))
    write(page, (72, 132, "\u2022 flour"))
    assert markdown(page).endswith(":\n\n- apples\n  - red ones\n  - green ones\n- flour")


def test_numbered_items_keep_their_numbers(page: pymupdf.Page) -> None:
    write(page, (72, 90, "1. mix all of it well"), (72, 104, "2. bake it for an hour"), (72, 118, "3. eat"))
    assert markdown(page) == "1. mix all of it well\n2. bake it for an hour\n3. eat"


def test_styles_are_marked_and_end_with_words(page: pymupdf.Page) -> None:
    box = pymupdf.Rect(72, 72, 540, 140)
    page.insert_htmlbox(box, f"<p>{LONG} Some <b>bold words</b>, <i>slanted ones</i> and <code>x = y*2</code>.</p>")
    assert markdown(page) == f"{LONG} Some **bold words**, *slanted ones* and `x = y*2`."


def test_code_keeps_its_lines(page: pymupdf.Page) -> None:
    write(page, (72, 60, LONG), (72, 75, LONG))
    page.insert_text((72, 120), ["def f():", "    return `1`"], fontname="cour")
    assert markdown(page).endswith("```\ndef f():\n    return `1`\n```")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a * b and snake_case and _this_", r"a \* b and snake_case and \_this\_"),
        ("# no heading", r"\# no heading"),
        ("- no item, x", r"- no item, x"),
        ("<script>alert(1)</script> 1 < 2", r"\<script>alert(1)\</script> 1 < 2"),
        ("[text](http://a.example) [1]", r"[text\](http://a.example) [1]"),
        ("`code` & &amp; \\ ~x~", r"\`code\` & \&amp; \\ \~x\~"),
        ("> no quotation", r"\> no quotation"),
        ("1984. A year and a book", r"1984\. A year and a book"),
    ],
)
def test_what_the_document_says_means_itself(page: pymupdf.Page, text: str, wanted: str) -> None:
    write(page, (72, 72, text))
    assert markdown(page) == wanted


def test_lines_that_were_ended_on_purpose_stay_apart(page: pymupdf.Page) -> None:
    write(page, (72, 72, "Ann Smith"), (72, 86, "1 High Street, a long way from the town"), (72, 100, "London"))
    assert markdown(page) == "Ann Smith  \n1 High Street, a long way from the town  \nLondon"


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_page_is_read_as_it_is_shown(page: pymupdf.Page, rotation: int) -> None:
    page.set_rotation(rotation)
    for row, text in enumerate(("Turned title", LONG, "The end of it all.")):
        at = pymupdf.Point(72, 100 + 40 * row) * page.derotation_matrix
        page.insert_text(at, text, fontsize=20 if row == 0 else 9, rotate=rotation)
    assert markdown(page) == f"# Turned title\n\n{LONG}\n\nThe end of it all."


def test_cells_that_span_columns_leave_the_rest_empty(page: pymupdf.Page) -> None:
    for box, text in (
        ((72, 100, 372, 120), "Both"),
        ((72, 120, 222, 140), "One"),
        ((222, 120, 372, 140), "Two"),
        ((72, 140, 222, 160), "3"),
        ((222, 140, 372, 160), "4"),
    ):
        page.draw_rect(pymupdf.Rect(box))
        page.insert_text((box[0] + 5, box[1] + 14), text)
    assert markdown(page) == "| Both |  |\n| --- | --- |\n| One | Two |\n| 3 | 4 |"


def test_cjk_lines_are_joined_without_a_space(page: pymupdf.Page) -> None:
    page.insert_text((72, 72), ["東京は日本の首都であり、", "最も人口の多い都市である。"], fontname="japan")
    assert markdown(page) == "東京は日本の首都であり、最も人口の多い都市である。"


def test_right_to_left_text_keeps_its_order(page: pymupdf.Page) -> None:
    page.insert_htmlbox(pymupdf.Rect(72, 72, 500, 120), '<p dir="rtl">שלום עולם, זה מבחן</p>')
    assert markdown(page) == page.get_text().strip()


def test_a_frame_around_text_is_no_table(page: pymupdf.Page) -> None:
    page.draw_rect(pymupdf.Rect(60, 50, 550, 120))
    write(page, (72, 72, LONG), (72, 86, LONG))
    assert markdown(page) == f"{LONG} {LONG}"
