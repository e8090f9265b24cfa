"""Answers that cost nothing are told to the ledger too, so that what they saved can be counted."""

import asyncio
from collections.abc import Callable

from services.runtime.errors import PagemeshError
from services.summarizer.domain.ports import ActAs, Books
from services.summarizer.domain.values import Caller, Money, TokenCount, UsageEvent

_Saved = tuple[Caller, UsageEvent]

CAPACITY = 2_000
BATCH = 500
"""Most events of one RecordUsage, by contract."""
GATHER_S = 0.2
ATTEMPTS = 3
RETRY_S = 1.0


def free_event(
    *,
    event_id: str,
    model: str,
    document: str,
    caller: Caller,
    now_s: float,
    source: str,
    saved: Money,
    operation: str = "summarize",
) -> UsageEvent:
    """An event without tokens; `source` is `cache`, `shared` or `similar`, `saved` what the answer had cost when it was
    made, or would have cost."""
    return UsageEvent(
        event_id=event_id,
        model=model,
        tokens=TokenCount(0, 0),
        operation=f"{operation}.{source}",
        document=document,
        request_id=caller.request_id,
        occurred_at_s=now_s,
        job=caller.job,
        tags={"saved_micros": str(saved.micros), "saved_currency": saved.currency},
    )


class Savings:
    """Collects events and records them in batches in the background; nobody ever waits for it."""

    def __init__(self, *, books: Books, act_as: ActAs, dropped: Callable[[int], None]) -> None:
        """`dropped(n)` is called for events that could not be kept or recorded."""
        self._books = books
        self._act_as = act_as
        self._dropped = dropped
        self._queue: asyncio.Queue[_Saved] = asyncio.Queue(CAPACITY)
        self._in_hand: list[_Saved] = []
        """Taken from the queue and not recorded yet; a `run` that is cancelled leaves it to `flush`."""

    def add(self, caller: Caller, event: UsageEvent) -> None:
        """Takes the event, or drops it where too many are waiting already."""
        try:
            self._queue.put_nowait((caller, event))
        except asyncio.QueueFull:
            self._dropped(1)

    def lose(self) -> None:
        """Counts an event that could not be made."""
        self._dropped(1)

    async def run(self) -> None:
        """Records until cancelled."""
        while True:
            self._in_hand = [await self._queue.get()]
            await asyncio.sleep(GATHER_S)  # company for the first one
            self._in_hand += self._rest(BATCH - 1)
            await self._record_in_hand(attempts=ATTEMPTS)

    async def flush(self, timeout_s: float) -> None:
        """Records what is waiting, once, for at most `timeout_s` seconds; for the end of the service."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._in_hand or not self._queue.empty():
                    self._in_hand = self._in_hand or self._rest(BATCH)
                    await self._record_in_hand(attempts=1)
        except TimeoutError:
            self._dropped(len(self._in_hand) + len(self._rest(CAPACITY)))

    def _rest(self, limit: int) -> list[_Saved]:
        return [self._queue.get_nowait() for _ in range(min(limit, self._queue.qsize()))]

    async def _record_in_hand(self, *, attempts: int) -> None:
        """One payer after the other; what is recorded, or dropped, leaves the hand."""
        while self._in_hand:
            caller = self._in_hand[0][0]
            group = [saved for saved in self._in_hand if _is_payer(saved[0], caller)]
            await self._record(caller, tuple(event for _, event in group), attempts)
            self._in_hand = [saved for saved in self._in_hand if not _is_payer(saved[0], caller)]

    async def _record(self, caller: Caller, events: tuple[UsageEvent, ...], attempts: int) -> None:
        for attempt in range(1, attempts + 1):
            try:
                with self._act_as(caller):
                    await self._books.record(events)
            except PagemeshError:
                if attempt == attempts:
                    self._dropped(len(events))
                else:
                    await asyncio.sleep(RETRY_S * attempt)
            else:
                return


def _is_payer(one: Caller, other: Caller) -> bool:
    return (one.tenant, one.actor, one.project) == (other.tenant, other.actor, other.project)
