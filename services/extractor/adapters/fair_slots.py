"""A bounded queue for a few slots in which tenants take turns, so that nobody waits for another's backlog."""

import asyncio
from collections import OrderedDict, deque

from services.runtime.errors import ResourceExhausted

_RETRY_AFTER_S = 2.0


class FairSlots:
    """`size` slots. Waiters of one tenant are served in order; tenants are served in turn."""

    def __init__(self, *, size: int, max_waiting: int) -> None:
        self._free = size
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue) for queue in self._waiting.values())

    async def acquire(self, tenant: str, *, timeout_s: float | None) -> None:
        """Waits for a slot. Raises ResourceExhausted PARSER_BUSY where the queue is full, and after `timeout_s`."""
        if self._free:
            self._free -= 1
            return
        if self.waiting >= self._max_waiting:
            raise _busy()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot came as the waiter left
            else:
                self._leave(tenant, turn)
            if isinstance(exc, TimeoutError):
                raise _busy() from exc
            raise

    def release(self) -> None:
        """Gives the slot to the next waiter, if any."""
        while self._waiting:
            tenant, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[tenant] = queue  # at the end: the others come first
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[tenant]


def _busy() -> ResourceExhausted:
    return ResourceExhausted(
        "PARSER_BUSY", "All parsers are busy and many calls wait. Try again shortly.", retry_after_s=_RETRY_AFTER_S
    )
