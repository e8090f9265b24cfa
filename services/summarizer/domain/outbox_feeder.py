"""Tells the ledger what it has not acknowledged yet, until it does."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from services.runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PagemeshError
from services.summarizer.domain.job_ports import JobSpending
from services.summarizer.domain.ports import ActAs, Backlog, Books, DueDelivery, Outbox
from services.summarizer.domain.values import Delivery

BATCH = 20
POLL_S = 1.0
ROUND_S = 45.0
"""A round is broken off then, wherever it stands: what it has not delivered is due again when its lease is over."""
LEASE_S = 60.0
"""Longer than any round, so that no other replica takes the same rows meanwhile."""
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 300.0

_FOR_GOOD = (InvalidArgument, NotFound, FailedPrecondition, AlreadyExists)
"""What the ledger refuses so it refuses again, until somebody has looked after it."""


@dataclass(frozen=True, slots=True)
class FeederSignals:
    """What the feeder tells of itself."""

    delivered: Callable[[], None]
    refused: Callable[[Delivery, PagemeshError], None]
    """The ledger did not take it this time."""
    parked: Callable[[Delivery, PagemeshError], None]
    """The ledger will never take it as it is: an operator has to look after it."""
    broken: Callable[[Exception], None]
    """A whole round failed."""
    backlog: Callable[[Backlog], None]


class OutboxFeeder:
    """Delivers for any tenant; several replicas may feed from the same outbox.

    A row leaves the outbox only when the ledger has acknowledged it; one that the ledger refuses for good is parked
    there. A delivery that was made but not marked is made
    again, which the ledger takes for the same.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        books: Books,
        spending: JobSpending,
        act_as: ActAs,
        jitter: Callable[[], float],
        signals: FeederSignals,
    ) -> None:
        """`spending` hears what calls of jobs cost; `jitter` answers random numbers from 0 to 1."""
        self._outbox = outbox
        self._books = books
        self._spending = spending
        self._act_as = act_as
        self._jitter = jitter
        self._signals = signals

    async def run(self) -> None:
        """Feeds until cancelled."""
        while True:
            taken = 0
            try:
                taken = await self.feed_once()
                self._signals.backlog(await self._outbox.backlog())
            except Exception as exc:  # noqa: BLE001  # a round that fails must not end the feeding
                self._signals.broken(exc)
            if taken < BATCH:
                await asyncio.sleep(POLL_S * (0.5 + self._jitter() / 2))

    async def feed_once(self) -> int:
        """One batch; answers how many deliveries were due. Raises what Outbox raises, and TimeoutError."""
        async with asyncio.timeout(ROUND_S):
            due = await self._outbox.take(BATCH, LEASE_S)
            for item in due:
                await self._deliver(item)
        return len(due)

    async def _deliver(self, item: DueDelivery) -> None:
        delivery = item.delivery
        try:
            with self._act_as(delivery.caller):
                await self._tell(delivery)
        except _FOR_GOOD as exc:
            self._signals.parked(delivery, exc)
            await self._outbox.park(delivery.hold_id, exc.reason)
            return
        except PagemeshError as exc:
            self._signals.refused(delivery, exc)
            await self._outbox.postpone(delivery.hold_id, self._delay_s(item.attempts), exc.reason)
            return
        await self._outbox.done(delivery.hold_id)
        self._signals.delivered()

    async def _tell(self, delivery: Delivery) -> None:
        tenant = delivery.caller.tenant
        if delivery.event is not None:
            cost = await self._books.settle(delivery.hold_id, delivery.event)
            if delivery.event.job:
                await self._spending.ended(tenant, delivery.hold_id, cost.micros)
            return
        # Where the ledger never made the hold nothing is held.
        with contextlib.suppress(NotFound):
            await self._books.release(delivery.hold_id)
        await self._spending.ended(tenant, delivery.hold_id, 0)

    def _delay_s(self, attempts: int) -> float:
        longest = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempts, 20))
        return longest * (0.5 + self._jitter() / 2)
