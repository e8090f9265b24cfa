"""A bounded queue for a few slots in which tenants take turns, so that nobody waits for another's backlog."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.runtime.errors import ResourceExhausted

PASSED_OVER = 4
"""How often in a row the longest of a tenant's waiters is passed over for more urgent ones."""


@dataclass(eq=False, slots=True)
class _Waiter:
    granted: asyncio.Future[None]
    turns: int
    rank: int


class FairSlots:
    """`size` slots. Of the tenants that wait, the one with the fewest slots is served, and among equals the one that
    was served longest ago. So none gets a last slot while another has none.

    Of one tenant's waiters the one of the smallest rank is served, and of those the one that has had the fewest turns;
    but the one that waits longest is passed over PASSED_OVER times at most for smaller ranks, and once for fewer turns.
    So an urgent call does not wait for a backlog, nor a small document for all of a large one, and nobody for ever.

    The last `kept` slots are for rank 0 alone, whoever's it is. `busy()` is what is raised where the queue is full.
    """

    def __init__(self, *, size: int, max_waiting: int, busy: Callable[[], ResourceExhausted], kept: int = 0) -> None:
        self._free = size
        self._kept = kept
        self._busy = busy
        self._max_waiting = max_waiting
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._passed: Counter[str] = Counter()
        """How often in a row the longest waiter of each tenant was passed over."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(queue) for queue in self._waiting.values())

    async def acquire(self, tenant: str, *, timeout_s: float | None, turns: int = 0, rank: int = 0) -> None:
        """Waits for a slot; the smaller rank is the more urgent. Raises ResourceExhausted after `timeout_s`, and where
        the queue is full, also of one tenant; whoever has had `turns` before is not turned away."""
        if self._free > self._kept_from(rank):
            self._free -= 1
            self._held[tenant] += 1
            return
        if not turns and (self.waiting >= self._max_waiting or self._own(tenant) >= self._most_of_one(rank)):
            raise self._busy()
        waiter = _Waiter(asyncio.get_running_loop().create_future(), turns, rank)
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
        self._free += 1
        while self._free and (chosen := self._next()) is not None:
            queue = self._waiting.pop(chosen)
            waiter = self._take(chosen, queue)
            if queue:
                self._waiting[chosen] = queue
            else:
                del self._passed[chosen]
            if not waiter.granted.done():
                self._free -= 1
                self._held[chosen] += 1
                waiter.granted.set_result(None)

    def _kept_from(self, rank: int) -> int:
        return self._kept if rank else 0

    def _own(self, tenant: str) -> int:
        return len(self._waiting.get(tenant, ()))

    def _most_of_one(self, rank: int) -> int:
        """How many of a tenant may wait. Half of the queue is kept free of any one tenant, so that it cannot close it
        to the others either; and of its own half a part is kept free of what is not urgent."""
        half = max(1, self._max_waiting // 2)
        return half if not rank else max(1, half * 3 // 4)

    def _next(self) -> str | None:
        """Which tenant is served, if any of its waiters may have what is free."""
        tenants: Iterable[str] = self._waiting
        if self._free <= self._kept:
            tenants = [tenant for tenant, queue in self._waiting.items() if any(not w.rank for w in queue)]
        # min() takes the first of equals, and whoever was served last is at the end.
        return min(tenants, key=self._held.__getitem__, default=None)

    def _take(self, tenant: str, queue: deque[_Waiter]) -> _Waiter:
        """Which of a tenant's waiters is next."""
        first, best = queue[0], min(queue, key=lambda waiter: (waiter.rank, waiter.turns))
        most = PASSED_OVER if best.rank < first.rank else 1
        if best is not first and (self._passed[tenant] < most or (first.rank and self._free <= self._kept)):
            self._passed[tenant] += 1
            queue.remove(best)
            return best
        self._passed[tenant] = 0
        return queue.popleft()

    def _leave(self, tenant: str, waiter: _Waiter) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[tenant], self._passed[tenant]
