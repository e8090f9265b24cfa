"""A true quote is found whatever happened to its spelling; what is not on a page is not found."""

import random
import re
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.summarizer.domain.citations import MAX_QUOTE_CHARS, MAX_WORD_CHARS, Locator, locate
from services.summarizer.domain.folding import fold
from services.summarizer.domain.values import Box, Citation, Page, Quote
from tests.unit.summarizer.text.papers import CORPUS, needs_corpus, page, pdf_pages

FIRST = page(
    1,
    "We present a new method for the segmen-",
    "tation of eﬃcient “neural” networks, which costs",
    "1.5 million dollars — not 15 — and is not slow.",
)
SECOND = page(2, "Results improve by 12% on all data sets (see Table 3).", "The naïve baseline fails.")
BOTH = {1: FIRST, 2: SECOND}


def found(text: str, hint: int = 0) -> Citation | None:
    return locate(Quote(text, hint), BOTH)


def test_a_quote_carries_the_words_and_boxes_of_the_page() -> None:
    assert found("a new method", 1) == Citation(1, "a new method", (Box(20, 0, 49, 10),))


def test_a_quote_over_two_lines_has_a_box_for_each() -> None:
    citation = found("method for the segmentation of")
    assert citation is not None
    assert citation.quote == "method for the segmen- tation of"
    assert citation.boxes == (Box(40, 0, 79, 10), Box(0, 12, 19, 22))


@pytest.mark.parametrize(
    "text",
    [
        "segmentation of efficient neural networks",
        "SEGMENTATION  OF\nEFFICIENT",
        "seg\u00admentation of efficient “neural” networks",
        "„neural‟ networks, which costs",
        "costs 1.5 million dollars - not 15 - and",
        "and is not slow.”",
        "on all data sets (see Table 3)",
        "all data sets see Table 3.",
        "the nai\u0308ve baseline fails",
        "The na\u00a8\u0131ve baseline fails",
    ],
)
def test_spelling_does_not_matter(text: str) -> None:
    assert found(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "costs 15 million dollars",
        "improve by 1.2% on all data sets",
        "improve by 21% on all data sets",
        "costs 1.5 million dollars and is slow",
        "Results do not improve by 12% on all data sets",
        "resent a new method",
        "a new met",
        "an entirely different sentence of another document",
        "",
        " … ",
        "...",
        "—",
    ],
)
def test_what_does_not_stand_there_is_not_found(text: str) -> None:
    assert found(text, 1) is None


@pytest.mark.parametrize(
    "text",
    [
        "We present a new metod for the segmentation of efficient neural networks, wich costs",
        "We present a new method for segmentation of efficient neural networks, which costs",
        "We present a new methdo for the segmentation",
        "Results improve by 12% on all the data sets (see Table 3).",
    ],
)
def test_slips_are_forgiven(text: str) -> None:
    assert found(text) is not None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("grew by 15 percent in the first quarter of the year", True),
        ("grew by 51 percent in the first quarter of the year", False),
        ("grew by percent in the first quarter of the year", True),
        ("grew by 15 percent in the first 3 quarter of the year", False),
        ("costs did not rise in the last quarter of that year", True),
        ("costs did rise in the last quarter of that year", False),
        ("costs did not rise in the very last quarter of that year", True),
        ("grew by 15 percent not in the first quarter of the year", False),
    ],
)
def test_in_a_long_quote_too_numbers_and_negations_have_to_be_right(said: str, found: bool) -> None:
    """A word less or more is a slip in quotes this long; these words are not."""
    first = "Sales grew by 15 percent in the first quarter of the year."
    report = page(1, first, "The costs did not rise in the last", "quarter of that year, as was said.")
    assert (locate(Quote(said, 1), {1: report}) is not None) == found


def test_marks_between_words_are_passed_over() -> None:
    marked = {1: page(1, "This was shown by others 7 and then confirmed1 by all of us")}
    assert locate(Quote("was shown by others and then confirmed", 1), marked) is not None
    assert locate(Quote("others 7 and then confirmed", 1), marked) is not None
    assert locate(Quote("confirmed by others and then all of us", 1), marked) is None


