"""A request spends what it may and not a micro-unit more, however many of its calls race."""

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.errors import FailedPrecondition, InvalidArgument, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory import HoldState, MemoryBooks
from services.summarizer.domain.map_reduce import Bill, Job, MapReduce
from services.summarizer.domain.ports import Held
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Answer, Chunk, Money, Prompt, TokenCount
from tests.unit.summarizer.flow.parts import (
    ALICE,
    BOB,
    DOCUMENT,
    MODEL,
    OUTPUT_TOKENS,
    PRICES,
    Flow,
    ScriptedProvider,
    options,
    until,
    word_page,
)

HOLD = 215
"""What the call about a chunk of `chunks` is held at: 10 + 5 tokens sent, 100 received at the double price."""


pytestmark = pytest.mark.usefixtures("for_alice")


@pytest.fixture
def flow() -> Flow:
    return Flow()


def usd(micros: int) -> Money:
    return Money("USD", micros)


def chunks(count: int) -> list[Chunk]:
    texts = [f"Chunk {number} has its words." for number in range(count)]
    return [Chunk(number, text, ((0, len(text), number + 1),)) for number, text in enumerate(texts)]


async def buy(flow: Flow, purse: Purse, count: int, bill: Bill | None = None) -> None:
    job = Job(ALICE, DOCUMENT, options(), flow.models().resolve(MODEL), purse=purse)
    await MapReduce(results=flow.store, paid=flow.paid()).answer(
        job, chunks(count), bill or Bill(), chunk_done=lambda: None, on_text=lambda _: None
    )


async def test_what_is_taken_is_there() -> None:
    purse = Purse(usd(100))
    assert await purse.take("a", usd(60))
    assert not await purse.take("b", usd(41))
    assert await purse.take("b", usd(40))
    await purse.end("a", 10)
    await purse.end("a", 10)
    assert (purse.spent_micros, purse.held_micros) == (10, 40)
    await purse.end("b", None)
    assert (purse.spent_micros, purse.held_micros) == (50, 0)


async def test_what_was_spent_before_counts() -> None:
    purse = Purse(usd(100), spent_micros=90)
    assert not await purse.take("a", usd(11))
    assert await purse.take("a", usd(10))


def test_a_bound_in_another_currency_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Purse(Money("EUR", 1))
    assert caught.value.fields[0].field == "max_cost.currency"


@settings(max_examples=60, deadline=None)
@given(
    most=st.integers(0, 3_000),
    outputs=st.lists(st.integers(0, OUTPUT_TOKENS), min_size=1, max_size=12),
    fails=st.sets(st.integers(0, 11), max_size=3),
    seed=st.integers(0, 2**16),
)
def test_no_run_spends_more(most: int, outputs: list[int], fails: set[int], seed: int) -> None:
    asyncio.run(_spend(most, outputs, fails, random.Random(seed)))


async def _spend(most: int, outputs: list[int], fails: set[int], chance: random.Random) -> None:
    flow = Flow(books=_WatchedBooks(PRICES))
    purse = Purse(usd(most))

    async def answer(prompt: Prompt) -> Answer:
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        number = len(flow.provider.bill)
        if number in fails:
            flow.provider.bill.append(TokenCount(0, 0))
            raise Unavailable("CUT", "it may have been charged")
        tokens = TokenCount(flow.provider.count(prompt).input_tokens, outputs[number % len(outputs)])
        flow.provider.bill.append(tokens)
        return Answer((), tokens)

    flow.provider = ScriptedProvider(answer)
    with act_as(ALICE):
        with contextlib.suppress(FailedPrecondition, Unavailable):
            await buy(flow, purse, len(outputs))
        await flow.tails.close(1)
    standing = flow.books.settled_micros() + flow.books.held_micros()
    assert standing <= most
    assert purse.spent_micros == standing
    assert purse.held_micros == 0
    assert flow.provider.billed_micros() <= most


class _WatchedBooks(MemoryBooks):
    """A ledger whose answers take a turn of the loop, so that others come in between."""

    async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
        await asyncio.sleep(0)
        return await super().reserve(hold_id, model, most, ttl_s, job=job)


