"""Markdown of a model that read a picture becomes the page's own words."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.summarizer.domain.citations import Locator
from services.summarizer.domain.page_text import MAX_MARKDOWN_CHARS, page_text, words_of
from services.summarizer.domain.values import Page, Quote


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("# A heading\n\nAnd *some* **bold** `text`.", "A heading\n\nAnd some bold text."),
        ("![img-0.jpeg](img-0.jpeg)\n\nBelow it.", "Below it."),
        ("See [the site](https://example.test/a_b) now", "See the site now"),
        ("| Item | Price |\n| --- | ---: |\n| Bolt | 1.50 |", "Item  Price\nBolt  1.50"),
        ("<table><tr><th>Item</th><td>Bolt</td></tr><tr><td>1</td></tr></table>", "Item  Bolt\n1"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("snake_case_name stays, _this_ does not", "snake_case_name stays, this does not"),
        (r"5 \* 3 \_ \# \| \$4", "5 * 3 _ # | $4"),
        ("***\n\nafter a rule\n\n---", "after a rule"),
        ("-5 % of 3 < 4 and $x$", "-5 % of 3 < 4 and $x$"),
        ("one\r\ntwo\rthree\x00\u2028four", "one\ntwo\nthree  four"),
        ("a\ud800b", "a b"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("", ""),
    ],
)
def test_what_is_of_markdown_and_not_of_the_page_goes(markdown: str, text: str) -> None:
    assert page_text(markdown) == text


@given(st.text(max_size=400))
def test_it_never_fails_and_what_it_makes_can_be_stored(markdown: str) -> None:
    text = page_text(markdown)
    text.encode()
    assert "\x00" not in text
    assert [word.text for word in words_of(text)] == text.split()


def test_a_quote_of_the_text_is_found_among_its_words() -> None:
    text = page_text("# Invoice\n\n| Item | Price |\n|---|---|\n| Bolt, **steel** | 1,284.50 € |\n\nDue on 3 May.")
    locator = Locator([Page(1, text, words_of(text), scanned=True, parsed=())])
    for quote in ("Bolt, steel 1,284.50 €", "Item  Price\nBolt", "Due on 3 May."):
        found = locator.locate(Quote(quote, 1))
        assert found is not None, quote
        assert (found.boxes, found.by_model) == ((), True)
    assert locator.locate(Quote("Bolt, steel 1,234.50 €", 1)) is None


@pytest.mark.parametrize("bit", ["*", "_ ", "[", "![a](", "<a", "|", "\\", "| --- ", "***_", "[a](b"])
def test_no_text_takes_long(bit: str) -> None:
    begun = time.process_time()
    page_text(bit * (2 * MAX_MARKDOWN_CHARS // len(bit)))
    # 0.1 s of computing; five times that on a slow machine is still far from what a bad pattern takes.
    assert time.process_time() - begun < 20
