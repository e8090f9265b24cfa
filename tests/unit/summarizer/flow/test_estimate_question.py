"""Estimates of questions go the way of the run: the same pages, no call, and close to what the run then costs."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from services.runtime.errors import InvalidArgument, NotFound
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.domain.embedding import Vectors
from services.summarizer.domain.estimate import Estimate
from services.summarizer.domain.map_reduce import Bill, Job
from services.summarizer.domain.models import Model
from services.summarizer.domain.personal_kinds import ALL, Kind
from services.summarizer.domain.ports import Abilities, Provider
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Answer, Money, Prompt, Stage, TokenCount
from tests.fakes.mistral_server import MistralServer
from tests.fakes.writing_model import write
from tests.unit.summarizer.flow.asking import FIRST, SECOND, AskFlow, question
from tests.unit.summarizer.flow.estimating import (
    PRICES,
    SMALL,
    estimating_question,
    flow_with,
    question_estimate_of,
)
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, STRANGER, Flow, ScriptedProvider, options, page
from tests.unit.summarizer.flow.test_estimate import made_pages

pytestmark = pytest.mark.usefixtures("for_alice")
GOAL = 0.15
BEES = ("Bees make honey in summer.", "Honey keeps for years.", "Wax is sold by weight.")


@pytest.fixture
def asking() -> AskFlow:
    flow = AskFlow(Flow(provider=ScriptedProvider(context_tokens=2_000)))
    flow.flow.pages.put("acme", FIRST, *(page(number, text) for number, text in enumerate(BEES, start=1)))
    return flow


async def estimate(asking: AskFlow, text: str, *documents: str, **more: Any) -> Estimate:
    return await question_estimate_of(asking)(ALICE, question(text, *documents), options(**more))


@pytest.fixture
async def writer() -> AsyncIterator[Provider]:
    """Mistral's models behind a server that writes as it is asked to and charges for every token."""
    with MistralServer(says=write, count_text=tekken_counter()) as server:
        async with MistralProvider(api_key=SecretStr("key"), url=server.url, count_text=tekken_counter()) as provider:
            yield provider


async def test_the_runs_cost_what_was_expected(writer: Provider) -> None:
    expected = billed = 0
    for number, (pages, words) in enumerate(((2, 300), (6, 450), (12, 500))):
        made = made_pages(pages, words, seed=number)
        text = " ".join(made[0].text.split()[2:5])
        found, cost = await estimating_question(writer, SMALL, MemoryPrices(PRICES), made, text)
        assert found.low.cost.micros <= cost <= found.high.cost.micros
        assert found.low.duration_s < found.expected.duration_s < found.high.duration_s
        assert 0 < found.page_count <= 8
        expected, billed = expected + found.expected.cost.micros, billed + cost
    assert abs(expected - billed) <= GOAL * billed


async def test_nothing_is_called_held_or_kept_and_what_was_paid_for_comes_free(asking: AskFlow) -> None:
    flow = asking.flow
    asking.finds.ephemeral.add(FIRST)
    found = await estimate(asking, "Who makes honey?", FIRST)
    assert (found.expected.calls, found.chunk_count, found.free_chunk_count, found.page_count) == (1, 1, 0, 3)
    assert (flow.provider.prompts, flow.books.holds, flow.books.events) == ([], {}, {})
    assert (flow.pages.holds, flow.pages.processed) == ({}, [])
    answer = await asking.ask(question("Who makes honey?", FIRST))
    assert answer.consumption.tokens.input_tokens == found.expected.tokens.input_tokens
    assert found.low.cost.micros <= answer.consumption.cost.micros <= found.high.cost.micros
    assert flow.pages.processed == [FIRST], "the run is its processing"
    known = await estimate(asking, "Who makes honey?", FIRST)
    assert (known.free_chunk_count, known.expected.calls, known.high.cost) == (1, 0, Money("USD", 0))


