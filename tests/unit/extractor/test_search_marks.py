"""Snippets and boxes: what of a page is marked."""

from hypothesis import given
from hypothesis import strategies as st

from services.extractor.domain.search_marks import MAX_BOXES, MAX_SNIPPETS, Box, PageText, marks, words_of
from services.extractor.domain.search_query import Term, parse_query

STOP = {"the", "of", "a"}


def stem(word: str) -> list[str]:
    """As an index would keep it: lower, without signs and without the plural."""
    kept = "".join(letter for letter in word.lower() if letter.isalnum())
    return [kept.removesuffix("s")] if kept and kept not in STOP else []


def page(text: str) -> PageText:
    words = text.split()
    return PageText(text, words, [Box(at, 0, at + 1, 1) for at in range(len(words))])


def marked(text: str, query: str) -> tuple[list[str], list[float]]:
    """The highlighted pieces of the snippets, and which words' boxes came."""
    terms = parse_query(query).wanted
    found = marks(page(text), terms, {word: stem(word) for word in words_of(page(text), terms)})
    pieces = [snippet.text[begin:end] for snippet in found.snippets for begin, end in snippet.highlights]
    return pieces, [box.x0 for box in found.boxes]


def test_words_in_any_form_without_the_signs_around_them() -> None:
    assert marked("The (Engine) and two engines, said.", "engine") == (["Engine", "engines"], [1, 4])


def test_phrases_only_where_the_words_follow_each_other() -> None:
    text = "red engine and red car and an engine - red engines"
    assert marked(text, '"red engine"') == (["red", "engine", "red", "engines"], [0, 1, 9, 10])
    assert marked(text, '"engine car"') == ([], [])


def test_a_phrase_with_words_that_the_index_leaves_out() -> None:
    assert marked("State of the art, state an art", '"state of the art"') == (["State", "art"], [0, 3])


def test_prefixes() -> None:
    assert marked("Engineers build engines.", "engi*") == (["Engineers", "engines"], [0, 2])


def test_excluded_words_are_not_marked() -> None:
    assert marked("engine car", "engine -ship") == (["engine"], [0])


def test_in_scripts_without_spaces_the_term_is_marked_and_not_its_line() -> None:
    terms = (Term("検索"),)
    found = marks(page("全文検索エンジン"), terms, {"全文検索エンジン": ["全文", "文検", "検索"], "検索": ["検索"]})
    assert found.snippets[0].highlights == [(2, 4)]


def test_the_best_pieces_of_a_long_page_in_its_order() -> None:
    filler = " ".join(f"word{number}" for number in range(200))
    text = f"engine {filler} engine {filler} engine car {filler} engine ship car {filler} engine"
    terms = parse_query("engine car ship").wanted
    found = marks(page(text), terms, {word: stem(word) for word in words_of(page(text), terms)})
    assert len(found.snippets) == MAX_SNIPPETS
    assert "engine car" in found.snippets[1].text
    assert "engine ship car" in found.snippets[2].text
    assert all(len(snippet.text) <= 400 for snippet in found.snippets)


def test_a_page_on_which_nothing_is_recognised_shows_its_beginning() -> None:
    found = marks(page("word " * 500), (Term("other"),), {"word": ["word"], "other": ["other"]})
    assert len(found.snippets) == 1
    assert not found.snippets[0].highlights
    assert found.snippets[0].text.startswith("word word")


def test_boxes_are_bounded() -> None:
    assert len(marked("engine " * 5000, "engine")[1]) == MAX_BOXES


@given(st.text(max_size=600) | st.text(alphabet="ab 検索.\n", max_size=2000), st.sampled_from(["a", "b", "検索", "a*"]))
def test_ranges_are_in_the_text_in_order_and_within_bounds(text: str, query: str) -> None:
    terms = parse_query(query).wanted
    found = marks(page(text), terms, {word: stem(word) for word in words_of(page(text), terms)})
    for snippet in found.snippets:
        assert len(snippet.text) <= 2000
        assert len(snippet.highlights) <= 200
        at = 0
        for begin, end in snippet.highlights:
            assert at <= begin <= end <= len(snippet.text)
            at = end


class Counted(str):
    """A word that counts how often it is compared or looked up."""

    looked_up = 0

    def __hash__(self) -> int:
        Counted.looked_up += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


def test_a_long_phrase_that_nearly_matches_everywhere_ends_soon() -> None:
    words = [Counted("aa")] * 20_000
    text = PageText("", words, [Box(0, 0, 1, 1)] * len(words))
    terms = (Term("aa"), Term(" ".join(["aa"] * 299 + ["bb"])))
    Counted.looked_up = 0
    found = marks(text, terms, {"aa": ["aa"], "bb": ["bb"]})
    assert len(found.boxes) == MAX_BOXES
    assert Counted.looked_up < 500_000


def test_a_query_of_many_words_goes_through_a_pages_words_once() -> None:
    words = [Counted(f"w{number}") for number in range(2_000)]
    text = PageText("", words, [Box(0, 0, 1, 1)] * len(words))
    terms = (Term("w1"), Term(" ".join(f"w{number}" for number in range(100, 400))))
    lexemes = {str(word): [str(word)] for word in words}
    Counted.looked_up = 0
    assert len(marks(text, terms, lexemes).boxes) == 301
    assert Counted.looked_up < 50_000
