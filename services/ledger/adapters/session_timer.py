"""Makes signing keys before they are needed and forgets what is over, again and again."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from services.ledger.domain.signing_keys import SigningKeys
from services.runtime.errors import PagemeshError

ROUND_TIMEOUT_S = 30.0
FORGET_BATCH = 1000
FORGET_BATCHES = 10
"""Most batches of one round: what is left over waits for the next one."""

log = structlog.get_logger()


class Forgetful(Protocol):
    """Keeps things for a time."""

    async def forget(self, limit: int) -> int:
        """Drops up to `limit` of those whose time is over; answers how many."""
        ...


class SessionTimer:
    """One round every `interval_s`. Replicas may do so at the same time."""

    def __init__(self, signing_keys: SigningKeys, forgetful: Sequence[Forgetful], *, interval_s: float) -> None:
        self._signing_keys = signing_keys
        self._forgetful = forgetful
        self._interval_s = interval_s

    async def run(self) -> None:
        """Works until cancelled; a round that fails is tried again at the next."""
        while True:
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    await self._round()
            except (PagemeshError, TimeoutError) as exc:
                log.warning("session_round_failed", error=getattr(exc, "reason", type(exc).__name__))
            await asyncio.sleep(self._interval_s)

    async def _round(self) -> None:
        await self._signing_keys.rotate()
        for store in self._forgetful:
            for _ in range(FORGET_BATCHES):
                if await store.forget(FORGET_BATCH) < FORGET_BATCH:
                    break
