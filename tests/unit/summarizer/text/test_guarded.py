"""What stands around every provider: the queue, the breaker, and retries of what certainly cost nothing."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest

from services.runtime.breaker import Breaker
from services.runtime.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.ports import Abilities
from services.summarizer.domain.values import Answer, TokenCount
from tests.unit.summarizer.text.papers import chunk, map_prompt

ANSWER = Answer((), TokenCount(1, 1))
NO_CONNECTION = Unavailable("PROVIDER_UNAVAILABLE", "", metadata={"sent": "no", "billed": "no"})
RATE_LIMITED = ResourceExhausted("PROVIDER_RATE_LIMITED", "", retry_after_s=3.0, metadata={"billed": "no"})
OVERLOADED = Unavailable("PROVIDER_UNAVAILABLE", "", retry_after_s=2.0, metadata={"billed": "no", "status": "503"})
CUT = Unavailable("PROVIDER_UNAVAILABLE", "")
TIMED_OUT = DeadlineExceeded("PROVIDER_TIMEOUT", "")
SERVER_ERROR = Unavailable("PROVIDER_UNAVAILABLE", "", metadata={"status": "500"})
WROTE_BADLY = Unavailable("PROVIDER_INVALID_ANSWER", "", metadata={"input_tokens": "1", "output_tokens": "1"})
NOT_THE_API = Unavailable("PROVIDER_INVALID_ANSWER", "")
REFUSED = InvalidArgument("PROVIDER_REFUSED", "", metadata={"billed": "no", "status": "422"})
PROMPT = map_prompt(chunk("text"))


class Scripted:
    """Fails as told, then answers; `gate` holds every call until it is set."""

    name, version = "scripted", "1"

    def __init__(self, *failures: PagemeshError, pieces: int = 2, fail_after: int = 0) -> None:
        self.failures = list(failures)
        self.pieces, self.fail_after = pieces, fail_after
        self.calls = self.running = self.most_running = self.closed = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def models(self) -> tuple[str, ...]:
        return ("lexrank", "other")

    def abilities(self, model: str) -> Abilities:
        if model not in self.models():
            raise NotFound("MODEL_UNKNOWN", "")
        return Abilities(1, 1, writes=True, bills_unanswered=True)

    def count(self, prompt: AnyPrompt) -> TokenCount:
        return TokenCount(7, 8)

    async def complete(self, prompt: AnyPrompt) -> Answer:
        self.calls += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if self.failures:
            raise self.failures.pop(0)
        return ANSWER

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        self.calls += 1
        try:
            for number in range(self.pieces):
                if self.failures and number == self.fail_after:
                    raise self.failures.pop(0)
                yield f"piece {number}"
            yield ANSWER
        finally:
            self.closed += 1


class Waits:
    """A clock that only tells what was slept."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


def guard(
    provider: Scripted,
    waits: Waits,
    *,
    remaining_s: float | None = None,
    tenant: Callable[[], str] = lambda: "acme",
    concurrency: int = 10,
    max_waiting: int = 200,
    jitter: float = 1.0,
    fail_max: int = 100,
) -> GuardedProvider:
    return GuardedProvider(
        provider,
        remaining_s=lambda: remaining_s,
        tenant=tenant,
        breaker_for=lambda name: Breaker(f"test {name}", fail_max=fail_max),
        concurrency=concurrency,
        max_waiting=max_waiting,
        sleep=waits.sleep,
        jitter=lambda: jitter,
    )


@pytest.fixture
def waits() -> Waits:
    return Waits()


async def read(provider: GuardedProvider) -> list[str | Answer]:
    return [item async for item in provider.stream(PROMPT)]


@pytest.mark.parametrize("failure", [NO_CONNECTION, RATE_LIMITED, OVERLOADED])
async def test_what_cost_nothing_is_tried_again(failure: PagemeshError, waits: Waits) -> None:
    provider = Scripted(failure, failure)
    assert await guard(provider, waits).complete(PROMPT) == ANSWER
    assert provider.calls == 3
    provider = Scripted(failure)
    assert await read(guard(provider, waits)) == ["piece 0", "piece 1", ANSWER]
    assert provider.closed == 2


@pytest.mark.parametrize("failure", [CUT, TIMED_OUT, SERVER_ERROR, REFUSED])
async def test_what_may_have_to_be_paid_or_will_fail_again_is_not(failure: PagemeshError, waits: Waits) -> None:
    provider = Scripted(failure)
    with pytest.raises(type(failure)):
        await guard(provider, waits).complete(PROMPT)
    assert provider.calls == 1
    with pytest.raises(type(failure)):
        await read(guard(Scripted(failure), waits))
    assert waits.slept_s == []