def test_the_hinted_page_comes_first_and_a_wrong_hint_does_no_harm() -> None:
    twice = {n: page(n, f"Heading {n}", "the same words on every page") for n in (1, 2, 3)}
    for hint in (1, 2, 3):
        citation = locate(Quote("the same words on every page", hint), twice)
        assert citation is not None
        assert citation.page == hint
    for hint in (0, 9, -1):
        assert found("Results improve by 12%", hint) == found("Results improve by 12%", 2)


def test_the_occurrence_that_is_spelled_alike_is_preferred() -> None:
    both = page(1, "the great Method is not", "The Great Method is")
    citation = locate(Quote("The Great Method", 1), {1: both})
    assert citation is not None
    assert citation.boxes == (Box(0, 12, 29, 22),)


def test_a_short_quote_is_only_looked_for_where_it_is_said_to_stand() -> None:
    assert found("12%", 2) is not None
    assert found("12%", 1) is None
    assert found("12%", 0) is None
    assert found("on al", 2) is None


def test_left_out_words_are_found_around_the_ellipsis() -> None:
    citation = found("We present a new method … networks, which costs")
    assert citation is not None
    assert citation.quote == "We present a new method … networks, which costs"
    assert len(citation.boxes) == 2
    assert found("networks, which costs … We present a new method") is None, "in this order only"
    assert found("a … b … c … d … e … f") is None


def test_leaders_of_a_table_of_contents_are_no_ellipsis() -> None:
    contents = page(1, "Introduction.........12 Methods and data.........34")
    assert locate(Quote("Introduction.........12 Methods and data.........34", 1), {1: contents}) is not None


def test_scripts_without_spaces_are_found_within_a_word() -> None:
    japanese = page(4, "固有表現抽出は文章中に現れる固有表現をタグ付けする。")
    citation = locate(Quote("文章中に現れる固有表現を", 0), {4: japanese})
    assert citation is not None
    assert citation.page == 4
    assert locate(Quote("文章中に現れない固有名詞を", 0), {4: japanese}) is None


def test_bounds() -> None:
    long = page(1, *(" ".join(f"w{line}x{word}" for word in range(10)) for line in range(300)))
    words = [word.text for word in long.words]
    assert locate(Quote(" ".join(words[:100]), 1), {1: long}) is not None
    assert locate(Quote(" ".join(words[:2500]), 1), {1: long}) is None, "more lines than a citation may touch"
    assert locate(Quote("x" * (MAX_QUOTE_CHARS + 1), 1), {1: long}) is None
    assert locate(Quote("anything at all here", 1), {}) is None
    assert locate(Quote("anything at all here", 1), {1: Page(1, "", ())}) is None


def test_hostile_pages_take_bounded_work() -> None:
    """The same word without an end is the worst case of both searches."""
    locator = Locator([page(n, *["the the the the the the the the the the"] * 300) for n in range(1, 40)])
    assert locator.locate(Quote("the " * 390 + "end of it", 0)) is None
    assert locator.locate(Quote("the " * 700, 3)) is not None


def test_words_without_an_end_take_bounded_room() -> None:
    phrase = "\ufdfa"  # one character that stands for a phrase of 18
    words = ["\ufb01" * 10_000, phrase * 10_000]
    assert all(len(fold(word[:MAX_WORD_CHARS])) <= 2 * MAX_WORD_CHARS for word in words)
    locator = Locator([page(1, *words * 20, f"The {phrase} is said here by everybody.")])
    found = locator.locate(Quote(f"The {phrase} is said here", 1))
    assert found is not None
    assert found.quote == f"The {phrase} is said here"
    assert locator.locate(Quote("\ufb01" * MAX_QUOTE_CHARS, 1)) is None


def test_of_a_word_without_an_end_only_the_beginning_is_looked_at() -> None:
    line = "".join(chr(0x4E00 + index) for index in range(2 * MAX_WORD_CHARS))
    locator = Locator([page(1, line)])
    assert locator.locate(Quote(line[MAX_WORD_CHARS - 40 : MAX_WORD_CHARS], 1)) is not None
    assert locator.locate(Quote(line[MAX_WORD_CHARS : MAX_WORD_CHARS + 40], 1)) is None


