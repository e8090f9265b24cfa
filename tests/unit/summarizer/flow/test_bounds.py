"""Fields and answers spend what they may and not a micro-unit more: in the repair round, over models, side by side."""

import asyncio
import contextlib
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagemesh.summarizer.v1 import answer_pb2, fields_pb2
from services.runtime.errors import FailedPrecondition, InvalidArgument, PagemeshError, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.job_result_encoding import decode_extraction, encode_extraction
from services.summarizer.api.estimate_mapping import to_purse
from services.summarizer.domain.fields_values import FieldsPrompt, FieldsStage
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Answer, Money, Prompt, TokenCount
from tests.unit.summarizer.fields.test_extract_fields import PAGES, RIGHT, WRONG, Fields, say
from tests.unit.summarizer.flow.asking import FIRST, AskFlow, question
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, OUTPUT_TOKENS, PRICES, Flow, ScriptedProvider
from tests.unit.summarizer.flow.parts import page as page_of

OTHER = "other/writer"
PAGE = page_of(1, "The notice period is three months to the end of a quarter.")
ASKED = question("What is the notice period?", FIRST)


def purse(micros: int) -> Purse:
    return Purse(Money("USD", micros))


def flow_of() -> Flow:
    """A flow with a second model of the same price."""
    flow = Flow()
    flow.provider.context_tokens = 800
    other = ScriptedProvider(context_tokens=800)
    other.name = "other"
    flow.others["other"] = other
    flow.books.prices = {**PRICES, OTHER: PRICES[MODEL]}
    flow.pages.put("acme", DOCUMENT, *PAGES)
    flow.pages.put("acme", FIRST, PAGE)
    return flow


def standing(flow: Flow) -> int:
    """What was paid, and what may have been."""
    return flow.books.settled_micros() + flow.books.held_micros()


@pytest.fixture
def flow() -> Flow:
    return flow_of()


async def refused(work: object) -> dict[str, str]:
    with pytest.raises(FailedPrecondition) as caught:
        await work  # type: ignore[misc]  # any awaitable
    assert caught.value.reason == "MAX_COST_EXCEEDED"
    assert [violation.field for violation in caught.value.fields] == ["max_cost"]
    return dict(caught.value.metadata)


async def test_fields_to_the_micro_unit(flow: Flow) -> None:
    fields = Fields(flow)
    fields.answers(say(RIGHT))
    told = await refused(fields(purse=purse(0)))
    needed = int(told["needed_micros"])
    assert told == {"max_cost_micros": "0", "spent_micros": "0", "needed_micros": str(needed)}
    await refused(fields(purse=purse(needed - 1)))
    assert (fields.prompts, standing(flow)) == ([], 0)
    found = await fields(purse=purse(needed))
    assert found.consumption.cost.micros == standing(flow) <= needed
    # What is known costs nothing.
    assert (await fields(purse=purse(0))).cached


async def test_a_repair_without_room_leaves_the_answer_as_it_is(flow: Flow) -> None:
    fields = Fields(flow)
    fields.answers(say(WRONG), say(RIGHT))
    told = await refused(fields(purse=purse(0)))
    found = await fields(purse=purse(int(told["needed_micros"])))
    assert (found.valid, found.repaired, found.repair_unaffordable) == (False, False, True)
    assert found.json["number"] == "17"
    assert [prompt.stage for prompt in fields.prompts] == [FieldsStage.EXTRACT]
    assert found.consumption.cost.micros == standing(flow) == 30
    assert decode_extraction(encode_extraction(found)) == found
    # With room for it the next try pays for the repair alone.
    again = await fields(purse=purse(1_000))
    assert (again.valid, again.repaired, again.repair_unaffordable) == (True, True, False)
    assert again.consumption.provider_calls == 1


async def test_an_answer_to_the_micro_unit(flow: Flow) -> None:
    ask = AskFlow(flow)
    told = await refused(ask.ask(ASKED, purse=purse(0)))
    needed = int(told["needed_micros"])
    await refused(ask.ask(ASKED, purse=purse(needed - 1)))
    assert (flow.provider.prompts, standing(flow)) == ([], 0)
    answer = await ask.ask(ASKED, purse=purse(needed))
    assert answer.consumption.cost.micros == standing(flow) <= needed
    assert (await ask.ask(ASKED, purse=purse(0))).cached


