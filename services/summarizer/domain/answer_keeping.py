"""Answers that nobody has used for long are forgotten; whoever asks again pays again."""

import asyncio
from collections.abc import Callable
from typing import Protocol

AT_ONCE = 500
"""Answers that one transaction removes, with what hangs on them."""
EVERY_S = 300.0
BETWEEN_S = 1.0
"""Pause while there is more: others use the database too."""


class KeptAnswers(Protocol):
    """Where answers are. Errors: Unavailable, DeadlineExceeded."""

    async def forget_unused(self, *, unused_s: float, limit: int) -> int:
        """Removes at most `limit` answers of all tenants that nobody has found for so long, those first that were left
        for longest; answers how many. When one was found is known but for a day: it may stay for a day more."""
        ...


class AnswerCleaner:
    """Removes answers in small batches. Several may do so at once."""

    def __init__(
        self,
        kept: KeptAnswers,
        *,
        retention_s: float,
        jitter: Callable[[], float],
        forgotten: Callable[[int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """With a `retention_s` of 0 they stay as long as their documents. `forgotten` hears how many went."""
        self._kept = kept
        self._retention_s = retention_s
        self._jitter = jitter
        self._forgotten = forgotten
        self._failed = failed

    async def run(self) -> None:
        """Works until cancelled, or returns at once where answers stay."""
        while self._retention_s > 0:
            removed = 0
            try:
                removed = await self._kept.forget_unused(unused_s=self._retention_s, limit=AT_ONCE)
            except Exception as exc:  # noqa: BLE001  # a round that fails must not end the keeping
                self._failed(exc)
            if removed:
                self._forgotten(removed)
            # Workers that began together do not come together.
            await asyncio.sleep(BETWEEN_S if removed == AT_ONCE else EVERY_S * (0.5 + self._jitter() / 2))
