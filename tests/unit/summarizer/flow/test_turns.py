"""One buyer for each answer at a time, whoever dies, fails or leaves."""

import asyncio
from collections.abc import Sequence

import pytest

from services.runtime.errors import Unavailable
from services.summarizer.adapters.memory import MemoryStore
from services.summarizer.domain.paid_calls import NOTHING, Paid
from services.summarizer.domain.turns import LEASE_S
from services.summarizer.domain.values import Answer, Delivery, Prompt
from tests.unit.summarizer.flow.parts import ALICE, BOB, DOCUMENT, Flow, page, until
from tests.unit.summarizer.flow.test_paid_calls import failing, order
from tests.unit.summarizer.flow.test_summarize import ask

pytestmark = pytest.mark.usefixtures("for_alice")


@pytest.fixture
def flow() -> Flow:
    flow = Flow()
    flow.pages.put(ALICE.tenant, DOCUMENT, page(1, "The cat sat here."))
    return flow


async def test_two_who_want_the_same_make_one_call(flow: Flow) -> None:
    under_way, answered = asyncio.Event(), asyncio.Event()

    async def slow(prompt: Prompt) -> Answer:
        under_way.set()
        await answered.wait()
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = slow
    # Replicas share the book and the results, and nothing else.
    first = asyncio.create_task(flow.paid().make(order(flow)))
    await under_way.wait()
    second = asyncio.create_task(flow.paid().make(order(flow)))
    await until(lambda: len(flow.turns.asked) >= 2)
    answered.set()
    bought, shared = await first, await second
    assert (bought.bought, shared.bought) == (True, False)
    assert shared == Paid(bought.answer, bought.event_id, NOTHING, settled=True, bought=False)
    assert len(flow.provider.prompts) == 1
    await flow.tails.close(1)
    assert flow.turns.held == {}


async def test_one_who_is_cancelled_while_it_is_written_down_keeps_the_turn_until_it_is(flow: Flow) -> None:
    written = asyncio.Event()

    class SlowStore(MemoryStore):
        async def commit(
            self,
            key: bytes,
            answer: Answer,
            delivery: Delivery,
            *,
            generation: int = 0,
            others: Sequence[tuple[str, int]] = (),
        ) -> None:
            await written.wait()
            await flow.store.commit(key, answer, delivery, generation=generation, others=others)

    first = asyncio.create_task(flow.paid(results=SlowStore(flow.clock)).make(order(flow)))
    await until(lambda: flow.outcomes == ["ok"])
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(flow.paid().make(order(flow)))
    await until(lambda: len(flow.turns.asked) >= 2)
    written.set()
    assert not (await second).bought
    assert len(flow.provider.prompts) == 1


async def test_whoever_fails_lets_the_next_try(flow: Flow) -> None:
    failing(flow, Unavailable("PROVIDER_UNAVAILABLE", "It is away."))
    with pytest.raises(Unavailable):
        await flow.paid().make(order(flow))
    flow.provider.behaviour = flow.provider.answer
    assert (await flow.paid().make(order(flow))).bought


async def test_a_buyer_that_died_keeps_others_waiting_for_its_lease_only(flow: Flow) -> None:
    wanted = order(flow)
    await flow.turns.take(ALICE.tenant, wanted.key, "the dead one", LEASE_S)
    waiting = asyncio.create_task(flow.paid().make(wanted))
    await until(lambda: len(flow.turns.asked) >= 2)
    assert flow.provider.prompts == []
    flow.clock.now_s += LEASE_S + 1
    assert (await waiting).bought


async def test_nobody_rides_on_the_budget_of_another_key(flow: Flow) -> None:
    go_on = asyncio.Event()

    async def fail_the_first(prompt: Prompt) -> Answer:
        await go_on.wait()
        if len(flow.provider.prompts) == 1:
            raise Unavailable("PROVIDER_UNAVAILABLE", "It is away.")
        return await flow.provider.answer(prompt)

    flow.provider.behaviour = fail_the_first
    use_case = flow.summarize()
    alice, bob = (asyncio.create_task(ask(use_case, caller)) for caller in (ALICE, BOB))
    await until(lambda: len(set(flow.turns.asked)) == 2 and flow.provider.running == 1)
    # Each has a run of its own, of which the second waits for what the first may buy, and buys it itself then.
    assert flow.joins == []
    assert len(flow.provider.prompts) == 1
    go_on.set()
    with pytest.raises(Unavailable):
        await alice
    assert (await bob).consumption.provider_calls == 1
