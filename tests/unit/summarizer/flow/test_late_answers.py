"""An answer that arrives while the database is away: a job's is kept until it is back, a caller is told at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.runtime.errors import Unavailable
from services.summarizer.adapters.memory import HoldState, MemoryStore
from services.summarizer.domain.paid_calls import COMMIT_TRIES, Order
from services.summarizer.domain.values import Answer, Delivery
from tests.unit.summarizer.flow.parts import Flow
from tests.unit.summarizer.flow.test_paid_calls import committed, order

pytestmark = pytest.mark.usefixtures("for_alice")
AWAY = Unavailable("DATABASE_UNAVAILABLE", "down")


class Away(MemoryStore):
    """Does not take answers for so many times, and the last of these although it says that it did not."""

    def __init__(self, flow: Flow, times: int) -> None:
        super().__init__(flow.clock)
        self.times, self.tries = times, 0

    async def commit(
        self,
        key: bytes,
        answer: Answer,
        delivery: Delivery,
        *,
        generation: int = 0,
        others: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.tries += 1
        if self.tries >= self.times:
            await super().commit(key, answer, delivery, generation=generation, others=others)
        if self.tries <= self.times:
            raise AWAY


def of_a_job(flow: Flow) -> Order:
    asked = order(flow)
    return replace(asked, caller=replace(asked.caller, job="jobs/" + "a" * 32))


def paid_with(flow: Flow, store: MemoryStore) -> Any:
    flow.store = store
    return flow.paid()


async def test_the_answer_of_a_job_is_offered_again_and_bought_and_settled_once() -> None:
    flow = Flow()
    store = Away(flow, 5)
    paid = await paid_with(flow, store).make(of_a_job(flow))
    await flow.tails.close(1)
    assert (store.tries, paid.settled) == (6, True)
    assert await committed(store, order(flow).key) is not None
    assert [hold.state for hold in flow.books.holds.values()] == [HoldState.SETTLED]
    assert flow.books.settled_micros() == flow.provider.billed_micros() == paid.cost.micros > 0
    assert (await store.backlog()).depth == 0, "what was told is not told once more"
    again = await flow.paid().make(of_a_job(flow))
    assert (again.bought, len(flow.provider.prompts)) == (False, 1)


async def test_a_caller_who_waits_is_told_at_once() -> None:
    flow = Flow()
    store = Away(flow, 5)
    with pytest.raises(Unavailable):
        await paid_with(flow, store).make(order(flow))
    assert store.tries == 1
    assert flow.books.settled_micros() == flow.provider.billed_micros() > 0


async def test_a_database_that_stays_away_is_not_waited_for_for_ever() -> None:
    flow = Flow()
    store = Away(flow, 10**6)
    with pytest.raises(Unavailable):
        await paid_with(flow, store).make(of_a_job(flow))
    assert store.tries == 1 + COMMIT_TRIES
    assert flow.books.settled_micros() == flow.provider.billed_micros() > 0