async def test_it_gives_up_after_three_retries(waits: Waits) -> None:
    provider = Scripted(*[NO_CONNECTION] * 9)
    with pytest.raises(Unavailable):
        await guard(provider, waits).complete(PROMPT)
    assert provider.calls == 4
    assert waits.slept_s == [0.5, 1.0, 2.0]


async def test_full_jitter_and_retry_after(waits: Waits) -> None:
    await guard(Scripted(NO_CONNECTION, NO_CONNECTION), waits, jitter=0.25).complete(PROMPT)
    assert waits.slept_s == [0.125, 0.25]
    waits.slept_s.clear()
    await guard(Scripted(RATE_LIMITED), waits, jitter=0.5).complete(PROMPT)
    assert waits.slept_s == [3.25]


async def test_no_retry_that_the_deadline_would_cut(waits: Waits) -> None:
    provider = Scripted(RATE_LIMITED)
    with pytest.raises(ResourceExhausted) as refused:
        await guard(provider, waits, remaining_s=2.9).complete(PROMPT)
    assert refused.value.retry_after_s == 3.0
    assert provider.calls == 1


async def test_after_the_first_piece_nothing_is_tried_again(waits: Waits) -> None:
    provider = Scripted(RATE_LIMITED, fail_after=1)
    stream = guard(provider, waits).stream(PROMPT)
    assert await anext(stream) == "piece 0"
    with pytest.raises(ResourceExhausted):
        await anext(stream)
    assert provider.calls == 1


async def test_at_most_ten_at_once_for_each_model(waits: Waits) -> None:
    provider = Scripted()
    provider.gate.clear()
    guarded = guard(provider, waits)
    other = map_prompt(chunk("text"), model="other")
    calls = [asyncio.create_task(guarded.complete(PROMPT)) for _ in range(25)]
    calls += [asyncio.create_task(guarded.complete(other)) for _ in range(3)]
    while provider.running < 13:
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    assert provider.running == 13
    provider.gate.set()
    await asyncio.gather(*calls)
    assert provider.most_running == 13
    assert provider.calls == 28


async def test_the_queue_is_bounded_and_a_cancelled_waiter_leaves_it(waits: Waits) -> None:
    provider = Scripted()
    provider.gate.clear()
    guarded = guard(provider, waits, concurrency=1, max_waiting=1)
    running = asyncio.create_task(guarded.complete(PROMPT))
    waiting = asyncio.create_task(guarded.complete(PROMPT))
    while not provider.running:
        await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as full:
        await guarded.complete(PROMPT)
    assert full.value.reason == "PROVIDER_QUEUE_FULL"
    assert full.value.metadata["sent"] == "no"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    provider.gate.set()
    await running
    assert await guarded.complete(PROMPT) == ANSWER, "a cancelled waiter leaves its place"


async def test_a_tenant_does_not_wait_for_anothers_backlog(waits: Waits) -> None:
    provider = Scripted()
    provider.gate.clear()
    caller = ["acme"]
    guarded = guard(provider, waits, concurrency=1, max_waiting=20, tenant=lambda: caller[0])
    ended: list[str] = []

    async def call(tenant: str) -> None:
        caller[0] = tenant
        await guarded.complete(PROMPT)
        ended.append(tenant)

    calls = [asyncio.create_task(call("acme")) for _ in range(11)]
    for _ in range(10):
        await asyncio.sleep(0)
    calls.append(asyncio.create_task(call("umbrella")))
    for _ in range(10):
        await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as full:
        await call("acme")
    assert full.value.reason == "PROVIDER_QUEUE_FULL", "half of the queue is for others"
    provider.gate.set()
    await asyncio.gather(*calls)
    assert ended.index("umbrella") <= 2, "it is its turn as soon as a place was free for each"


async def test_waiting_ends_with_the_deadline(waits: Waits) -> None:
    provider = Scripted()
    provider.gate.clear()
    left_s = [100.0]
    guarded = GuardedProvider(
        provider, remaining_s=lambda: left_s[0], tenant=lambda: "acme", concurrency=1, sleep=waits.sleep
    )
    running = asyncio.create_task(guarded.complete(PROMPT))
    while not provider.running:
        await asyncio.sleep(0)
    left_s[0] = 0.0
    with pytest.raises(DeadlineExceeded) as late:
        await guarded.complete(PROMPT)
    assert (late.value.reason, late.value.metadata["sent"]) == ("PROVIDER_QUEUE_TIMEOUT", "no")
    provider.gate.set()
    assert await running == ANSWER


