"""Other models answer where the one that was asked for cannot, and what was paid is told."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.runtime.errors import InvalidArgument, PagemeshError, ResourceExhausted, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import MemoryBooks
from services.summarizer.domain.events import Event, Finished, TextDelta
from services.summarizer.domain.failover import another_may_answer
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.models import Model, Models
from services.summarizer.domain.values import Answer, Prompt, Summary
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, Flow, ScriptedProvider, options, page, word_page

SECOND, THIRD = "second/writer", "third/writer"
PRICES = {MODEL: (1_000_000, 2_000_000), SECOND: (3_000_000, 5_000_000)}


class Second(ScriptedProvider):
    name = "second"


class Third(ScriptedProvider):
    """Its model has no price."""

    name = "third"


@pytest.fixture
def flow() -> Flow:
    flow = Flow(books=MemoryBooks(PRICES), others={"second": Second(), "third": Third()})
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, "The cat sat here.\nIt was warm."), page(2, "Dogs are kind."))
    return flow


async def refuse(_: Prompt) -> Answer:
    raise Unavailable("PROVIDER_UNAVAILABLE", "It is away.", metadata={"sent": "no"})


async def ask(flow: Flow, fallbacks: Sequence[str], **changes: Any) -> Summary:
    wanted = replace(options(), **changes) if changes else options()
    with act_as(ALICE):
        return await flow.summarize()(ALICE, DOCUMENT, wanted, fallbacks=fallbacks)


async def test_the_next_model_answers_and_the_summary_says_so(flow: Flow) -> None:
    flow.provider.behaviour = refuse
    summary = await ask(flow, [SECOND])
    assert (summary.model, summary.degraded_from) == (SECOND, MODEL)
    assert summary.sentences
    assert summary.consumption.provider_calls == 1
    assert summary.consumption.cost.micros == sum(
        3 * tokens.input_tokens + 5 * tokens.output_tokens for tokens in flow.others["second"].bill
    )
    assert flow.failovers == [(MODEL, SECOND, "PROVIDER_UNAVAILABLE")]


async def test_a_model_that_can_answer_is_not_passed_over(flow: Flow) -> None:
    summary = await ask(flow, [SECOND])
    assert (summary.model, summary.degraded_from) == (MODEL, "")
    assert not flow.others["second"].prompts


async def test_without_fallbacks_the_error_is_told(flow: Flow) -> None:
    flow.provider.behaviour = refuse
    with pytest.raises(Unavailable, match="It is away"):
        await ask(flow, [])
    # Who names the model itself is answered by it or by nobody, whatever the deployment's list.
    with pytest.raises(Unavailable, match="It is away"):
        await ask(flow, [MODEL])


async def test_the_deployments_own_list_is_for_those_who_name_none(flow: Flow) -> None:
    first, second = flow.provider, flow.others["second"]
    models = Models({"scripted": first, "second": second}, default=MODEL, fallbacks=[SECOND])
    assert [model.name for model in await models.lineup("acme", "", [])] == [MODEL, SECOND]
    assert [model.name for model in await models.lineup("acme", SECOND, [])] == [SECOND]
    assert [model.name for model in await models.lineup("acme", "", [MODEL])] == [MODEL]


async def test_an_unknown_fallback_is_refused_by_its_field(flow: Flow) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await ask(flow, ["nobody/model"])
    assert (refused.value.reason, refused.value.fields[0].field) == ("MODEL_UNKNOWN", "options.fallback_models")


async def test_a_model_without_a_price_is_passed_over_and_the_first_error_told(flow: Flow) -> None:
    flow.provider.behaviour = refuse
    summary = await ask(flow, [THIRD, SECOND])
    assert (summary.model, summary.degraded_from) == (SECOND, MODEL)
    flow.others["second"].behaviour = refuse
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, "Something else that was never asked about before stands here."))
    with pytest.raises(Unavailable, match="It is away"):
        await ask(flow, [THIRD, SECOND], focus="another question")


async def test_a_fallback_that_cannot_write_the_language_is_passed_over(flow: Flow) -> None:
    flow.provider.behaviour = refuse
    flow.others["second"].writes = False
    english = "The cat was on the mat and it was not the dog that had been there before it came to this house. " * 4
    flow.pages.put(ALICE.tenant, DOCUMENT, *(page(number, english) for number in range(1, 9)))
    with pytest.raises(Unavailable, match="It is away"):
        await ask(flow, [SECOND], language="de")


async def test_what_the_failed_model_was_paid_for_is_on_the_bill(flow: Flow) -> None:
    flow.provider.context_tokens = flow.others["second"].context_tokens = 200
    flow.pages.put(ALICE.tenant, DOCUMENT, *(word_page(number, 60) for number in range(1, 5)))
    answered: list[Prompt] = []

    async def once(prompt: Prompt) -> Answer:
        answered.append(prompt)
        return await (flow.provider.answer(prompt) if len(answered) == 1 else refuse(prompt))

    flow.provider.behaviour = once
    summary = await ask(flow, [SECOND])
    first, second = flow.provider.bill, flow.others["second"].bill
    assert len(first) == 1
    assert summary.consumption.provider_calls == 1 + len(second)
    assert summary.consumption.cost.micros == flow.provider.billed_micros() + sum(
        3 * tokens.input_tokens + 5 * tokens.output_tokens for tokens in second
    )


class BreaksOff(ScriptedProvider):
    """Fails in the middle of a stream."""

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        yield "half a sen"
        raise Unavailable("PROVIDER_UNAVAILABLE", "It broke off.")


async def test_two_models_are_not_mixed_up_in_one_stream(flow: Flow) -> None:
    flow.provider = BreaksOff()
    events: list[Event] = []
    with act_as(ALICE), pytest.raises(Unavailable, match="It broke off"):
        async for event in flow.stream()(ALICE, DOCUMENT, options(), fallbacks=[SECOND]):
            events.append(event)
    assert any(isinstance(event, TextDelta) for event in events)
    assert not any(isinstance(event, Finished) for event in events)
    assert not flow.others["second"].prompts


async def test_it_is_kept_as_the_answer_of_the_model_that_wrote_it(flow: Flow) -> None:
    flow.provider.behaviour = refuse
    await ask(flow, [SECOND])
    cached = await ask(flow, [], model=SECOND)
    assert (cached.cached, cached.model, cached.degraded_from) == (True, SECOND, "")
    flow.provider.behaviour = flow.provider.answer
    again = await ask(flow, [SECOND])
    assert (again.cached, again.model) == (False, MODEL), "the first model is asked once it is back"


@pytest.mark.parametrize(
    ("error", "may"),
    [
        (ResourceExhausted("PROVIDER_RATE_LIMITED", ""), True),
        (Unavailable("PROVIDER_INVALID_ANSWER", ""), True),
        (Unavailable("BREAKER_OPEN", "", metadata={"breaker": MODEL}), True),
        (Unavailable("BREAKER_OPEN", "", metadata={"breaker": "ledger"}), False),
        (ResourceExhausted("BUDGET_EXCEEDED", ""), False),
        (Unavailable("DATABASE_UNAVAILABLE", ""), False),
    ],
    ids=lambda value: value.reason + value.metadata.get("breaker", "") if isinstance(value, PagemeshError) else "",
)
def test_only_what_is_the_models_own_fault_is_another_ones_chance(error: PagemeshError, may: bool) -> None:
    provider = ScriptedProvider()
    assert another_may_answer(error, Model(MODEL, "writer", provider, provider.abilities("writer"))) is may
