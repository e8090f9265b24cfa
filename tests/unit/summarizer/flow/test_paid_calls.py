"""Money is set aside before a call and accounted for after it, whatever happens between."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence

import pytest

from services.runtime.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.adapters.memory import HoldState, MemoryStore
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.keys import content_key
from services.summarizer.domain.paid_calls import CallState, Order, state_of
from services.summarizer.domain.ports import Committed, Held
from services.summarizer.domain.values import (
    Answer,
    Chunk,
    Delivery,
    Money,
    Prompt,
    Stage,
    TokenCount,
    UsageEvent,
)
from tests.unit.summarizer.flow.parts import ALICE, DOCUMENT, MODEL, Flow, ScriptedProvider, options, until

pytestmark = pytest.mark.usefixtures("for_alice")


@pytest.fixture
def flow() -> Flow:
    return Flow()


def order(flow: Flow, text: str = "One two three.") -> Order:
    chunk = Chunk(0, text, ((0, len(text), 1),))
    prompt = Prompt(Stage.MAP, options(), "writer", 3, chunk=chunk)
    key = content_key(prompt, model=MODEL, provider_version=flow.provider.version)
    return Order(ALICE, DOCUMENT, flow.models().resolve(MODEL), prompt, key)


def failing(flow: Flow, error: Exception) -> None:
    async def behave(_: Prompt) -> Answer:
        raise error

    flow.provider.behaviour = behave


def states(flow: Flow) -> list[HoldState]:
    return [hold.state for hold in flow.books.holds.values()]


async def committed(store: MemoryStore, key: bytes) -> Committed | None:
    return (await store.find(ALICE.tenant, [key])).get(key)


async def test_the_books_say_what_the_provider_charges(flow: Flow) -> None:
    paid = await flow.paid().make(order(flow))
    await flow.tails.close(1)
    assert paid.settled
    assert paid.cost == Money("USD", flow.provider.billed_micros())
    assert flow.books.settled_micros() == flow.provider.billed_micros()
    assert states(flow) == [HoldState.SETTLED]
    found = await committed(flow.store, order(flow).key)
    assert found is not None
    assert found.answer == paid.answer
    assert (await flow.store.backlog()).depth == 0
    assert flow.outcomes == ["ok"]


async def test_one_id_names_hold_event_and_answer(flow: Flow) -> None:
    paid = await flow.paid().make(order(flow))
    (hold_id,) = flow.books.holds
    assert (ALICE.tenant, paid.event_id) in flow.books.events
    assert paid.event_id == hold_id
    event = flow.books.events[ALICE.tenant, hold_id]
    assert (event.operation, event.document, event.request_id) == (
        "summarize.map",
        DOCUMENT,
        ALICE.request_id,
    )


async def test_text_is_told_as_it_is_written(flow: Flow) -> None:
    heard: list[str] = []
    paid = await flow.paid().make(order(flow), heard.append)
    assert heard == [claim.text for claim in paid.answer.claims]


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("CONNECT", "refused", metadata={"sent": "no"}),
        ResourceExhausted("RATE", "429", retry_after_s=7, metadata={"billed": "no"}),
        InvalidArgument("REFUSED", "422", metadata={"billed": "no"}),
        Unavailable("LOADED", "503", metadata={"billed": "no"}),
    ],
    ids=lambda error: error.reason,
)
async def test_a_call_that_cost_nothing_frees_its_hold(flow: Flow, error: PagemeshError) -> None:
    failing(flow, error)
    with pytest.raises(type(error)) as caught:
        await flow.paid().make(order(flow))
    assert caught.value is error
    assert states(flow) == [HoldState.RELEASED]
    assert flow.books.held_micros() == 0
    assert flow.outcomes == [error.reason]


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("SLOW", "no answer in time"),
        Unavailable("CUT", "the stream broke off"),
        Unavailable("ODD", "half of the usage is not known", metadata={"input_tokens": "5"}),
    ],
    ids=lambda error: error.reason,
)
async def test_a_call_that_may_have_cost_something_keeps_its_hold(flow: Flow, error: PagemeshError) -> None:
    failing(flow, error)
    with pytest.raises(type(error)):
        await flow.paid().make(order(flow))
    await flow.tails.close(1)
    assert states(flow) == [HoldState.HELD]
    assert (await flow.store.backlog()).depth == 0


async def test_a_failed_call_whose_usage_is_known_is_settled(flow: Flow) -> None:
    failing(flow, Unavailable("GARBAGE", "unreadable", metadata={"input_tokens": "40", "output_tokens": "2"}))
    with pytest.raises(Unavailable):
        await flow.paid().make(order(flow))
    await flow.tails.close(1)
    assert states(flow) == [HoldState.SETTLED]
    assert flow.books.settled_micros() == 40 + 2 * 2
    assert await committed(flow.store, order(flow).key) is None


async def test_a_stream_without_an_answer_may_have_been_charged(flow: Flow) -> None:
    class Cut(ScriptedProvider):
        async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
            yield "half a sen"

    flow.provider = Cut()
    with pytest.raises(Unavailable) as caught:
        await flow.paid().make(order(flow), lambda _: None)
    assert caught.value.reason == "PROVIDER_CUT"
    assert states(flow) == [HoldState.HELD]


async def test_without_room_in_the_budget_nothing_is_called(flow: Flow) -> None:
    flow.books.budget_micros = 10
    with pytest.raises(ResourceExhausted) as caught:
        await flow.paid().make(order(flow))
    assert caught.value.reason == "BUDGET_EXCEEDED"
    assert caught.value.quota is not None
    assert flow.provider.prompts == []
    await flow.tails.close(1)
    assert (await flow.store.backlog()).depth == 0


class BooksDown:
    """A ledger that does not answer."""

    def __init__(self, **metadata: str) -> None:
        self.error = Unavailable("LEDGER_UNAVAILABLE", "down", metadata=metadata)

    async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
        raise self.error

    async def settle(self, hold_id: str, event: UsageEvent) -> Money:
        raise self.error

    async def release(self, hold_id: str) -> None:
        raise self.error

    async def record(self, events: tuple[UsageEvent, ...]) -> None:
        raise self.error


async def test_without_the_ledger_nothing_is_called_and_a_lost_hold_is_freed_later(flow: Flow) -> None:
    with pytest.raises(Unavailable):
        await flow.paid(books=BooksDown()).make(order(flow))
    assert flow.provider.prompts == []
    await flow.tails.close(1)
    flow.clock.now_s += 10
    (due,) = await flow.store.take(10, 60)
    assert due.delivery.event is None


async def test_a_reservation_that_never_left_needs_no_release(flow: Flow) -> None:
    with pytest.raises(Unavailable):
        await flow.paid(books=BooksDown(sent="no")).make(order(flow))
    await flow.tails.close(1)
    assert (await flow.store.backlog()).depth == 0


async def test_a_release_that_the_ledger_misses_is_kept(flow: Flow) -> None:
    class DownAfterReserve(BooksDown):
        async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
            return await flow.books.reserve(hold_id, model, most, ttl_s)

    failing(flow, Unavailable("CONNECT", "refused", metadata={"sent": "no"}))
    with pytest.raises(Unavailable):
        await flow.paid(books=DownAfterReserve()).make(order(flow))
    assert (await flow.store.backlog()).depth == 1
    assert states(flow) == [HoldState.HELD]


async def test_an_answer_stands_although_the_ledger_is_away(flow: Flow) -> None:
    class DownAfterReserve(BooksDown):
        async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
            return await flow.books.reserve(hold_id, model, most, ttl_s)

    paid = await flow.paid(books=DownAfterReserve()).make(order(flow))
    (hold,) = flow.books.holds.values()
    assert not paid.settled
    assert paid.cost == hold.amount
    flow.clock.now_s += 10
    (due,) = await flow.store.take(10, 60)
    assert due.delivery.event is not None
    assert due.delivery.event.tokens == flow.provider.bill[0]


async def test_cancelling_the_call_cancels_the_provider_and_keeps_the_hold(flow: Flow) -> None:
    async def hang(_: Prompt) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    flow.provider.behaviour = hang
    task = asyncio.create_task(flow.paid().make(order(flow)))
    await until(lambda: flow.provider.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flow.provider.cancelled == 1
    await flow.tails.close(1)
    assert states(flow) == [HoldState.HELD]


async def test_giving_up_again_and_again_does_not_use_up_the_budget_where_nobody_sends_a_bill(flow: Flow) -> None:
    async def hang(_: Prompt) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    flow.provider.bills_unanswered = False
    most = flow.provider.count(order(flow).prompt)
    flow.books.budget_micros = most.input_tokens + 2 * most.output_tokens
    flow.provider.behaviour = hang
    paid = flow.paid()
    for calls in range(1, 6):
        task = asyncio.create_task(paid.make(order(flow), lambda _: None))
        await until(lambda calls=calls: len(flow.provider.prompts) == calls)  # type: ignore[misc]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await flow.tails.close(1)
    assert states(flow) == [HoldState.RELEASED] * 5
    flow.provider.behaviour = flow.provider.answer
    assert (await paid.make(order(flow))).settled


@pytest.mark.parametrize("error", [DeadlineExceeded("SLOW", "no answer in time"), RuntimeError("a mistake of ours")])
async def test_a_failure_is_free_where_nobody_sends_a_bill(flow: Flow, error: Exception) -> None:
    flow.provider.bills_unanswered = False
    failing(flow, error)
    with pytest.raises(type(error)):
        await flow.paid().make(order(flow))
    assert states(flow) == [HoldState.RELEASED]


async def test_a_mistake_of_ours_may_have_cost_something(flow: Flow) -> None:
    failing(flow, RuntimeError("a mistake of ours"))
    with pytest.raises(RuntimeError):
        await flow.paid().make(order(flow))
    assert states(flow) == [HoldState.HELD]
    assert flow.outcomes == ["INTERNAL"]


async def test_counting_holds_nobody_up(flow: Flow) -> None:
    counting, loop_goes_on = threading.Event(), threading.Event()

    class Thorough(ScriptedProvider):
        def count(self, prompt: AnyPrompt) -> TokenCount:
            counting.set()
            assert loop_goes_on.wait(5), "the loop waits for the count"
            return super().count(prompt)

    flow.provider = Thorough()
    task = asyncio.create_task(flow.paid().make(order(flow)))
    await until(counting.is_set)
    loop_goes_on.set()
    assert (await task).settled


async def test_cancelling_the_reservation_frees_it(flow: Flow) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow(BooksDown):
        async def reserve(self, hold_id: str, model: str, most: TokenCount, ttl_s: float, *, job: str = "") -> Held:
            held = await flow.books.reserve(hold_id, model, most, ttl_s)
            reached.set()
            await go_on.wait()
            return held

        async def release(self, hold_id: str) -> None:
            await flow.books.release(hold_id)

    task = asyncio.create_task(flow.paid(books=Slow()).make(order(flow)))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await flow.tails.close(1)
    assert states(flow) == [HoldState.RELEASED]
    assert flow.provider.prompts == []


class SlowResults:
    """Commits when it is let on, or fails."""

    def __init__(self, store: MemoryStore, error: Exception | None = None) -> None:
        self.store = store
        self.error = error
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def find(self, tenant: str, keys: Sequence[bytes]) -> Mapping[bytes, Committed]:
        return await self.store.find(tenant, keys)

    async def commit(
        self,
        key: bytes,
        answer: Answer,
        delivery: Delivery,
        *,
        generation: int = 0,
        others: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.reached.set()
        if self.error is not None:
            raise self.error
        await self.go_on.wait()
        await self.store.commit(key, answer, delivery, generation=generation, others=others)

    async def generation(self, tenant: str, document: str) -> int:
        return await self.store.generation(tenant, document)

    async def purge(self, tenant: str, document: str) -> int:
        return await self.store.purge(tenant, document)


async def test_an_answer_that_was_given_is_written_down_although_nobody_waits(flow: Flow) -> None:
    results = SlowResults(flow.store)
    task = asyncio.create_task(flow.paid(results=results).make(order(flow)))
    await results.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    results.go_on.set()
    await flow.tails.close(1)
    assert await committed(flow.store, order(flow).key) is not None
    assert states(flow) == [HoldState.SETTLED]
    assert flow.books.settled_micros() == flow.provider.billed_micros()


async def test_an_answer_that_could_not_be_written_is_in_the_books_and_is_not_given(flow: Flow) -> None:
    results = SlowResults(flow.store, Unavailable("DATABASE_UNAVAILABLE", "down"))
    with pytest.raises(Unavailable) as caught:
        await flow.paid(results=results).make(order(flow))
    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    assert flow.books.settled_micros() == flow.provider.billed_micros() > 0


def test_nothing_is_free_that_is_not_known_to_be() -> None:
    def state(error: BaseException, *, bills_unanswered: bool = True) -> CallState:
        return state_of(error, bills_unanswered=bills_unanswered)

    assert state(Unavailable("X", "x")) is CallState.UNKNOWN
    assert state(ResourceExhausted("X", "x")) is CallState.UNKNOWN
    assert state(asyncio.CancelledError()) is CallState.UNKNOWN
    assert state(Unavailable("X", "x", metadata={"sent": "yes"})) is CallState.UNKNOWN
    assert state(Unavailable("X", "x", metadata={"sent": "no"})) is CallState.FREE
    assert state(asyncio.CancelledError(), bills_unanswered=False) is CallState.FREE
    known = Unavailable("X", "x", metadata={"billed": "no", "input_tokens": "1", "output_tokens": "0"})
    assert state(known) is CallState.KNOWN
    assert state(known, bills_unanswered=False) is CallState.KNOWN
