"""The use case of searching: what is read of the hits, and what happens where that cannot be had."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from services.extractor.__main__ import search_busy
from services.extractor.adapters.memory_search import MemorySearch
from services.extractor.domain import search as search_module
from services.extractor.domain.extract import Extraction
from services.extractor.domain.pages import ExtractionEvent, OcrMode, Page, PageFlag, Part
from services.extractor.domain.search import Search, SearchPages, SearchResults
from services.extractor.domain.search_marks import Box, Lexemes, PageText
from services.runtime.errors import InvalidArgument, ResourceExhausted
from services.waiting.fair_slots import FairSlots
from tests.unit.extractor.scripted import a_document

DOCUMENT = a_document()
TEXT = "The red engine of the ship."
BOXES = [Box(at, 0, at + 1, 1) for at in range(6)]


@dataclass
class Pages:
    """Extraction by a script; `answer` may raise, wait, or say that there is no text."""

    answer: Callable[[Extraction], "PageFlag | Exception | None"] = lambda _: PageFlag.NONE
    asked: list[Extraction] = field(default_factory=list)
    index: MemorySearch = field(default_factory=MemorySearch)
    turns: FairSlots = field(default_factory=lambda: FairSlots(size=1, max_waiting=2, busy=search_busy))

    def __post_init__(self) -> None:
        for page in range(1, 6):
            self.index.add(DOCUMENT, page, TEXT + " more" * page)

    async def extract(
        self, extraction: Extraction, *, remaining_s: Callable[[], float | None]
    ) -> AsyncGenerator[Sequence[ExtractionEvent], None]:
        self.asked.append(extraction)
        answer = self.answer(extraction)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, PageFlag)
        yield [Page(extraction.first_page, b"words" if Part.WORDS in extraction.parts else b"text", answer)]

    async def search(self, query: str = "engine", remaining_s: float | None = None, **asked: object) -> SearchResults:
        use_case = SearchPages(index=self.index, extract=self.extract, decode=decode, turns=self.turns)
        search = Search("acme", query, **asked)  # type: ignore[arg-type]
        return await use_case(search, remaining_s=lambda: remaining_s)


def decode(page: Page) -> PageText:
    return PageText(TEXT, TEXT.split(), BOXES) if page.content == b"words" else PageText(TEXT)


def boxes(found: SearchResults) -> list[int]:
    return [len(hit.marks.boxes) for hit in found.hits]


async def test_pages_are_read_with_their_words_and_without_recognition() -> None:
    pages = Pages()
    found = await pages.search("engine", page_size=2)
    assert boxes(found) == [1, 1]
    assert found.hits[0].marks.boxes == [BOXES[2]]
    assert [(each.parts, each.ocr) for each in pages.asked] == [(Part.TEXT | Part.WORDS, OcrMode.OFF)] * 2
    assert sorted(each.first_page for each in pages.asked) == [1, 2]


async def test_a_page_without_text_of_its_own_is_read_from_what_was_recognised() -> None:
    pages = Pages(lambda asked: PageFlag.NO_TEXT if asked.ocr is OcrMode.OFF else PageFlag.OCR)
    found = await pages.search(page_size=1)
    assert boxes(found) == [1]
    assert [each.ocr for each in pages.asked] == [OcrMode.OFF, OcrMode.AUTO]


async def test_where_words_cannot_be_had_the_text_alone_is_read() -> None:
    busy = ResourceExhausted("PARSER_BUSY", "all are busy")
    pages = Pages(lambda asked: busy if Part.WORDS in asked.parts else PageFlag.NONE)
    found = await pages.search(page_size=1)
    assert boxes(found) == [0]
    assert found.hits[0].marks.snippets[0].highlights == [(8, 14)]


@pytest.mark.parametrize("answer", [None, ResourceExhausted("PARSER_BUSY", "all are busy")])
async def test_pages_that_cannot_be_had_in_time_are_hits_without_marks(answer: Exception | None) -> None:
    pages = Pages(lambda _: answer)
    found = await pages.search(remaining_s=0.5)
    assert len(found.hits) == 5
    assert boxes(found) == [0] * 5
    assert not any(hit.marks.snippets for hit in found.hits)


async def test_parts_end_and_tokens_belong_to_their_search() -> None:
    pages = Pages()
    first = await pages.search(page_size=3)
    assert first.next_page_token
    last = await pages.search(page_size=2, page_token=first.next_page_token)
    assert [hit.found.page for hit in (*first.hits, *last.hits)] == [1, 2, 3, 4, 5]
    assert not last.next_page_token
    wrong = ["garbage", "", first.next_page_token[:-4], "A" * len(first.next_page_token)]
    for token in filter(None, wrong):
        with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
            await pages.search(page_token=token)
    for other in ({"query": "red"}, {"languages": ("en",)}, {"documents": (DOCUMENT.name,)}):
        with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
            await pages.search(page_token=first.next_page_token, **other)


async def test_words_of_pages_are_held_and_looked_up_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "_READING_AT_A_TIME", 1)
    monkeypatch.setattr(search_module, "_MAX_WORDS", 13)  # two pages of six words and 27 letters
    monkeypatch.setattr(search_module, "_MAX_DISTINCT_WORDS", 2)
    pages = Pages()
    looked_up: list[str] = []
    lexemes = MemorySearch.lexemes

    async def spied(
        index: MemorySearch, words: Mapping[str, Sequence[str]], *, timeout_s: float
    ) -> Mapping[str, Lexemes]:
        looked_up.extend(word for own in words.values() for word in own)
        return await lexemes(index, words, timeout_s=timeout_s)

    monkeypatch.setattr(MemorySearch, "lexemes", spied)
    assert boxes(await pages.search()) == [1, 1, 0, 0, 0]
    assert looked_up[0] == "engine"
    assert len(looked_up) == 3
    assert len(pages.asked) == 2


async def test_marking_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "_MARK_S", -1.0)
    assert boxes(await Pages().search()) == [0] * 5


async def test_searches_take_turns_and_give_them_back() -> None:
    pages = Pages()
    await pages.turns.acquire("acme", timeout_s=None)
    waiting = asyncio.create_task(pages.search())
    while not pages.turns.waiting:
        await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as told:
        await pages.search()
    assert told.value.reason == "SEARCH_BUSY"
    assert not pages.asked
    pages.turns.release("acme")
    assert len((await waiting).hits) == 5
    with pytest.raises(InvalidArgument):
        await pages.search(page_token="none of ours")
    pages.answer = lambda _: RuntimeError("broken")
    with pytest.raises(ExceptionGroup, match="unhandled"):
        await pages.search()
    pages.answer = lambda _: PageFlag.NONE
    assert len((await pages.search()).hits) == 5


async def test_a_fault_that_nobody_foresaw_leaves_no_reader_behind() -> None:
    pages = Pages(lambda asked: ValueError("unforeseen") if asked.first_page == 2 else None)
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="unforeseen")):
        await pages.search(page_size=3)
    assert asyncio.all_tasks() == {asyncio.current_task()}
