"""From a question to what is looked for: its words, its phrases, and searches that ask for ever less."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.extractor.domain.search_query import parse_query
from services.summarizer.domain.matching import words_of
from services.summarizer.domain.nothing_found import nothing_found
from services.summarizer.domain.questions import MAX_QUERY_CHARS, Wanted, ladder, question_language, wanted


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is the notice period in the agreement with Acme?", "notice period agreement Acme"),
        ("Was ist die Kündigungsfrist im Vertrag mit der Acme GmbH?", "Kündigungsfrist Vertrag Acme GmbH"),
        ("Quelle est la durée du préavis ?", "durée préavis"),
        ("¿Cuál es el plazo de preaviso?", "plazo preaviso"),
        ("How many die in ISO-9001 plants, e.g. in 2023?", "die ISO-9001 plants e.g 2023"),
        ("notice NOTICE notices", "notice notices"),
        ("Who are you?", "Who are you"),
        ("Σύμβαση ΣΎΜΒΑΣΗ", "Σύμβαση"),
    ],
)
def test_words_that_only_ask_are_left_out(question: str, words: str) -> None:
    assert wanted(question).words == tuple(words.split())


def test_what_is_quoted_is_a_phrase_and_no_word() -> None:
    found = wanted('How much is "annual   revenue", „net income“ or "!" in 2023?')
    assert found == Wanted(("2023",), ("annual revenue", "net income"))
    assert found.terms.phrases == (("annual", "revenue"), ("net", "income"))


def test_scripts_without_spaces_are_looked_for_by_pairs() -> None:
    assert wanted("合同期限").words == ("合同", "同期", "期限")


def test_the_ladder_goes_from_all_words_to_any() -> None:
    steps = list(ladder(wanted("notice period agreement Acme")))
    sizes = [[len(group) for group in parse_query(step).groups] for step in steps]
    assert sizes == [[1] * 4, [2] * 6, [3] * 4, [4]]
    assert list(ladder(Wanted((), ("annual revenue",)))) == ['"annual revenue"']


@pytest.mark.parametrize("count", range(1, 7))
def test_each_step_asks_for_at_least_so_many_of_the_words(count: int) -> None:
    words = tuple(f"w{n}" for n in range(count))
    leasts = []
    for step in ladder(Wanted(words, ())):
        query = parse_query(step)
        passing = [
            size
            for size in range(count + 1)
            for held in itertools.combinations(words, size)
            if all(any(term.text in held for term in group) for group in query.groups)
        ]
        assert set(passing) == set(range(min(passing), count + 1))
        assert len(passing) == sum(1 for n in range(min(passing), count + 1) for _ in itertools.combinations(words, n))
        leasts.append(min(passing))
    assert leasts == sorted(leasts, reverse=True)
    assert (leasts[0], leasts[-1]) == (count, 1)


@given(st.text(max_size=1_000))
def test_every_question_becomes_queries_that_the_search_takes(question: str) -> None:
    found = wanted(question)
    for step in ladder(found):
        assert len(step) <= MAX_QUERY_CHARS
        query = parse_query(step)
        assert query.excluded == ()
        assert not any(term.prefix for term in query.wanted)
    assert bool(found.words or found.phrases) == any(words_of(question))


def test_signs_of_the_search_mean_nothing_in_a_question() -> None:
    (step, *_) = ladder(wanted('-contract* or OR "x" -"y z" ( notice'))
    query = parse_query(step)
    assert query.excluded == ()
    assert not any(term.prefix for term in query.wanted)


@pytest.mark.parametrize(
    ("question", "language"),
    [("What is it?", "en"), ("Was ist das?", "de"), ("Où est-il ?", "fr"), ("Zebra", ""), ("这是什么", "")],
)
def test_the_language_of_a_question(question: str, language: str) -> None:
    assert question_language(question) == language


def test_nothing_found_is_said_in_the_language_that_was_asked_for() -> None:
    assert nothing_found("de-AT", "What is it?").startswith("Die Dokumente")
    assert nothing_found("", "Wat is dit voor een contract?").startswith("De documenten")
    assert nothing_found("ja", "Was ist das?").startswith("The documents")
