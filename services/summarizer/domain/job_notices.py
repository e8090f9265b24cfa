"""Tells the ledger how jobs ended, which tells the tenants' webhooks."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.runtime.errors import InvalidArgument, PagemeshError
from services.summarizer.domain.jobs import JobState

AT_ONCE = 50
POLL_S = 1.0
MAX_DELAY_S = 30.0
ROUND_S = 60.0
COST_WAIT_S = 60.0
"""How long the end of a job is kept back where the ledger has not yet heard of all that it bought: so its cost is
told whole."""


@dataclass(frozen=True, slots=True)
class JobNotice:
    """A job ended. `sequence` is the number of the event, so that a job that ends twice is told of twice."""

    position: int
    tenant: str
    job_id: str
    sequence: int
    batch: str
    document: str
    state: JobState
    reason: str
    attempts: int
    pages_read: int
    page_count: int
    accept_time: datetime
    end_time: datetime


@dataclass(frozen=True, slots=True)
class BatchNotice:
    """All jobs of a batch have ended, the last of them at `end_time`; `sequence` is the number of its newest event."""

    tenant: str
    batch_id: str
    sequence: int
    succeeded: int
    failed: int
    cancelled: int
    accept_time: datetime
    end_time: datetime
    cost_micros: int = 0
    """What its jobs cost, together; a call whose cost nobody knows counts with the most."""


@dataclass(frozen=True, slots=True)
class NoticeBacklog:
    """What is waiting, and for how long; parked ones are not among them."""

    depth: int
    oldest_age_s: float
    parked: int


class Feeding(Protocol):
    """One transaction of whoever feeds: what was taken is his until it ends. May raise Unavailable."""

    async def take(self, limit: int, *, cost_wait_s: float) -> Sequence[JobNotice]:
        """The oldest that nobody else has taken: those whose costs the ledger knows, or that wait for so long."""
        ...

    async def ended(self, notices: Sequence[JobNotice]) -> Sequence[BatchNotice]:
        """Of the batches of these jobs, those that have ended; but not those of which another job is kept back: that
        one will ask again."""
        ...

    async def done(self, notices: Sequence[JobNotice]) -> None:
        """The ledger has them."""
        ...

    async def park(self, notice: JobNotice, reason: str) -> None:
        """The ledger will never take it as it is."""
        ...

    async def backlog(self) -> NoticeBacklog:
        """What is left."""
        ...


class NoticeBook(Protocol):
    """Where notices are kept."""

    def feeding(self) -> AbstractAsyncContextManager[Feeding]:
        """Several replicas may feed at the same time."""
        ...


class Announcer(Protocol):
    """The ledger. The same notice again is the same to it."""

    async def announce(self, jobs: Sequence[JobNotice], batches: Sequence[BatchNotice]) -> None:
        """Raises InvalidArgument where it will never take one of them, and what calls raise."""
        ...


@dataclass(frozen=True, slots=True)
class NoticeSignals:
    """What the feeder tells of itself."""

    told: Callable[[int], None]
    parked: Callable[[JobNotice, PagemeshError], None]
    broken: Callable[[Exception], None]
    """A whole round failed, and is tried again."""
    backlog: Callable[[NoticeBacklog], None]


class NoticeFeeder:
    """Brings notices to the ledger until it has acknowledged them. One that was told and not struck out is told again,
    which the ledger takes for the same."""

    def __init__(
        self, *, book: NoticeBook, announcer: Announcer, jitter: Callable[[], float], signals: NoticeSignals
    ) -> None:
        """`jitter` answers random numbers from 0 to 1."""
        self._book = book
        self._announcer = announcer
        self._jitter = jitter
        self._signals = signals

    async def run(self) -> None:
        """Feeds until cancelled."""
        failures = 0
        while True:
            told = 0
            try:
                async with asyncio.timeout(ROUND_S):
                    told = await self.feed_once()
                failures = 0
            except Exception as exc:  # noqa: BLE001  # a round that fails must not end the feeding
                self._signals.broken(exc)
                failures += 1
            if told < AT_ONCE:
                pause_s = min(MAX_DELAY_S, POLL_S * 2.0 ** min(failures, 10))
                await asyncio.sleep(pause_s * (0.5 + self._jitter() / 2))

    async def feed_once(self) -> int:
        """One round; answers how many notices left the book. Raises what the book and the ledger raise."""
        async with self._book.feeding() as feeding:
            notices = await feeding.take(AT_ONCE, cost_wait_s=COST_WAIT_S)
            if notices:
                await self._deliver(feeding, notices)
            backlog = await feeding.backlog()
        self._signals.told(len(notices))
        self._signals.backlog(backlog)
        return len(notices)

    async def _deliver(self, feeding: Feeding, notices: Sequence[JobNotice]) -> None:
        # A batch is told of with each of its last jobs: by its number the ledger knows that it is the same.
        batches = await feeding.ended(notices)
        try:
            await self._announcer.announce(notices, batches)
        except InvalidArgument as exc:
            if len(notices) > 1:  # one of them: in halves it is found in six steps
                middle = len(notices) // 2
                await self._deliver(feeding, notices[:middle])
                await self._deliver(feeding, notices[middle:])
                return
            self._signals.parked(notices[0], exc)
            await feeding.park(notices[0], exc.reason)
            return
        await feeding.done(notices)