# Letters of words that folding keeps, so that a distortion never empties one.
vocabulary = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzäéß"), min_size=1, max_size=9)
DISTORTIONS: dict[str, Callable[[list[str], random.Random], str]] = {
    "as it is": lambda words, rng: " ".join(words),
    "capitals": lambda words, rng: " ".join(words).upper(),
    "white space": lambda words, rng: "".join(word + rng.choice([" ", "\n", "  ", "\u00a0"]) for word in words),
    "quotation marks": lambda words, rng: f"“{' '.join(words)}.”",
    "ligatures": lambda words, rng: " ".join(words).replace("fi", "ﬁ").replace("fl", "ﬂ").replace("ff", "ﬀ"),
    "soft hyphens": lambda words, rng: " ".join(word[:2] + "\u00ad" + word[2:] for word in words),
    "hyphenation": lambda words, rng: " ".join(
        f"{w[:3]}-\n{w[3:]}" if len(w) > 6 and w.isalpha() else w for w in words
    ),
    "joined lines": lambda words, rng: re.sub(r"(\w)[-\u00ad] (?=[a-z])", r"\1", " ".join(words)),
    "dashes": lambda words, rng: " ".join(words).replace("-", "\u2013"),
}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(vocabulary, min_size=12, max_size=60),
    st.data(),
    st.sampled_from(sorted(DISTORTIONS)),
    st.integers(0, 2**32),
)
def test_distorted_quotes_of_a_page_are_found(words: list[str], data: st.DataObject, name: str, seed: int) -> None:
    size = data.draw(st.integers(5, 12))
    start = data.draw(st.integers(0, len(words) - size))
    quoted = words[start : start + size]
    assume(len("".join(map(fold, quoted))) >= 12)
    lines = [" ".join(words[i : i + 7]) for i in range(0, len(words), 7)]
    text = DISTORTIONS[name](quoted, random.Random(seed))
    citation = locate(Quote(text, data.draw(st.integers(0, 3))), {2: page(2, *lines)})
    assert citation is not None
    assert "".join(map(fold, citation.quote.split())) == "".join(map(fold, text.split()))


@settings(max_examples=200, deadline=None)
@given(st.lists(vocabulary, min_size=12, max_size=60), st.lists(vocabulary, min_size=8, max_size=20))
def test_words_of_another_page_are_not_found(words: list[str], others: list[str]) -> None:
    assume(len(set(others) - set(words)) * 2 > len(others))
    assert locate(Quote(" ".join(others), 0), {1: page(1, " ".join(words))}) is None


def samples(documents: dict[str, list[Page]], each: int, rng: random.Random) -> list[tuple[str, int, list[str]]]:
    """(document, page, 8 to 24 words that stand together) of pages with text."""
    chosen = []
    for name, pages in documents.items():
        full = [p for p in pages if len(p.words) >= 24]
        for _ in range(min(each, 6 * len(full))):
            source = rng.choice(full)
            size = rng.randrange(8, 25)
            start = rng.randrange(len(source.words) - size + 1)
            words = [word.text for word in source.words[start : start + size]]
            if sum(char.isalpha() for char in "".join(words)) >= 20:
                chosen.append((name, source.number, words))
    return chosen


@needs_corpus
@pytest.mark.corpus
def test_real_papers_at_least_99_percent_found_and_under_1_in_1000_false() -> None:
    rng = random.Random(20)
    files = [CORPUS / "papers" / "GeoTopo-komprimiert.pdf", *sorted((CORPUS / "clean").glob("*.pdf"))]
    documents = {path.name: pdf_pages(path) for path in files}
    locators = {name: Locator(pages) for name, pages in documents.items()}
    # Some of the files are versions of each other; what truly stands in both is no false match.
    texts = {name: "".join(fold(w.text) for p in pages for w in p.words) for name, pages in documents.items()}
    quotes = samples(documents, 40, rng)
    sought = missed = 0
    for name, number, words in quotes:
        for distort in DISTORTIONS.values():
            sought += 1
            missed += locators[name].locate(Quote(distort(words, rng), rng.choice([number, 0, number + 1]))) is None
    assert sought > 3_000
    assert missed / sought <= 0.01
    tried = false = 0
    for name, _, words in quotes:
        for other in rng.sample(sorted(locators), 10):
            if other == name or "".join(map(fold, words)) in texts[other]:
                continue
            tried += 1
            false += locators[other].locate(Quote(" ".join(words), rng.choice([0, 1]))) is not None
    assert tried > 3_000
    assert false / tried < 0.001
