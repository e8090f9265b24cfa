"""The lifecycle worker: erases documents whose time has come, and completes whatever broke off."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.extractor.domain.erasure import CLAIM, Eraser
from services.extractor.domain.keeping import Backlog, Lifecycle
from services.extractor.domain.ports import Clock
from services.runtime.errors import PagemeshError

EVERY_S = 15.0
BATCH = 20
"""Erasures that are claimed at a time: well within the claim, as each takes milliseconds."""
EXPIRY_BATCH = 500
MAX_BATCHES = 500
"""Batches of one round. What is left is for the next one, behind the other steps."""
FAILURES = 3
"""Erasures that may fail in a row: what all of them need is down then, and is not asked again before the next round."""


@dataclass(frozen=True, slots=True)
class LifecycleSignals:
    """What operators hear. `failed` has the step and what broke it; an error that is not ours is unforeseen."""

    backlog: Callable[[Backlog], None]
    failed: Callable[[str, Exception], None]


class LifecycleWorker:
    """Works in rounds, by the clock and when it is woken. Several replicas share the work.

    What breaks one step, or one document, breaks no other: deletions that were promised rely on it.
    """

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        eraser: Eraser,
        sweep_store: Callable[[], Awaitable[None]],
        clock: Clock,
        signals: LifecycleSignals,
        every_s: float = EVERY_S,
        claim: dt.timedelta = CLAIM,
    ) -> None:
        self._lifecycle = lifecycle
        self._eraser = eraser
        self._sweep_store = sweep_store
        self._clock = clock
        self._signals = signals
        self._every_s = every_s
        self._claim = claim
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Begins the next round now: something has become due."""
        self._woken.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._woken.clear()
            await self.round()
            try:
                async with asyncio.timeout(self._every_s):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def round(self) -> None:
        """Does all that is due. Raises nothing."""
        await self._step("expire", self._expire)
        await self._step("erase", self._erase)
        await self._step("forget", self._forget)
        await self._step("sweep_store", self._sweep_store)
        await self._step("backlog", self._count)

    async def _step(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as exc:  # noqa: BLE001  # told, and tried again in the next round
            self._signals.failed(name, exc)

    async def _expire(self) -> None:
        for _ in range(MAX_BATCHES):
            if await self._lifecycle.expire(now=self._clock.now(), limit=EXPIRY_BATCH) < EXPIRY_BATCH:
                return

    async def _erase(self) -> None:
        failures = 0
        for _ in range(MAX_BATCHES):
            now = self._clock.now()
            batch = await self._lifecycle.take_erasures(now=now, until=now + self._claim, limit=BATCH)
            for erasure in batch:
                try:
                    await self._eraser.complete(erasure.tenant, erasure.document_id)
                    failures = 0
                except Exception as exc:
                    failures += isinstance(exc, PagemeshError)
                    if failures == FAILURES:
                        raise
                    self._signals.failed("erase", exc)
            if len(batch) < BATCH:
                return

    async def _forget(self) -> None:
        for _ in range(MAX_BATCHES):
            if await self._lifecycle.forget(now=self._clock.now(), limit=EXPIRY_BATCH) < EXPIRY_BATCH:
                return

    async def _count(self) -> None:
        self._signals.backlog(await self._lifecycle.backlog(now=self._clock.now()))
