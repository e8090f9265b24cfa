"""An estimate goes the way of the run, asks nobody, holds nothing, and comes close to what the run then costs."""

import random
import statistics
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import MemoryBooks
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.domain.map_reduce import MAX_PARTS
from services.summarizer.domain.models import Models
from services.summarizer.domain.ports import PageFailed, Provider
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Length, Money, Page
from tests.fakes.mistral_server import MistralServer
from tests.fakes.writing_model import write
from tests.unit.summarizer.flow.estimating import PRICES, SMALL, estimate_of, estimating
from tests.unit.summarizer.flow.parts import (
    ALICE,
    DOCUMENT,
    MODEL,
    STRANGER,
    Flow,
    ScriptedProvider,
    options,
    page,
    word_page,
)

GOAL = 0.15
_SYLLABLES = ("an", "be", "con", "der", "el", "for", "ge", "ion", "ka", "li", "men", "no", "pro", "ra", "ser", "ti")


pytestmark = pytest.mark.usefixtures("for_alice")


@pytest.fixture
def flow() -> Flow:
    return Flow(provider=ScriptedProvider(context_tokens=600))


def made_pages(count: int, words: int, *, seed: int) -> list[Page]:
    """Pages of sentences of made words."""
    chance = random.Random(seed)
    pages = []
    for number in range(1, count + 1):
        text, left = [], words
        while left > 0:
            length = min(left, chance.randint(8, 30))
            said = ["".join(chance.choices(_SYLLABLES, k=chance.randint(1, 4))) for _ in range(length)]
            text.append(" ".join(said).capitalize() + ".")
            left -= length
        pages.append(page(number, "\n".join(text)))
    return pages


@pytest.fixture
async def writer() -> AsyncIterator[Provider]:
    """Mistral's models behind a server that writes as it is asked to and charges for every token."""
    with MistralServer(says=write, count_text=tekken_counter()) as server:
        provider = MistralProvider(api_key=SecretStr("key"), url=server.url, count_text=tekken_counter())
        async with provider:
            yield provider


@pytest.mark.parametrize("length", Length)
async def test_the_runs_cost_what_was_expected(writer: Provider, length: Length) -> None:
    errors, expected, billed = list[float](), 0, 0
    for pages, words in ((1, 300), (4, 450), (8, 500), (12, 400), (20, 600)):
        made = made_pages(pages, words, seed=pages)
        found, cost = await estimating(writer, SMALL, MemoryPrices(PRICES), made, length)
        assert found.low.cost.micros <= cost <= found.high.cost.micros
        assert found.low.duration_s < found.expected.duration_s < found.high.duration_s
        assert found.page_count == pages
        errors.append(abs(found.expected.cost.micros - cost) / cost)
        expected, billed = expected + found.expected.cost.micros, billed + cost
    assert abs(expected - billed) <= GOAL * billed
    assert statistics.median(errors) <= GOAL


async def test_nothing_is_called_held_or_kept(flow: Flow) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, *(word_page(number, 300) for number in range(1, 8)))
    found = await estimate_of(flow)(ALICE, DOCUMENT, options())
    assert found.expected.calls > found.chunk_count > 1
    assert found.price_book_version == 1
    assert flow.provider.prompts == []
    assert flow.books.holds == {}
    assert flow.books.events == {}
    assert flow.pages.holds == {}
    assert flow.pages.processed == []
    assert (await flow.store.backlog()).depth == 0


async def test_the_calls_are_those_of_the_run(flow: Flow) -> None:
    flow.provider.context_tokens = 10_000
    flow.pages.put(ALICE.tenant, DOCUMENT, *(word_page(number, 9_000) for number in range(1, MAX_PARTS + 4)))
    found = await estimate_of(flow)(ALICE, DOCUMENT, options())
    summary = await flow.summarize()(ALICE, DOCUMENT, options())
    assert found.expected.calls == summary.consumption.provider_calls
    assert found.chunk_count == MAX_PARTS + 3


