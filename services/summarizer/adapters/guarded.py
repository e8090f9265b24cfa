"""A provider with what every call to it needs: a place in the queue, room within what the provider takes in a minute, a
breaker, retries within the deadline.

Only what certainly cost nothing is tried again: a request that never left, and a refusal for load (429, or 503 with
Retry-After), which no provider charges. A call that broke off or timed out after it was sent may have to be paid, so it
is the caller's to decide, who set the money for one call aside.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from typing import TypeVar

from services.runtime.breaker import Breaker, counts_by_default
from services.runtime.errors import DeadlineExceeded, PagemeshError, ResourceExhausted, Unavailable
from services.summarizer.adapters.tolls import Spent, Tolls
from services.summarizer.adapters.work_spans import provider_span, usage
from services.summarizer.domain.fields_values import AnyPrompt
from services.summarizer.domain.ports import Abilities, Provider
from services.summarizer.domain.values import Answer, TokenCount
from services.waiting.fair_slots import FairSlots

T = TypeVar("T")

CONCURRENCY = 10
"""Calls to one model at once."""
MAX_WAITING = 200
"""Calls that wait for a place, at most half of them of one tenant. With more, most answers would come too late."""
KEPT = 1
"""Of the places of a model, those that only urgent calls take: so one starts although jobs have all the others."""
RETRIES = 3
_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 8.0
_QUEUE_RETRY_AFTER_S = 1.0
_NOT_SENT = {"sent": "no", "billed": "no"}


def model_breaker(name: str) -> Breaker:
    """A breaker that everybody who uses the model shares, and that no single document can open.

    An answer in the form of the API, with its usage, says that the provider works: what is wrong is what the model
    wrote, which depends on what it was asked.
    """

    def counts(error: BaseException) -> bool:
        wrote_badly = (
            isinstance(error, PagemeshError)
            and error.reason == "PROVIDER_INVALID_ANSWER"
            and "output_tokens" in error.metadata
        )
        return not wrote_badly and counts_by_default(error)

    return Breaker(name, counts=counts)


class GuardedProvider:
    """The same port around any provider.

    `remaining_s` says how much time the caller has left, None for no limit, `tenant` who he is, and `rank` how urgent
    his call is among his tenant's, 0 the most; `tolls` are the limits by the minute, where somebody sends a bill;
    `sleep` and `jitter` (uniform in 0 to 1) are there to be injected.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        remaining_s: Callable[[], float | None],
        tenant: Callable[[], str],
        rank: Callable[[], int] = lambda: 0,
        tolls: Tolls | None = None,
        breaker_for: Callable[[str], Breaker] = model_breaker,
        concurrency: int = CONCURRENCY,
        max_waiting: int = MAX_WAITING,
        retries: int = RETRIES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = provider.name
        self.version = provider.version
        self._provider = provider
        self._remaining_s = remaining_s
        self._tenant = tenant
        self._rank = rank
        self._tolls = tolls
        self._breaker_for = breaker_for
        self._concurrency = concurrency
        self._max_waiting = max_waiting
        self._retries = retries
        self._sleep = sleep
        self._jitter = jitter
        self._lanes: dict[str, _Lane] = {}

    def models(self) -> tuple[str, ...]:
        """The provider's."""
        return self._provider.models()

    def abilities(self, model: str) -> Abilities:
        """The provider's."""
        return self._provider.abilities(model)

    def count(self, prompt: AnyPrompt) -> TokenCount:
        """The provider's: a retry follows only a call that cost nothing."""
        return self._provider.count(prompt)

    async def complete(self, prompt: AnyPrompt) -> Answer:
        """The provider's answer. Raises also Unavailable BREAKER_OPEN, ResourceExhausted PROVIDER_QUEUE_FULL and
        DeadlineExceeded PROVIDER_QUEUE_TIMEOUT; none of these was sent."""
        async with self._place(prompt.model) as lane:
            for attempt in range(self._retries + 1):
                try:
                    async with self._toll(prompt) as spent:
                        with provider_span(self.name, prompt, attempt) as span:
                            answer = await lane.breaker.call(lambda: self._provider.complete(prompt))
                            span.say(usage(answer.tokens))
                        spent.tokens = answer.tokens
                    return answer
                except PagemeshError as exc:
                    await self._pause(exc, attempt)
        raise AssertionError("the last attempt returns or raises")

    async def stream(self, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
        """The same; after the first piece nothing is tried again."""
        async with self._place(prompt.model) as lane:
            for attempt in range(self._retries + 1):
                answer, begun = None, False
                try:
                    async with (
                        self._toll(prompt) as spent,
                        lane.breaker.guard(),
                        aclosing(_generator(self._provider, prompt)) as items,
                    ):
                        with provider_span(self.name, prompt, attempt) as span:
                            async for item in items:
                                begun = True
                                if isinstance(item, Answer):
                                    answer, spent.tokens = item, item.tokens
                                    span.say(usage(item.tokens))
                                else:
                                    yield item
                except PagemeshError as exc:
                    if begun:
                        raise
                    await self._pause(exc, attempt)
                    continue
                # Told outside of the breaker: who has the answer stops reading, and that must not look like giving up.
                if answer is not None:
                    yield answer
                return

    def _toll(self, prompt: AnyPrompt) -> AbstractAsyncContextManager[Spent]:
        """The call's share of what the model takes in a minute. It is taken in the order of the places, so that tenants
        take turns here too."""
        if self._tolls is None:
            return nullcontext(Spent())
        return self._tolls.passing(f"{self.name}/{prompt.model}", lambda: self._provider.count(prompt))

    @asynccontextmanager
    async def _place(self, model: str) -> AsyncGenerator["_Lane", None]:
        """A place among the model's calls."""
        self._provider.abilities(model)  # an unknown model gets no lane
        lane = self._lanes.get(model)
        if lane is None:
            name = f"{self.name}/{model}"
            slots = FairSlots(
                size=self._concurrency,
                max_waiting=self._max_waiting,
                busy=lambda: _queue_full(name),
                kept=min(KEPT, self._concurrency - 1),
            )
            lane = self._lanes[model] = _Lane(self._breaker_for(name), slots)
        tenant = self._tenant()
        await lane.enter(tenant, self._rank(), self._remaining_s)
        try:
            yield lane
        finally:
            lane.leave(tenant)

    async def _pause(self, error: PagemeshError, attempt: int) -> None:
        """Waits until the call may be tried again; raises the error where it may not, or not in time."""
        if attempt == self._retries or not _cost_nothing(error) or _was_at_the_toll(error):
            raise error
        wait_s = self._jitter() * min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0**attempt)
        if error.retry_after_s is not None:
            # Everybody who was refused was told the same moment: the jitter comes on top.
            wait_s += error.retry_after_s
        remaining_s = self._remaining_s()
        if remaining_s is not None and wait_s >= remaining_s:
            raise error
        await self._sleep(wait_s)


