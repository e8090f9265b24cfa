"""PageSearch and PageReader: in memory, and the real extractor over mTLS with its real parser, index and Postgres."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from pydantic import SecretStr

from services.runtime.clients import MeshClient
from services.runtime.errors import NotFound
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.adapters.extractor_search import ExtractorSearch
from services.summarizer.adapters.memory import MemoryPages
from services.summarizer.adapters.memory_questions import MemoryQuestions
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.domain.passages import PassageFinder
from services.summarizer.domain.ports_questions import DocumentState, Filters, PageAt, PageReader, PageSearch
from services.summarizer.domain.questions import Question
from services.summarizer.domain.values import Page
from tests.contract.test_summarizer_pages import (
    ALICE,
    STRANGER,
    UNKNOWN,
    Pages,
    _page,
    client,
    edge,
    for_alice,
    pdf,
    target,
    upload,
)
from tests.fakes.mistral_server import MistralServer
from tests.unit.summarizer.flow.asking import AskFlow

__all__ = ["client", "edge", "for_alice", "target"]
"""Fixtures that are the same here."""

Finds = tuple[PageSearch, PageReader, Callable[[Pages], Awaitable[str]]]
BOOK: Pages = (
    ("Bees make honey from the nectar of flowers.",),
    ("The notice period is three months.", "It ends with a month."),
    ("Honey keeps. The notice is on the door.",),
)
ANY = '"notice" or "honey"'


@pytest.fixture(params=["memory", "extractor"])
def finds(request: pytest.FixtureRequest) -> Finds:
    """The ports, and what stores a document of Alice's whose pages can be found."""
    if request.param == "extractor":
        client: MeshClient = request.getfixturevalue("client")
        edge: MeshClient = request.getfixturevalue("edge")
        pages = ExtractorPages(client)

        async def store(text: Pages) -> str:
            name = await upload(edge, pdf(text))
            await numbers(pages, name)
            async with asyncio.timeout(60):
                while (await pages.look(name)).searchable_pages < len(text):
                    await asyncio.sleep(0.02)
            return name

        return ExtractorSearch(client), pages, store
    memory = MemoryPages()

    async def put(text: Pages) -> str:
        name = "documents/" + format(len(memory.documents_of(ALICE.tenant)) + 1, "032x")
        memory.put(ALICE.tenant, name, *(_page(number, lines) for number, lines in enumerate(text, start=1)))
        return name

    questions = MemoryQuestions(memory)
    return questions, questions, put


async def numbers(reader: PageReader, document: str, first: int = 0, last: int = 0) -> list[int]:
    async with aclosing(reader.read(document, first_page=first, last_page=last, words=False)) as pages:
        return [page.number async for page in pages]


async def test_pages_are_found_by_all_any_and_some_of_the_words(finds: Finds) -> None:
    search, _, store = finds
    name = await store(BOOK)
    assert await search.find('"notice" "honey"', Filters(), 10) == [PageAt(name, 3)]
    assert set(await search.find(ANY, Filters(), 10)) == {PageAt(name, n) for n in (1, 2, 3)}
    assert len(await search.find(ANY, Filters(), 1)) == 1
    assert await search.find('"notice period" "months"', Filters(documents=(name,)), 10) == [PageAt(name, 2)]
    assert await search.find('"nobody" "honey"', Filters(), 10) == []


async def test_nothing_is_near_where_nothing_was_embedded(finds: Finds) -> None:
    search, _, store = finds
    name = await store(BOOK)
    assert await search.near("Who makes honey?", Filters(documents=(name,)), 10) == []


async def test_documents_narrow_the_search_and_another_tenants_have_no_pages(finds: Finds) -> None:
    search, _, store = finds
    name, other = await store(BOOK), await store((("A notice of another kind.",),))
    assert await search.find('"notice"', Filters(documents=(other,)), 10) == [PageAt(other, 1)]
    with act_as(STRANGER):
        assert await search.find(ANY, Filters(), 10) == []
        assert await search.find(ANY, Filters(documents=(name,)), 10) == []


async def test_a_document_tells_its_pages_and_is_read_in_parts(finds: Finds) -> None:
    _, reader, store = finds
    name = await store(BOOK)
    assert await reader.look(name) == DocumentState(page_count=3, searchable_pages=3, ephemeral=False)
    assert await numbers(reader, name) == [1, 2, 3]
    assert await numbers(reader, name, 2, 3) == [2, 3]
    assert await numbers(reader, name, 3) == [3]
    async with aclosing(reader.read(name, first_page=2, last_page=2)) as pages:
        (page,) = [page async for page in pages]
    assert isinstance(page, Page)
    assert [word.text for word in page.words][:3] == ["The", "notice", "period"]
    async with aclosing(reader.read(name, first_page=2, last_page=2, words=False)) as pages:
        (bare,) = [page async for page in pages]
    assert isinstance(bare, Page)
    assert (bare.words, bare.text.split()) == ((), page.text.split())