async def test_what_was_paid_for_comes_free_and_a_cached_answer_wholly(flow: Flow) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, *(word_page(number, 300) for number in range(1, 5)))
    fresh = await estimate_of(flow)(ALICE, DOCUMENT, options())
    assert (fresh.free_chunk_count, fresh.cached) == (0, False)
    summary = await flow.summarize()(ALICE, DOCUMENT, options())
    cached = await estimate_of(flow)(ALICE, DOCUMENT, options())
    assert cached.cached
    assert cached.high.cost == Money("USD", 0)
    flow.cache.clear()
    known = await estimate_of(flow)(ALICE, DOCUMENT, options())
    assert (known.cached, known.expected.calls, known.high.cost.micros) == (False, 0, 0)
    assert known.free_chunk_count == known.chunk_count == fresh.chunk_count
    # The answers of the first pages serve a longer document too.
    flow.pages.put(ALICE.tenant, DOCUMENT, *(word_page(number, 300) for number in range(1, 9)))
    longer = await estimate_of(flow)(ALICE, DOCUMENT, options())
    assert 0 < longer.free_chunk_count < longer.chunk_count
    again = await flow.summarize()(ALICE, DOCUMENT, options())
    assert longer.expected.calls == again.consumption.provider_calls
    assert summary.consumption.provider_calls == fresh.expected.calls


async def test_only_the_tenants_own_answers_come_free(flow: Flow) -> None:
    for tenant in (ALICE.tenant, STRANGER.tenant):
        flow.pages.put(tenant, DOCUMENT, word_page(1, 300))
    await flow.summarize()(ALICE, DOCUMENT, options())
    with act_as(STRANGER):
        found = await estimate_of(flow)(STRANGER, DOCUMENT, options())
    assert (found.cached, found.free_chunk_count, found.expected.calls) == (False, 0, 1)


async def test_the_same_text_twice_is_one_call(flow: Flow) -> None:
    text = word_page(1, 300).text
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, text), page(2, text))
    found = await estimate_of(flow)(ALICE, DOCUMENT, options())
    summary = await flow.summarize()(ALICE, DOCUMENT, options())
    assert found.expected.calls == summary.consumption.provider_calls


async def test_a_high_price_is_a_bound_that_no_call_meets(writer: Provider) -> None:
    flow = Flow(books=MemoryBooks(PRICES))
    models = Models({writer.name: writer}, default=SMALL)
    flow.models = lambda: models  # type: ignore[method-assign]  # the provider of this test
    flow.pages.put(ALICE.tenant, DOCUMENT, *made_pages(90, 600, seed=3))
    wanted = options(model=SMALL)
    found = await estimate_of(flow, prices=MemoryPrices(PRICES))(ALICE, DOCUMENT, wanted)
    summary = await flow.summarize()(ALICE, DOCUMENT, wanted, purse=Purse(found.high.cost))
    assert summary.consumption.cost.micros <= found.high.cost.micros


async def test_refusals_are_those_of_the_run(flow: Flow) -> None:
    estimate = estimate_of(flow)
    with pytest.raises(NotFound):
        await estimate(ALICE, DOCUMENT, options())
    flow.pages.put(ALICE.tenant, DOCUMENT, PageFailed(1, "PAGE_CORRUPT"))
    with pytest.raises(FailedPrecondition) as unreadable:
        await estimate(ALICE, DOCUMENT, options())
    assert unreadable.value.reason == "DOCUMENT_UNREADABLE"
    assert flow.pages.holds == {}
    flow.pages.put(ALICE.tenant, DOCUMENT, word_page(1, 20), PageFailed(2, "PAGE_CORRUPT"))
    assert (await estimate(ALICE, DOCUMENT, options())).failed_page_count == 1
    with pytest.raises(InvalidArgument) as unknown:
        await estimate(ALICE, DOCUMENT, options(model="nobody/nothing"))
    assert unknown.value.fields[0].field == "summary.model"
    with pytest.raises(FailedPrecondition) as unpriced:
        await estimate_of(flow, prices=MemoryPrices({}))(ALICE, DOCUMENT, options(model=MODEL))
    assert unpriced.value.reason == "MODEL_UNPRICED"