async def test_one_in_the_queue_is_given_the_time_of_those_who_join(waits: Waits) -> None:
    provider = Scripted()
    provider.gate.clear()
    left_s = iter([100.0, 0.01])
    guarded = GuardedProvider(
        provider, remaining_s=lambda: next(left_s, 100.0), tenant=lambda: "acme", concurrency=1, sleep=waits.sleep
    )
    running = asyncio.create_task(guarded.complete(PROMPT))
    while not provider.running:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(guarded.complete(PROMPT))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done, "its first time is over, and somebody who has more joined"
    provider.gate.set()
    assert [await running, await waiting] == [ANSWER, ANSWER]


async def test_a_failing_model_is_given_a_rest_and_the_others_are_not(waits: Waits) -> None:
    provider = Scripted(*[SERVER_ERROR] * 3)
    guarded = guard(provider, waits, fail_max=3)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await guarded.complete(PROMPT)
    for call in (guarded.complete(PROMPT), read(guarded)):
        with pytest.raises(Unavailable) as rest:
            await call
        assert rest.value.reason == "BREAKER_OPEN"
        assert rest.value.metadata["sent"] == "no"
    assert provider.calls == 3
    assert waits.slept_s == [], "an open breaker is not asked again"
    assert await guarded.complete(map_prompt(chunk("text"), model="other")) == ANSWER


async def test_refusals_do_not_open_the_breaker(waits: Waits) -> None:
    provider = Scripted(*[REFUSED] * 5)
    guarded = guard(provider, waits, fail_max=2)
    for _ in range(5):
        with pytest.raises(InvalidArgument):
            await guarded.complete(PROMPT)
    assert await guarded.complete(PROMPT) == ANSWER


async def answered(provider: GuardedProvider) -> Answer:
    """Reads a stream as those do who want its answer: they stop there."""
    async with aclosing(provider.stream(PROMPT)) as items:
        async for item in items:
            if isinstance(item, Answer):
                return item
    raise AssertionError("no answer")


async def test_a_streamed_answer_is_a_success(waits: Waits) -> None:
    provider = Scripted()
    guarded = guard(provider, waits, fail_max=3)
    for _ in range(5):
        provider.failures = [CUT, CUT]
        for _ in range(2):
            with pytest.raises(Unavailable):
                await answered(guarded)
        assert await answered(guarded) == ANSWER
    assert provider.calls == 15


async def test_a_streamed_answer_ends_the_rest_of_a_model(waits: Waits) -> None:
    provider = Scripted(CUT)
    breaker = Breaker("test probe", fail_max=1, reset_timeout_s=0.0)
    guarded = GuardedProvider(
        provider, remaining_s=lambda: None, tenant=lambda: "acme", breaker_for=lambda _: breaker, sleep=waits.sleep
    )
    with pytest.raises(Unavailable):
        await answered(guarded)
    assert breaker.state == "half-open", "it has rested: the next call is the probe"
    assert await answered(guarded) == ANSWER
    assert breaker.state == "closed"


async def test_documents_that_a_model_answers_badly_do_not_stop_it_for_others(waits: Waits) -> None:
    provider = Scripted(*[WROTE_BADLY] * 12)
    guarded = GuardedProvider(
        provider,
        remaining_s=lambda: None,
        tenant=lambda: "acme",
        sleep=waits.sleep,
    )
    for _ in range(6):
        for call in (guarded.complete(PROMPT), answered(guarded)):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value is WROTE_BADLY
    assert await guarded.complete(PROMPT) == ANSWER


@pytest.mark.parametrize("failure", [NOT_THE_API, SERVER_ERROR, CUT, TIMED_OUT])
async def test_a_provider_that_is_broken_is_given_a_rest(failure: PagemeshError, waits: Waits) -> None:
    guarded = GuardedProvider(
        Scripted(*[failure] * 5), remaining_s=lambda: None, tenant=lambda: "acme", sleep=waits.sleep
    )
    for _ in range(5):
        with pytest.raises(type(failure)):
            await guarded.complete(PROMPT)
    with pytest.raises(Unavailable) as rest:
        await guarded.complete(PROMPT)
    assert rest.value.reason == "BREAKER_OPEN"


async def test_closing_the_stream_closes_the_call_and_frees_its_place(waits: Waits) -> None:
    provider = Scripted()
    guarded = guard(provider, waits, concurrency=1)
    stream = guarded.stream(PROMPT)
    await anext(stream)
    await stream.aclose()
    assert provider.closed == 1
    assert await guarded.complete(PROMPT) == ANSWER


async def test_an_unknown_model_gets_no_place(waits: Waits) -> None:
    guarded = guard(Scripted(), waits)
    with pytest.raises(NotFound):
        await guarded.complete(map_prompt(chunk("text"), model="nonsense"))
    assert guarded.count(PROMPT) == TokenCount(7, 8)
    assert guarded.models() == ("lexrank", "other")
