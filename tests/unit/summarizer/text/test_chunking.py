"""Chunks hold every word of every page, fit the budget, and are the same on every run."""

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.summarizer.domain.chunking import MIN_TOKENS, plan
from services.summarizer.domain.values import Chunk, Page


def count_words(text: str) -> int:
    return len(text.split())


def count_quarters(text: str) -> int:
    return -(-len(text) // 4)


def pages_of(*texts: str) -> list[Page]:
    return [Page(number, text, ()) for number, text in enumerate(texts, start=1)]


def text_by_page(chunks: list[Chunk]) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in chunks:
        for start, end, page in chunk.spans:
            found[page] = found.get(page, "") + chunk.text[start:end]
    return found


def squeezed(text: str) -> str:
    return "".join(text.split())


texts = st.text(st.sampled_from("ab .\n!日本。\u00a0é-"), max_size=1500)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=6), st.integers(MIN_TOKENS, 400))
def test_nothing_is_lost_and_everything_fits(contents: list[str], max_tokens: int) -> None:
    chunks = list(plan(pages_of(*contents), max_tokens=max_tokens, count=count_quarters))
    by_page = text_by_page(chunks)
    for number, content in enumerate(contents, start=1):
        assert squeezed(by_page.get(number, "")) == squeezed(content)
    for index, chunk in enumerate(chunks):
        assert chunk.index == index
        assert count_quarters(chunk.text) <= max_tokens
        assert chunk.text.strip()
        assert [start for start, _, _ in chunk.spans] == [0, *(end for _, end, _ in chunk.spans[:-1])]
        assert chunk.spans[-1][1] == len(chunk.text)
        assert list(chunk.pages) == [page for _, _, page in chunk.spans], "each page once, ascending"


def test_the_same_pages_give_the_same_chunks() -> None:
    pages = pages_of(*(f"Page {n}. " + "Some words stand here. " * 40 for n in range(30)))
    first, second = (list(plan(pages, max_tokens=300, count=count_words)) for _ in range(2))
    assert first == second
    assert len(first) > 10


def test_small_pages_stay_whole() -> None:
    chunks = list(plan(pages_of(*["word " * 30] * 12), max_tokens=MIN_TOKENS * 2, count=count_words))
    assert all(len(squeezed(chunk.text)) == 4 * 30 * len(chunk.pages) for chunk in chunks)
    assert sum(len(chunk.pages) for chunk in chunks) == 12


def test_a_large_page_is_cut_at_paragraphs() -> None:
    paragraph = "One sentence stands here. Another one follows it at once."
    content = "\n\n".join([paragraph] * 60)
    chunks = list(plan(pages_of(content), max_tokens=MIN_TOKENS * 2, count=count_words))
    assert len(chunks) > 3
    assert all(chunk.text.endswith("at once.") and chunk.text.startswith("One sentence") for chunk in chunks)


def test_pieces_of_a_large_page_fill_chunks_and_never_overfill_them() -> None:
    chunks = list(plan(pages_of("several words make a line\n" * 8_000), max_tokens=4_000, count=count_words))
    sizes = [count_words(chunk.text) for chunk in chunks]
    assert max(sizes) <= 4_000
    assert min(sizes[:-1]) > 3_000


def test_text_without_any_border_is_cut_all_the_same() -> None:
    chunks = list(plan(pages_of("日" * 5_000), max_tokens=100, count=len))
    assert sum(len(chunk.text) for chunk in chunks) == 5_000
    assert all(len(chunk.text) <= 100 for chunk in chunks)


def test_pages_without_text_are_left_out() -> None:
    assert list(plan(pages_of("", " \n\t ", "\u00a0"), max_tokens=100, count=count_words)) == []
    (only,) = plan(pages_of("", "word", ""), max_tokens=100, count=count_words)
    assert only.spans == ((0, 4, 2),)


def test_a_budget_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        list(plan([], max_tokens=MIN_TOKENS - 1, count=len))


def test_ten_thousand_pages_take_the_memory_of_one_chunk() -> None:
    content = "A line of text that is about as long as such lines are.\n" * 50
    produced = 0

    def endless() -> Iterator[Page]:
        nonlocal produced
        for number in range(1, 10_001):
            produced += 1
            yield Page(number, content, ())

    tracemalloc.start()
    try:
        chunks = sum(1 for _ in plan(endless(), max_tokens=16_000, count=count_quarters))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert produced == 10_000
    assert chunks > 300
    assert peak_bytes < 2_000_000, "a chunk is 64 kB; the document would be 28 MB"


def test_a_page_of_megabytes_is_counted_about_once() -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return count_quarters(text)

    content = "Words without an end, and no full stop, " * 130_000
    chunks = list(plan(pages_of(content), max_tokens=16_000, count=count))
    assert squeezed("".join(chunk.text for chunk in chunks)) == squeezed(content)
    assert counted < 3 * len(content)
