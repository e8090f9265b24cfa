"""How well texts match: rare words count more, endings do not, and what is missing is known."""

import pytest

from services.summarizer.domain.matching import Match, Terms, matches, words_of


def best(terms: Terms, *texts: str) -> int:
    found = matches(terms, texts)
    return max(range(len(texts)), key=lambda i: found[i].score)


@pytest.mark.parametrize(
    ("term", "word"),
    [
        ("notice", "notices"),
        ("sign", "Signed"),
        ("party", "parties"),
        ("terminate", "termination"),
        ("vertrag", "Verträge"),
        ("kundigung", "Kündigungen"),
        ("2023", "2023"),
        ("iii", "III"),
    ],
)
def test_a_word_may_end_otherwise(term: str, word: str) -> None:
    (match,) = matches(Terms((term,)), [f"Here is {word}, said somebody."])
    assert match.score > 0
    assert match.coverage == 1


@pytest.mark.parametrize(
    ("term", "word"),
    [
        ("state", "station"),
        ("contract", "contrast"),
        ("sign", "significant"),
        ("2023", "20234"),
        ("par", "parliament"),
        ("x1", "x12"),
    ],
)
def test_another_word_is_another_word(term: str, word: str) -> None:
    assert matches(Terms((term,)), [f"Here is {word}, said somebody."]) == [Match(0.0, 0.0)]


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    common = [f"The contract number {n} is a contract of contracts." for n in range(9)]
    assert best(Terms(("contract", "acme")), *common, "Acme is named here, once.") == 9


def test_a_short_text_counts_more_than_a_long_one_that_says_it_as_often() -> None:
    assert best(Terms(("acme",)), "Acme. " + "Other words. " * 50, "Acme is here.") == 1


def test_coverage_is_the_share_of_the_question_that_is_there() -> None:
    whole, part, none = matches(Terms(("notice", "period")), ["notice period", "a notice", "nothing of it"])
    assert (whole.coverage, none.coverage) == (1, 0)
    assert 0 < part.coverage < 1
    (unknown,) = matches(Terms(("notice", "zebra")), ["a notice"])
    assert unknown.coverage < 0.5, "a word that nobody says weighs most"


def test_a_phrase_is_its_words_in_a_row() -> None:
    terms = Terms((), (("annual", "revenue"),))
    said, not_said = matches(terms, ["The Annual\nRevenue grew.", "Revenue is annual."])
    assert said.coverage == 1
    assert not_said.score == 0


def test_nothing_is_compared_with_nothing() -> None:
    assert matches(Terms(("a",)), []) == []
    assert matches(Terms(()), ["text"]) == [Match(0.0, 0.0)]
    assert matches(Terms(("a",)), [""]) == [Match(0.0, 0.0)]


def test_words_are_folded() -> None:
    assert words_of("\uff26\uff55\uff4c\uff4c Straße É_x don't \ufb01ne") == [
        "full",
        "strasse",
        "e",
        "x",
        "don",
        "t",
        "fine",
    ]
    assert words_of("東京都") == ["東京", "京都"]
