"""The query language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.extractor.domain.search_query import MAX_TERMS, Query, Term, parse_query
from services.runtime.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "groups", "excluded"),
    [
        ("engine", [["engine"]], []),
        ("red  engine\n", [["red"], ["engine"]], []),
        ('"red engine" car', [["red engine"], ["car"]], []),
        ('"red  engine', [["red engine"]], []),
        ("car -red -'blue", [["car"]], ["red", "'blue"]),
        ('car -"red engine"', [["car"]], ["red engine"]),
        ("--engine car", [["car"]], ["engine"]),
        ("car or ship", [["car", "ship"]], []),
        ("fast car OR ship or plane", [["fast"], ["car", "ship", "plane"]], []),
        ("car or", [["car"], ["or"]], []),
        ("or car", [["or"], ["car"]], []),
        ("or", [["or"]], []),
        ("a or or b", [["a", "or"], ["b"]], []),
        ("a or -b", [["a"], ["or"]], ["b"]),
        ('"or" b', [["or"], ["b"]], []),
        ("foo-bar", [["foo-bar"]], []),
        ("- * + car & |", [["car"]], []),
        ('a"b c"d', [["a"], ["b c"], ["d"]], []),
    ],
)
def test_what_a_query_means(text: str, groups: list[list[str]], excluded: list[str]) -> None:
    parsed = parse_query(text)
    assert [[term.text for term in group] for group in parsed.groups] == groups
    assert [term.text for term in parsed.excluded] == excluded


def test_prefixes() -> None:
    assert parse_query("eng* -ca** *x") == Query(
        ((Term("eng", prefix=True),), (Term("*x"),)), (Term("ca", prefix=True),)
    )


@pytest.mark.parametrize("text", ["-engine", '-"a b" -c*', "- * !", '""', "   ", "&|()"])
def test_nothing_to_look_for_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_query(text)
    assert refused.value.reason == "SEARCH_QUERY_INVALID"
    assert [violation.field for violation in refused.value.fields] == ["query"]


def test_a_query_has_at_most_so_many_terms() -> None:
    words = [f"w{number}" for number in range(MAX_TERMS)]
    assert len(parse_query(" or ".join(words)).wanted) == MAX_TERMS
    with pytest.raises(InvalidArgument, match="more than 32"):
        parse_query(" ".join(words) + " -more")


@given(st.text(max_size=1000))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        parsed = parse_query(text)
    except InvalidArgument:
        return
    assert parsed.groups
    for term in (*parsed.wanted, *parsed.excluded):
        assert any(letter.isalnum() for letter in term.text)
        assert term.text == " ".join(term.text.split())