async def test_four_calls_at_once_take_no_more_than_there_is(flow: Flow) -> None:
    gate = asyncio.Event()

    async def answer(prompt: Prompt) -> Answer:
        await gate.wait()
        return flow.provider.charge(prompt, ())

    flow.provider.behaviour = answer
    task = asyncio.create_task(buy(flow, Purse(usd(2 * HOLD + 1)), 8))
    await until(lambda: flow.provider.running == 2 and len(flow.books.holds) == 4)
    # The others wait, and what was set aside for them is free for anybody else.
    await until(lambda: flow.books.held_micros() == 2 * HOLD)
    assert sum(hold.state is HoldState.RELEASED for hold in flow.books.holds.values()) == 2
    gate.set()
    await task
    assert flow.provider.most_running == 2
    assert flow.books.settled_micros() == 8 * 15


async def test_to_the_micro_unit(flow: Flow) -> None:
    await buy(flow, Purse(usd(HOLD)), 1)
    other = Flow()
    with pytest.raises(FailedPrecondition) as caught:
        await buy(other, Purse(usd(HOLD - 1)), 1)
    assert caught.value.reason == "MAX_COST_EXCEEDED"
    assert [violation.field for violation in caught.value.fields] == ["max_cost"]
    assert dict(caught.value.metadata) == {
        "max_cost_micros": str(HOLD - 1),
        "spent_micros": "0",
        "needed_micros": str(HOLD),
    }
    assert other.provider.prompts == []
    assert [hold.state for hold in other.books.holds.values()] == [HoldState.RELEASED]


async def test_what_was_bought_serves_the_next_try(flow: Flow) -> None:
    flow.provider.context_tokens = 10_000
    # The chunks cost 23 each, and the reduction is held at more than is left.
    with pytest.raises(FailedPrecondition):
        await buy(flow, Purse(usd(HOLD + 4 * 23)), 5)
    asked = len(flow.provider.prompts)
    spent = flow.books.settled_micros()
    bill = Bill()
    await buy(flow, Purse(usd(1_000)), 5, bill)
    assert len(flow.provider.prompts) == 6
    assert bill.consumption().provider_calls == 6 - asked
    assert flow.books.settled_micros() == spent + bill.consumption().cost.micros


async def test_giving_up_frees_nothing_that_may_be_charged(flow: Flow) -> None:
    async def hang(_: Prompt) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    flow.provider.behaviour = hang
    purse = Purse(usd(1_000))
    task = asyncio.create_task(buy(flow, purse, 1))
    await until(lambda: flow.provider.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await flow.tails.close(1)
    assert (purse.spent_micros, purse.held_micros) == (HOLD, 0)


async def test_a_request_names_its_bound_and_another_model_has_what_is_left(flow: Flow) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, word_page(1, 20))
    other = ScriptedProvider()
    other.name = "other"
    flow.others["other"] = other
    flow.books.prices = {**PRICES, "other/writer": PRICES[MODEL]}

    async def garbage(prompt: Prompt) -> Answer:
        raise Unavailable("PROVIDER_INVALID_ANSWER", "x", metadata={"input_tokens": "30", "output_tokens": "50"})

    flow.provider.behaviour = garbage
    hold = 30 + 2 * OUTPUT_TOKENS
    ask = flow.summarize()
    with pytest.raises(FailedPrecondition) as caught:
        await ask(ALICE, DOCUMENT, options(), fallbacks=["other/writer"], purse=Purse(usd(130 + hold - 1)))
    assert caught.value.metadata["spent_micros"] == "130"
    assert other.prompts == []
    summary = await ask(ALICE, DOCUMENT, options(), fallbacks=["other/writer"], purse=Purse(usd(130 + hold)))
    assert summary.degraded_from == MODEL


async def test_who_asks_with_another_bound_does_not_fail_with_the_first(flow: Flow) -> None:
    flow.pages.put(ALICE.tenant, DOCUMENT, word_page(1, 20))
    ask = flow.summarize()
    poor, rich = await asyncio.gather(
        ask(ALICE, DOCUMENT, options(), purse=Purse(usd(1))), ask(ALICE, DOCUMENT, options()), return_exceptions=True
    )
    assert isinstance(poor, FailedPrecondition)
    assert not isinstance(rich, BaseException)
    with act_as(BOB):
        # What is known already costs nothing and fits into an empty purse.
        cached = await ask(BOB, DOCUMENT, options(), purse=Purse(usd(0)))
    assert cached.cached