class _Lane:
    """The calls to one model, in which tenants take turns, and of each the urgent ones go first."""

    def __init__(self, breaker: Breaker, slots: FairSlots) -> None:
        self.breaker = breaker
        self._slots = slots

    async def enter(self, tenant: str, rank: int, remaining_s: Callable[[], float | None]) -> None:
        joining = asyncio.create_task(self._slots.acquire(tenant, timeout_s=None, rank=rank))
        try:
            while not joining.done():
                await asyncio.wait([joining], timeout=remaining_s())
                # One who has more time may have joined meanwhile.
                if not joining.done() and (left_s := remaining_s()) is not None and left_s <= 0:
                    raise DeadlineExceeded(
                        "PROVIDER_QUEUE_TIMEOUT", "The time ran out in the queue for the model.", metadata=_NOT_SENT
                    )
        except BaseException:
            if joining.done() and joining.exception() is None:
                self._slots.release(tenant)  # the place came as the caller left
            joining.cancel()
            raise
        joining.result()

    def leave(self, tenant: str) -> None:
        self._slots.release(tenant)


def _queue_full(model: str) -> ResourceExhausted:
    return ResourceExhausted(
        "PROVIDER_QUEUE_FULL",
        f"Many calls are waiting for {model} already. Try again shortly.",
        retry_after_s=_QUEUE_RETRY_AFTER_S,
        metadata=_NOT_SENT,
    )


def _generator(provider: Provider, prompt: AnyPrompt) -> AsyncGenerator[str | Answer, None]:
    items = provider.stream(prompt)
    assert isinstance(items, AsyncGenerator), "a stream has to be closable"
    return items


def _was_at_the_toll(error: PagemeshError) -> bool:
    """Whether it was not let through, and would have waited, had there been time."""
    return isinstance(error, ResourceExhausted) and error.metadata.get("sent") == "no"


def _cost_nothing(error: PagemeshError) -> bool:
    if error.reason == "BREAKER_OPEN":
        # The breaker has said how long it rests; asking again at once is what it is there to prevent.
        return False
    if error.metadata.get("sent") == "no":
        return isinstance(error, Unavailable)
    is_load = isinstance(error, ResourceExhausted) or (
        isinstance(error, Unavailable) and error.metadata.get("status") == "503" and error.retry_after_s is not None
    )
    return is_load and error.metadata.get("billed") == "no"
