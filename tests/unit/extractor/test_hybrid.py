"""Searches by meaning: one order of two lists, parts that follow each other, and what happens without a provider."""

from collections import Counter
from dataclasses import dataclass, field

import pytest

from services.extractor.adapters.memory_vectors import MemoryVectors
from services.extractor.domain.hybrid import NOTHING_EMBEDDED, Meanings, Mode, Passage, Vector, fused
from services.extractor.domain.search import FoundPage, Search, SearchPages, SearchResults
from services.runtime.errors import (
    FailedPrecondition,
    InvalidArgument,
    PagemeshError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from services.waiting.fair_slots import FairSlots
from tests.fakes.embedding import vector_of
from tests.integration.extractor.scripted_summarizer import packed
from tests.unit.extractor.test_search import DOCUMENT, Pages, decode

MODEL = "mistral/mistral-embed"


@dataclass
class Scripted:
    """Implements `Embedder`."""

    error: PagemeshError | None = None
    asked: list[str] = field(default_factory=list)

    async def model(self, *, timeout_s: float) -> str:
        return MODEL

    async def embed(self, query: str, *, timeout_s: float) -> Vector:
        self.asked.append(query)
        if self.error is not None:
            raise self.error
        return Vector(MODEL, packed(vector_of(query)))


@dataclass
class World:
    pages: Pages = field(default_factory=Pages)
    vectors: MemoryVectors = field(default_factory=MemoryVectors)
    embedder: Scripted = field(default_factory=Scripted)

    async def embed(self, page: int, text: str) -> None:
        self.vectors.add(DOCUMENT)
        await self.vectors.store("acme", DOCUMENT.id, [Passage(page, 0, Vector(MODEL, packed(vector_of(text))))])

    async def search(self, query: str = "engine", mode: Mode = Mode.HYBRID, **asked: object) -> SearchResults:
        use_case = SearchPages(
            index=self.pages.index,
            extract=self.pages.extract,
            decode=decode,
            turns=self.pages.turns,
            meanings=Meanings(embedder=self.embedder, index=self.vectors),
        )
        search = Search("acme", query, mode=mode, **asked)  # type: ignore[arg-type]
        return await use_case(search, remaining_s=lambda: None)


def numbers(found: SearchResults) -> list[int]:
    return [hit.found.page for hit in found.hits]


def found(page: int) -> FoundPage:
    return FoundPage("ab", "a.pdf", page, "", 1.0)


def test_pages_of_both_lists_come_first_and_then_by_rank() -> None:
    order = fused([found(1), found(2), found(3)], [found(3), found(4)])
    assert [page.page for page in order] == [3, 1, 2, 4]
    assert order[0].score == pytest.approx(1 / 63 + 1 / 61)
    assert fused([], []) == []


async def test_a_page_without_the_words_is_found_by_its_meaning() -> None:
    world = World()
    await world.embed(40, "all about cars")
    by_words = await world.search("automobile", Mode.WORDS)
    assert numbers(by_words) == []
    result = await world.search("automobile")
    assert (numbers(result), result.degraded) == ([40], "")
    assert numbers(await world.search("-automobile & 'or' *", Mode.VECTORS)) == [40]


async def test_parts_tell_of_every_page_once_whatever_is_added_meanwhile() -> None:
    world = World()
    for page in range(3, 30):
        await world.embed(page, f"engine {'word ' * page}")
    seen: list[int] = []
    token = ""
    for step in range(40):
        part = await world.search(page_size=2, page_token=token, marked=False)
        seen += numbers(part)
        token = part.next_page_token
        if not token:
            break
        if step < 5:
            await world.embed(100 + step, "engine")  # from then on the best of all
    assert max(Counter(seen).values()) == 1
    assert set(seen) == {*range(1, 30), *range(100, 105)}


async def test_tokens_belong_to_their_search_and_mode() -> None:
    world = World()
    await world.embed(1, "engine")
    token = (await world.search(page_size=2)).next_page_token
    assert token
    for wrong in (token[:-4], "garbage", token + "AAAA" * 400):
        with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
            await world.search(page_token=wrong)
    with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
        await world.search(page_token=token, mode=Mode.VECTORS)
    with pytest.raises(InvalidArgument, match="INVALID_PAGE_TOKEN"):
        await world.search(page_token=token, mode=Mode.WORDS)


async def test_nothing_is_paid_where_nothing_is_embedded() -> None:
    world = World()
    result = await world.search()
    assert (numbers(result), result.degraded) == ([1, 2, 3, 4, 5], NOTHING_EMBEDDED)
    assert not world.embedder.asked


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("PROVIDER_UNAVAILABLE", "down"),
        ResourceExhausted("PROVIDER_RATE_LIMITED", "slow down"),
        PermissionDenied("MODEL_NOT_ALLOWED", "no"),
    ],
)
async def test_without_its_provider_words_alone_answer(error: PagemeshError) -> None:
    world = World(embedder=Scripted(error))
    await world.embed(40, "engine")
    result = await world.search(page_size=3)
    assert (numbers(result), result.degraded) == ([1, 2, 3], error.reason)
    rest = await world.search(page_size=3, page_token=result.next_page_token)
    assert numbers(rest) == [4, 5]
    assert numbers(await world.search(mode=Mode.VECTORS)) == []


@pytest.mark.parametrize(
    "error",
    [FailedPrecondition("EMBEDDING_NOT_CONFIGURED", "no"), ResourceExhausted("BUDGET_EXCEEDED", "spent")],
)
async def test_what_only_the_caller_can_mend_is_told(error: PagemeshError) -> None:
    world = World(embedder=Scripted(error))
    await world.embed(40, "engine")
    with pytest.raises(type(error), match=error.reason):
        await world.search()


async def test_nothing_can_be_excluded_from_a_meaning_and_nothing_is_paid_for_that() -> None:
    world = World()
    await world.embed(1, "engine")
    for query in ("engine -ship", "&|!"):
        with pytest.raises(InvalidArgument, match="SEARCH_QUERY_INVALID"):
            await world.search(query)
    assert not world.embedder.asked


async def test_who_waits_for_a_provider_takes_no_turn() -> None:
    world = World()
    await world.embed(1, "engine")
    world.pages.turns = FairSlots(size=1, max_waiting=1, busy=lambda: ResourceExhausted("SEARCH_BUSY", "busy"))
    embed = world.embedder.embed

    async def looking(query: str, *, timeout_s: float) -> Vector:
        await world.pages.turns.acquire("another", timeout_s=0)
        world.pages.turns.release("another")
        return await embed(query, timeout_s=timeout_s)

    world.embedder.embed = looking  # type: ignore[method-assign]
    assert numbers(await world.search())
