"""What a call to a model passes before it is sent: the model's limits by the minute."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from services.runtime.errors import PagemeshError, ResourceExhausted
from services.summarizer.domain.rates import Rate, Rates
from services.summarizer.domain.values import TokenCount

LONGEST_WAIT_S = 60.0
"""Who would have to wait for longer is told when to come back."""
AHEAD_S = (LONGEST_WAIT_S, 4.0, 2.0)
"""By rank, how far ahead a call reserves its share: who is less urgent leaves what comes in later to those who are more
so. The longer it has waited, the further ahead it looks, so that nobody waits for ever."""
_LOOK_S = (0.05, 1.0)
"""How soon, and how late at most, such a call asks again."""


class Spent:
    """What a call used, once that is known."""

    def __init__(self) -> None:
        self.tokens: TokenCount | None = None


class Tolls:
    """The limits of the models of one deployment. `limits` tells for `{provider}/{model}` what it takes, and `bucket`
    which one that is taken from; `rank` how urgent a call is, as an index of AHEAD_S."""

    def __init__(
        self,
        rates: Rates,
        limits: Callable[[str], Rate],
        bucket: Callable[[str], str],
        *,
        remaining_s: Callable[[], float | None],
        rank: Callable[[], int] = lambda: 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rates = rates
        self._limits = limits
        self._bucket = bucket
        self._remaining_s = remaining_s
        self._rank = rank
        self._sleep = sleep

    @asynccontextmanager
    async def passing(self, model: str, most: Callable[[], TokenCount]) -> AsyncGenerator[Spent, None]:
        """The time of one call. What `most` says is reserved, and afterwards what was not used of it is put back.

        Raises ResourceExhausted PROVIDER_RATE_LIMITED, without a wait, where there is not enough time to wait.
        """
        rate = self._limits(model)
        # To count takes a while, and tells nothing where nobody bounds it.
        counted = await asyncio.to_thread(most) if rate.tokens_per_minute else TokenCount(0, 0)
        reserved = counted.input_tokens + counted.output_tokens
        await self._wait(model, rate, reserved)
        spent = Spent()
        try:
            yield spent
        except PagemeshError as exc:
            await self._failed(model, rate, reserved, exc)
            raise
        if spent.tokens is not None and rate.tokens_per_minute:
            used = spent.tokens.input_tokens + spent.tokens.output_tokens
            await self._rates.give_back(self._bucket(model), rate, tokens=reserved - used)

    async def _wait(self, model: str, rate: Rate, tokens: int) -> None:
        remaining_s = self._remaining_s()
        most_wait_s = LONGEST_WAIT_S if remaining_s is None else min(remaining_s, LONGEST_WAIT_S)
        waited_s = 0.0
        while True:
            left_s = max(0.0, most_wait_s - waited_s)
            ahead_s = min(left_s, AHEAD_S[self._rank()] + waited_s**2 / LONGEST_WAIT_S)
            taken = await self._rates.take(self._bucket(model), rate, tokens=tokens, most_wait_s=ahead_s)
            if taken.reserved or taken.wait_s > left_s:
                break
            pause_s = min(max(taken.wait_s - ahead_s, _LOOK_S[0]), _LOOK_S[1])
            await self._sleep(pause_s)
            waited_s += pause_s
        if not taken.reserved:
            raise ResourceExhausted(
                "PROVIDER_RATE_LIMITED",
                f"What {model} takes in a minute is used up, and there is not enough time to wait for more.",
                retry_after_s=taken.wait_s,
                metadata={"sent": "no", "billed": "no"},
            )
        if taken.wait_s > 0:
            try:
                await self._sleep(taken.wait_s)
            except BaseException:
                # It was given up: the others need not wait for it.
                await self._rates.give_back(self._bucket(model), rate, tokens=tokens, requests=1)
                raise

    async def _failed(self, model: str, rate: Rate, tokens: int, error: PagemeshError) -> None:
        """What was certainly not sent is put back; where the provider says when to come back, nobody comes before."""
        if error.metadata.get("sent") == "no":
            await self._rates.give_back(self._bucket(model), rate, tokens=tokens, requests=1)
        elif isinstance(error, ResourceExhausted):
            await self._rates.give_back(self._bucket(model), rate, tokens=tokens)
            if error.retry_after_s:
                await self._rates.close(self._bucket(model), rate, for_s=error.retry_after_s)