async def test_what_is_not_there_or_another_tenants_is_not_found(finds: Finds) -> None:
    _, reader, store = finds
    name = await store(BOOK)
    with pytest.raises(NotFound):
        await reader.look(UNKNOWN)
    with act_as(STRANGER):
        with pytest.raises(NotFound):
            await reader.look(name)
        with pytest.raises(NotFound):
            await numbers(reader, name, 1, 1)


async def test_passages_are_found_among_many_pages(finds: Finds) -> None:
    search, reader, store = finds
    filler = tuple((f"Page {n} of this book says nothing about months or doors.",) for n in range(1, 25))
    name = await store((*filler, *BOOK))
    finder = PassageFinder(search=search, reader=reader)
    asked = Question("How many months is the notice period?", Filters(documents=(name,)), max_passages=2)
    choice = await finder.choose(asked, await finder.look([name]), lambda _: None)
    assert choice.pages[0] == PageAt(name, 26)
    pages, failed = await finder.read(choice)
    assert [at for at, _ in pages] == list(choice.pages)
    assert failed == ()


async def test_a_provider_answers_from_pages_of_the_real_extractor(client: MeshClient, edge: MeshClient) -> None:
    """Found by its index, read by its parser, sent to a server that speaks a provider's API, cited by its boxes."""
    pages = ExtractorPages(client)
    filler = tuple((f"Page {n} says nothing about them.",) for n in range(1, 25))
    names = [await upload(edge, pdf((*filler, *BOOK))), await upload(edge, pdf((("Wasps gather no nectar at all.",),)))]
    for name, count in zip(names, (27, 1), strict=True):
        await numbers(pages, name)
        async with asyncio.timeout(60):
            while (await pages.look(name)).searchable_pages < count:
                await asyncio.sleep(0.02)
    model = "mistral/mistral-small-latest"
    with MistralServer() as server:
        mistral = MistralProvider(api_key=SecretStr("k"), url=server.url, count_text=tekken_counter())
        flow = AskFlow(finder=PassageFinder(search=ExtractorSearch(client), reader=pages))
        flow.flow.others["mistral"] = mistral  # type: ignore[assignment]  # one of the real ones
        flow.flow.books.prices = {model: (1_000_000, 1_000_000)}
        async with mistral:
            answer = await flow.ask(Question("Who gathers nectar?"), model=model)
            again = await flow.ask(Question("Who gathers nectar?"), model=model)
        assert server.calls == 1
        told = str(server.books.calls[0]["messages"])
    assert "Page 7 says nothing" not in told
    cited = {citation.at: citation for said in answer.statements for citation in said.citations}
    assert set(cited) == {PageAt(names[0], 25), PageAt(names[1], 1)} == set(answer.passages)
    assert cited[PageAt(names[0], 25)].quote == "Bees make honey from the nectar of flowers."
    (box,) = cited[PageAt(names[1], 1)].boxes
    assert 70 < box.x0 < 74 < box.x1 < 300
    assert answer.grounded_share == 1
    assert (again.cached, again.statements) == (True, answer.statements)
    assert answer.consumption.cost.micros == server.books.input_tokens + server.books.output_tokens


async def test_times_and_languages_narrow_the_search(client: MeshClient, edge: MeshClient) -> None:
    search, pages = ExtractorSearch(client), ExtractorPages(client)
    lines = ("The notice period that we have in this contract is three months and it is the same for all of them.",) * 4
    name = await upload(edge, pdf((lines,)))
    await numbers(pages, name)
    async with asyncio.timeout(60):
        while not (found := await search.find('"notice"', Filters(), 10)):
            await asyncio.sleep(0.02)
    assert found == [PageAt(name, 1)]
    now = dt.datetime.now(dt.UTC)
    hour = dt.timedelta(hours=1)
    for passes, filters in (
        (True, Filters(languages=("en",))),
        (False, Filters(languages=("de",))),
        (True, Filters(stored_after=now - hour, stored_before=now + hour)),
        (False, Filters(stored_after=now + hour)),
        (False, Filters(stored_before=now - hour)),
    ):
        assert bool(await search.find('"notice"', filters, 10)) is passes, filters
