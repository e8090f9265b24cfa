"""Nothing that a reader's program would load, follow or run comes out of a model's text."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.summarizer.domain.plain_output import PlainStream, plain


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("A plain sentence, with (brackets) and [notes].", "A plain sentence, with (brackets) and [notes]."),
        ("p < 0.05 and 3 > 2 and a<b", "p < 0.05 and 3 > 2 and a\u2039b"),
        ("![x](https://evil.example/?d=1)", "x"),
        ("[label](https://evil.example) stays", "label stays"),
        ("[![in](http://a.example/i)](http://b.example/l)", "in"),
        ("Go to https://evil.example/x?d=1, now.", "Go to , now."),
        ("//evil.example/x", ""),
        ("www.evil.example/x", ""),
        ("mail me@evil.example today", "mail  today"),
        ("evil.com/path and evil.com", " and "),
        ("javascript:alert(1)", ")"),
        ("<b>bold</b> and <img src=x onerror=alert(1)>", "bold and "),
        ("<scr<script>ipt>alert(1)</script>", "alert(1)"),
        ("an open <img src=x", "an open \u2039img src=x"),
        ("<!-- a comment --> text", " text"),
        ("a\u202eb\u200bc\u2066d", "abcd"),
        ("e.g. this, i.e. that, U.S. law, 3.14, v1.2.3", "e.g. this, i.e. that, U.S. law, 3.14, v1.2.3"),
        ("\u0645\u06cc\u200c\u062e\u0648", "\u0645\u06cc\u200c\u062e\u0648"),
    ],
)
def test_what_is_left(said: str, left: str) -> None:
    assert plain(said) == left
    stream = PlainStream()
    assert "".join(stream.feed(char) for char in said) + stream.finish() == left


def test_an_address_that_is_known_stays_as_text() -> None:
    said = "The report is at https://agency.example/report.pdf, it says."
    assert plain(said, lambda address: address == "https://agency.example/report.pdf") == said
    assert plain("[a][ref] and [ref]: https://agency.example/a", lambda _: True) == "a and "
    assert plain("[it](https://agency.example/a) says", lambda _: True) == "it says"
    assert plain("javascript:alert says", lambda _: True) == " says"


_PIECES = [
    "<img src=x ",
    "<script>",
    "![a](",
    "[b](",
    "https://evil.example/",
    ")",
    "]",
    ">",
    "javascript:x ",
    "// ",
    "a ",
]


@settings(max_examples=300, deadline=None)
@example(["<", "![a](", "<img src=x "], 1)
@given(st.lists(st.sampled_from(_PIECES) | st.text("ab<>[]()!/:. ", max_size=6), max_size=14), st.integers(1, 9))
def test_nothing_gets_through_however_it_is_cut(parts: list[str], size: int) -> None:
    said = "".join(parts)
    stream = PlainStream()
    streamed = "".join(stream.feed(said[at : at + size]) for at in range(0, len(said), size)) + stream.finish()
    for text in (plain(said), streamed):
        assert not re.search(r"<[a-z/!?]|https?:|javascript:\S|evil\.example", text, re.IGNORECASE), text


def test_a_stream_keeps_back_no_more_than_it_must() -> None:
    stream = PlainStream()
    assert stream.feed("Two words ") == "Two words "
    assert stream.feed("and <b") == "and "
    assert stream.feed("x" * 1_000)