async def test_several_documents_are_one_call(asking: AskFlow) -> None:
    asking.flow.pages.put("acme", SECOND, page(1, "Honey is made by bees of the second hive."))
    found = await estimate(asking, "Who makes honey?", FIRST, SECOND)
    answer = await asking.ask(question("Who makes honey?", FIRST, SECOND))
    assert (found.page_count, found.expected.calls) == (len(answer.passages), 1)
    assert answer.consumption.tokens.input_tokens == found.expected.tokens.input_tokens


async def test_where_no_page_has_to_do_with_it_nothing_is_paid(asking: AskFlow) -> None:
    asking.flow.pages.put("acme", FIRST, *(page(number, f"Page {number} of bees.") for number in range(1, 30)))
    found = await estimate(asking, "What is a zeppelin?", FIRST)
    assert (found.chunk_count, found.page_count, found.high.calls, found.high.cost.micros) == (0, 0, 0, 0)
    assert (await asking.ask(question("What is a zeppelin?", FIRST))).consumption.provider_calls == 0


async def test_a_high_price_is_a_bound_that_the_call_does_not_meet(writer: Provider) -> None:
    made = made_pages(6, 400, seed=5)
    text = " ".join(made[0].text.split()[2:5])
    found, _ = await estimating_question(writer, SMALL, MemoryPrices(PRICES), made, text)
    again = AskFlow(flow_with(writer, SMALL, made))
    assert (await again.ask(question(text, DOCUMENT), model=SMALL, purse=Purse(found.high.cost))).text


async def test_personal_data_is_counted(asking: AskFlow) -> None:
    asking.flow.pages.put("acme", FIRST, page(1, "Write to max@example.org about honey."))
    assert (await estimate(asking, "Whom to write to?", FIRST, anonymise=ALL)).anonymised == {Kind.EMAIL: 1}


class Embedder(ScriptedProvider):
    """Makes vectors at a micro-unit for a word."""

    def abilities(self, model: str) -> Abilities:
        return Abilities(1_000, 0, writes=False, bills_unanswered=True)

    def count(self, prompt: Any) -> TokenCount:
        return TokenCount(len(prompt.texts[0].split()), 0)

    async def complete(self, prompt: Any) -> Answer:
        assert isinstance(prompt, Prompt)
        return Answer((), self.count(prompt), vectors=(b"vector",))


async def test_the_vector_of_a_question_is_part_of_the_price_until_it_was_paid_for(asking: AskFlow) -> None:
    flow, text = asking.flow, "Who makes honey?"
    flow.pages.put("acme", FIRST, *(page(number, f"Page {number} of bees and their honey.") for number in range(1, 30)))
    flow.books.prices = {**flow.books.prices, "vectors/maker": (1_000_000, 0)}
    embedder = Embedder()
    model = Model("vectors/maker", "maker", embedder, embedder.abilities("maker"))
    fresh = await question_estimate_of(asking, embedder=model)(ALICE, question(text, FIRST), options())
    assert embedder.prompts == []
    plain = await estimate(asking, text, FIRST)
    assert fresh.expected.calls == plain.expected.calls + 1
    assert fresh.expected.cost.micros == plain.expected.cost.micros + len(text.split())
    vectors = Vectors(model=model, models=flow.models(), results=flow.store, calls=flow.paid())
    await vectors.of(Job(ALICE, "", options(model=model.name), model), Stage.EMBED_QUERY, (text,), Bill())
    known = await question_estimate_of(asking, embedder=model)(ALICE, question(text, FIRST), options())
    assert known.expected == plain.expected


async def test_refusals_are_those_of_the_run(asking: AskFlow) -> None:
    with pytest.raises(InvalidArgument) as unknown:
        await estimate(asking, "Who?", FIRST, model="nobody/nothing")
    assert unknown.value.fields[0].field == "question.options.model"
    with pytest.raises(InvalidArgument) as nothing:
        await estimate(asking, "?!", FIRST)
    assert (nothing.value.reason, nothing.value.fields[0].field) == ("QUESTION_INVALID", "question.question")
    with act_as(STRANGER), pytest.raises(NotFound):
        await question_estimate_of(asking)(STRANGER, question("Who?", FIRST), options(model=MODEL))
