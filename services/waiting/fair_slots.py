"""A bounded queue for a few slots in which tenants take turns, so that nobody waits for another's backlog."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from services.runtime.errors import ResourceExhausted


@dataclass(eq=False, slots=True)
class _Waiter:
    granted: asyncio.Future[None]
    turns: int


class FairSlots:
    """`size` slots. Of the tenants that wait, the one with the fewest slots is served, and among equals the one that
    was served longest ago. So none gets a last slot while another has none.

    Of one tenant's waiters the one is served that has had the fewest turns, and every other time the one that waits
    longest: a small document does not wait for all of a large one, nor a large one for ever for small ones. `busy()` is
    what is raised where the queue is full.
    """

    def __init__(self, *, size: int, max_waiting: int, busy: Callable[[], ResourceExhausted]) -> None:
        self._free = size
        self._busy = busy
        self._max_waiting = max_waiting
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._overtaken: set[str] = set()
        """Tenants whose longest waiter was passed over the last time."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue) for queue in self._waiting.values())

    async def acquire(self, tenant: str, *, timeout_s: float | None, turns: int = 0) -> None:
        """Waits for a slot. Raises ResourceExhausted after `timeout_s`, and where the queue is full, also of one
        tenant; whoever has had `turns` before is not turned away."""
        if self._free:
            self._free -= 1
            self._held[tenant] += 1
            return
        own = len(self._waiting.get(tenant, ()))
        # Half of the queue is kept free of any one tenant, so that it cannot close it to the others either.
        if not turns and (self.waiting >= self._max_waiting or own >= max(1, self._max_waiting // 2)):
            raise self._busy()
        waiter = _Waiter(asyncio.get_running_loop().create_future(), turns)
        self._waiting.setdefault(tenant, deque()).append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.granted
        except BaseException as exc:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.release(tenant)  # the slot came as the waiter left
            else:
                self._leave(tenant, waiter)
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
            waiter = self._take(chosen, queue)
            if queue:
                self._waiting[chosen] = queue
            if not waiter.granted.done():
                self._held[chosen] += 1
                waiter.granted.set_result(None)
                return
        self._free += 1

    def _take(self, tenant: str, queue: deque[_Waiter]) -> _Waiter:
        """Which of a tenant's waiters is next."""
        if tenant in self._overtaken:
            self._overtaken.discard(tenant)
            return queue.popleft()
        waiter = min(queue, key=lambda waiter: waiter.turns)
        if waiter is not queue[0]:
            self._overtaken.add(tenant)
        queue.remove(waiter)
        return waiter

    def _leave(self, tenant: str, waiter: _Waiter) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[tenant]
