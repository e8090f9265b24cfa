"""A bounded queue for a few slots in which tenants take turns, so that nobody waits for another's backlog."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from services.runtime.errors import ResourceExhausted

_RETRY_AFTER_S = 2.0


def _parsers_busy() -> ResourceExhausted:
    return ResourceExhausted(
        "PARSER_BUSY", "All parsers are busy and many calls wait. Try again shortly.", retry_after_s=_RETRY_AFTER_S
    )


class FairSlots:
    """`size` slots. Waiters of one tenant are served in order; of the tenants that wait, the one with the fewest slots
    is served, and among equals the one that was served longest ago. So none gets a last slot while another has none.
    `busy()` is what is raised where the queue is full.
    """

    def __init__(self, *, size: int, max_waiting: int, busy: Callable[[], ResourceExhausted] = _parsers_busy) -> None:
        self._free = size
        self._busy = busy
        self._max_waiting = max_waiting
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue) for queue in self._waiting.values())

    async def acquire(self, tenant: str, *, timeout_s: float | None) -> None:
        """Waits for a slot. Raises ResourceExhausted where the queue is full, also of one tenant, and
        after `timeout_s`."""
        if self._free:
            self._free -= 1
            self._held[tenant] += 1
            return
        own = len(self._waiting.get(tenant, ()))
        # Half of the queue is kept free of any one tenant, so that it cannot close it to the others either.
        if self.waiting >= self._max_waiting or own >= max(1, self._max_waiting // 2):
            raise self._busy()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():
                self.release(tenant)  # the slot came as the waiter left
            else:
                self._leave(tenant, turn)
            if isinstance(exc, TimeoutError):
                raise self._busy() from exc
            raise

    def release(self, tenant: str) -> None:
        """Takes a slot back from `tenant` and gives it to the next waiter, if any."""
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        while self._waiting:
            # min() takes the first of equals, and whoever was served last is at the end.
            chosen = min(self._waiting, key=self._held.__getitem__)
            queue = self._waiting.pop(chosen)
            turn = queue.popleft()
            if queue:
                self._waiting[chosen] = queue
            if not turn.done():
                self._held[chosen] += 1
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[tenant]