async def test_nobody_is_refused_on_the_bound_of_another(flow: Flow) -> None:
    ask, fields = AskFlow(flow), Fields(flow)
    fields.answers(*[say(RIGHT)] * 3)
    poor, rich = await asyncio.gather(
        ask.ask(ASKED, purse=purse(1)), ask.ask(ASKED, purse=purse(9_999)), return_exceptions=True
    )
    assert isinstance(poor, FailedPrecondition)
    assert not isinstance(rich, BaseException)
    needy, wealthy = await asyncio.gather(fields(purse=purse(1)), fields(), return_exceptions=True)
    assert isinstance(needy, FailedPrecondition)
    assert not isinstance(wealthy, BaseException)


async def test_another_model_answers_from_what_is_left(flow: Flow) -> None:
    async def garbage(_: Prompt | FieldsPrompt) -> Answer:
        raise Unavailable("PROVIDER_INVALID_ANSWER", "x", metadata={"input_tokens": "30", "output_tokens": "50"})

    flow.provider.behaviour = flow.provider.fields = garbage
    other = flow.others["other"]
    ask, fields = AskFlow(flow), Fields(flow)
    for make, asked in ((ask.ask, (ASKED,)), (fields, ())):
        told = await refused(make(*asked, purse=purse(0), fallbacks=[OTHER]))
        most = int(told["needed_micros"])
        told = await refused(make(*asked, purse=purse(130 + most - 1), fallbacks=[OTHER]))
        assert told["spent_micros"] == "130"
        assert (other.prompts, other.fields_prompts) == ([], []) if make == ask.ask else other.fields_prompts == []
        made = await make(*asked, purse=purse(130 + most), fallbacks=[OTHER])
        assert made.degraded_from == MODEL


@settings(max_examples=40, deadline=None)
@given(
    most=st.integers(0, 1_500),
    outputs=st.lists(st.integers(0, OUTPUT_TOKENS), min_size=1, max_size=6),
    wrong=st.booleans(),
    fails=st.sets(st.integers(0, 5), max_size=3),
    seed=st.integers(0, 2**16),
)
def test_no_extraction_and_no_answer_spends_more(
    most: int, outputs: list[int], wrong: bool, fails: set[int], seed: int
) -> None:
    for kind in ("fields", "ask"):
        asyncio.run(_spend(kind, most, outputs, wrong=wrong, fails=fails, chance=random.Random(seed)))


async def _spend(
    kind: str, most: int, outputs: Sequence[int], *, wrong: bool, fails: set[int], chance: random.Random
) -> None:
    flow = flow_of()
    numbers = iter(range(1_000))

    async def answer(prompt: Prompt | FieldsPrompt) -> Answer:
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        number = next(numbers)
        if number in fails:
            known = {"input_tokens": "9", "output_tokens": "7"} if chance.random() < 0.5 else {}
            raise Unavailable("PROVIDER_INVALID_ANSWER", "charged, or may be", metadata=known)
        tokens = TokenCount(flow.provider.count(prompt).input_tokens, outputs[number % len(outputs)])
        return Answer((), tokens, say(WRONG if wrong else RIGHT).fields if isinstance(prompt, FieldsPrompt) else ())

    for provider in (flow.provider, flow.others["other"]):
        provider.behaviour = provider.fields = answer
    # Several pages a part, so that several calls race.
    flow.pages.put("acme", DOCUMENT, *(page_of(number, f"w{number} " * 300) for number in range(1, 5)))
    own = purse(most)
    with act_as(ALICE), contextlib.suppress(PagemeshError):
        if kind == "ask":
            await AskFlow(flow).ask(ASKED, purse=own, fallbacks=[OTHER])
        else:
            await Fields(flow)(purse=own, fallbacks=[OTHER])
    await flow.tails.close(1)
    assert standing(flow) == own.spent_micros <= most
    assert own.held_micros == 0


def test_a_bound_in_another_currency_is_refused() -> None:
    for make in (fields_pb2.ExtractFieldsRequest, answer_pb2.AskRequest, answer_pb2.StreamAskRequest):
        request = make()
        assert to_purse(request) is None
        request.max_cost.currency, request.max_cost.micros = "EUR", 5
        with pytest.raises(InvalidArgument, match="MAX_COST_CURRENCY"):
            to_purse(request)
