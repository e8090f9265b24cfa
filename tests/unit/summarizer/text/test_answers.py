"""Answers of models: strict about form, bounded in size, and their prose while it is still being written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.summarizer.domain.answers import (
    MAX_ANSWER_CHARS,
    MAX_QUOTES,
    MAX_TEXT_CHARS,
    UnreadableAnswer,
    read_answer,
)
from services.summarizer.domain.prose_stream import ProseStream
from services.summarizer.domain.values import Claim, Length, Options, Prompt, Quote, Stage, Style
from tests.unit.summarizer.text.papers import chunk, map_prompt

MAP = map_prompt(chunk("text"), most=3)
CLAIMS = (Claim("One.", (Quote("one", 1), Quote("uno", 2))), Claim("Two.", (Quote("two", 3),)), Claim("Three.", ()))
REDUCE = Prompt(Stage.REDUCE, Options(Length.SHORT, Style.PARAGRAPH, "", "", "m/m"), "m", 3, claims=CLAIMS)


def sentence(**changes: object) -> dict[str, object]:
    return {"text": "It is so.", "quotes": [{"quote": "it is so", "page": 2}], **changes}


def answer(*sentences: object) -> str:
    return json.dumps({"sentences": list(sentences)})


def test_a_good_answer() -> None:
    claims = read_answer(MAP, answer(sentence(), sentence(text=" Two\n lines. ", quotes=[])))
    assert claims == (Claim("It is so.", (Quote("it is so", 2),)), Claim("Two lines.", ()))
    assert read_answer(MAP, answer()) == ()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"sentences": {}}',
        '{"sentences": ["text"]}',
        '{"sentences": [null]}',
        "I am sorry, but I cannot do that.",
        answer(sentence(text="")),
        answer(sentence(text=" \n ")),
        answer(sentence(text=7)),
        answer(sentence(text="x" * (MAX_TEXT_CHARS + 1))),
        answer(sentence(quotes=None)),
        answer(sentence(quotes=["it is so"])),
        answer(sentence(quotes=[{"quote": "it is so"}])),
        answer(sentence(quotes=[{"quote": "it is so", "page": "2"}])),
        answer(sentence(quotes=[{"quote": "it is so", "page": True}])),
        answer(sentence(quotes=[{"quote": "x" * 5_000, "page": 1}])),
        answer(sentence()) + "x" * MAX_ANSWER_CHARS,
        "[" * 100_000,
        '{"sentences": [{"text": "It stops',
    ],
)
def test_what_has_another_form_is_refused_without_repeating_it(content: str) -> None:
    with pytest.raises(UnreadableAnswer) as refused:
        read_answer(MAP, content)
    assert "it is so" not in str(refused.value)
    assert len(str(refused.value)) < 100


def test_too_much_is_cut_to_what_was_asked_for() -> None:
    many = [sentence(quotes=[{"quote": f"q{n}", "page": n} for n in range(20)])] * 10
    claims = read_answer(MAP, answer(*many))
    assert len(claims) == 3
    assert all(len(claim.quotes) == MAX_QUOTES for claim in claims)


def test_a_page_that_cannot_be_is_no_hint() -> None:
    quotes = [{"quote": "it", "page": page} for page in (-1, 0, 10**30, 4)]
    (claim,) = read_answer(MAP, answer(sentence(quotes=quotes)))
    assert [quote.page for quote in claim.quotes] == [0, 0, 0, 4]


def test_nothing_unstorable_comes_out() -> None:
    quotes = '[{"quote": "\\udfff\\u0007 q", "page": 1}]'
    text = '{"sentences": [{"text": "a\\u0000b\\ud800c\\u001b[31m", "quotes": ' + quotes + "}]}"
    (claim,) = read_answer(MAP, text)
    assert claim == Claim("a b\ufffdc [31m", (Quote("\ufffd q", 1),))
    claim.text.encode()


def test_sources_become_the_quotes_of_the_claims_they_number() -> None:
    content = json.dumps(
        {
            "sentences": [
                {"text": "Both.", "sources": [1, 2, 1]},
                {"text": "Made up.", "sources": [0, 4, -1, "1", True]},
            ]
        }
    )
    both, made_up = read_answer(REDUCE, content)
    assert both.quotes == (Quote("one", 1), Quote("uno", 2), Quote("two", 3))
    assert made_up.quotes == ()


def prose_of(content: str, cuts: list[int]) -> str:
    stream, out, start = ProseStream(), [], 0
    for cut in [*sorted(cut % (len(content) + 1) for cut in cuts), len(content)]:
        out.append(stream.feed(content[start:cut]))
        start = cut
    return "".join(out)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "page", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
characters = st.characters(exclude_categories=["Cs", "Cc"])


@given(
    st.lists(st.tuples(st.text(characters, max_size=30), json_values), max_size=4),
    st.lists(st.integers(0, 10_000), max_size=20),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_prose_comes_out_whole_wherever_the_answer_is_cut(
    sentences: list[tuple[str, Any]], cuts: list[int], ascii_only: bool, indent: int | None
) -> None:
    written = [{"quotes": other, "text": text, "more": {"text": "never"}} for text, other in sentences]
    content = json.dumps(
        {"text": "no", "sentences": written, "x": ["text", "text"]}, ensure_ascii=ascii_only, indent=indent
    )
    assert prose_of(content, cuts) == " ".join(text for text, _ in sentences)


@given(st.text(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_prose_of_anything_is_no_error_and_does_not_depend_on_the_cuts(content: str, cuts: list[int]) -> None:
    assert prose_of(content, cuts) == prose_of(content, [])


def test_prose_has_no_halves_of_characters_and_no_controls() -> None:
    content = '{"sentences":[{"text":"\\ud83d\\ude00 \\ud83d \\ude00 \\ud83d\\u0041 \\u0000\\n\\"\\u12"}]}'
    said = prose_of(content, [])
    said.encode()
    assert said.startswith('\U0001f600 \ufffd \ufffd \ufffdA   "')
    assert all(char >= " " for char in said)
