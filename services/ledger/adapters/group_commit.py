"""Calls that arrive together travel in one transaction.

While a group of a tenant is on its way to the database, the calls that arrive wait for the next: the busier a tenant
is, the larger its groups, and the fewer commits and round trips each call costs. Alone, each call would lock the rows
of its budgets until its own commit is on the disk, and all of a tenant's calls would wait for each other.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.runtime.errors import PagemeshError, ResourceExhausted, Unavailable

Move = TypeVar("Move")
Answer = TypeVar("Answer")

MOST_IN_GROUP = 64
MOST_WAITING = 4096
GROUP_TIMEOUT_S = 20.0
MOST_GROUPS = 2
"""Groups of one tenant under way at a time: while one is committed, the next finds out and waits for its locks."""
WORTH_ANOTHER = 16
"""So many calls must wait before a second group begins. A statement costs about as much for one call as for four: two
small groups at a time, which wait for the same totals anyway, are slower than one after the other."""


class GroupFailedError(Exception):
    """The transaction of a group was undone because of one of its calls: each of them is worth a try alone."""


@dataclass
class _Waiting(Generic[Move, Answer]):
    move: Move
    answer: asyncio.Future[Answer]


@dataclass
class _Queue(Generic[Move, Answer]):
    waiting: deque[_Waiting[Move, Answer]] = field(default_factory=deque)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)


class GroupCommit(Generic[Move, Answer]):
    """One queue for each tenant. Calls travel in the order in which they came.

    `run(tenant, moves)` is one transaction; for each move it answers a result or the error that refuses this one. It
    raises a PagemeshError where nothing can be done for any of them, and anything else where one move may have spoilt
    it for the others.
    `ids(move)` are what it is about: no two moves of a group share one, so that each group can be decided at once.
    """

    def __init__(
        self,
        run: Callable[[str, Sequence[Move]], Awaitable[Sequence[Answer | PagemeshError]]],
        *,
        ids: Callable[[Move], Iterable[Hashable]],
        most_in_group: int = MOST_IN_GROUP,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._run = run
        self._ids = ids
        self._most_in_group = most_in_group
        self._most_waiting = most_waiting
        self._queues: dict[str, _Queue[Move, Answer]] = {}
        self._waiting = 0

    async def submit(self, tenant: str, move: Move) -> Answer:
        """Takes part in the tenant's next group. A caller who gives up takes nothing back that is under way.

        Raises what refuses the move, and ResourceExhausted LEDGER_BUSY where too many wait already.
        """
        if self._waiting >= self._most_waiting:
            raise ResourceExhausted(
                "LEDGER_BUSY", "Too many calls wait for the books. Try the same request again.", retry_after_s=0.5
            )
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Move, Answer] = _Waiting(move, loop.create_future())
        queue = self._queues.setdefault(tenant, _Queue())
        queue.waiting.append(waiting)
        self._waiting += 1
        if not queue.tasks or (len(queue.tasks) < MOST_GROUPS and len(queue.waiting) >= WORTH_ANOTHER):
            # In a context of its own: it works for many calls, and not for the one that happened to begin it.
            queue.tasks.add(loop.create_task(self._drain(tenant, queue), context=contextvars.Context()))
        return await waiting.answer

    async def close(self) -> None:
        """Stops the groups under way; whoever waits is told that the ledger is gone."""
        tasks = [task for queue in self._queues.values() for task in queue.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(self, tenant: str, queue: _Queue[Move, Answer]) -> None:
        group: list[_Waiting[Move, Answer]] = []
        try:
            while queue.waiting:
                await asyncio.sleep(0)  # one turn for calls that are here already and have not been looked at
                group = self._take(queue.waiting)
                if group:
                    await self._settle_group(tenant, group)
        finally:
            task = asyncio.current_task()
            assert task is not None
            queue.tasks.discard(task)
            abandoned = list(group)
            if not queue.tasks:
                self._queues.pop(tenant, None)
                self._waiting -= len(queue.waiting)
                abandoned += queue.waiting
                queue.waiting.clear()
            for left in abandoned:
                if not left.answer.done():
                    left.answer.set_exception(_stopping())

    def _take(self, waiting: "deque[_Waiting[Move, Answer]]") -> list[_Waiting[Move, Answer]]:
        """The next group: up to the first move that is about the same thing as one before it."""
        group: list[_Waiting[Move, Answer]] = []
        seen: set[Hashable] = set()
        while waiting and len(group) < self._most_in_group:
            ids = set(self._ids(waiting[0].move))
            if not seen.isdisjoint(ids):
                break
            seen |= ids
            self._waiting -= 1
            taken = waiting.popleft()
            if not taken.answer.done():  # its caller gave up before anything was sent
                group.append(taken)
        return group

    async def _settle_group(self, tenant: str, group: Sequence[_Waiting[Move, Answer]]) -> None:
        try:
            answers = await self._attempt(tenant, group)
        except GroupFailedError:
            for single in group:
                answers = await self._alone(tenant, single)
                _tell([single], answers)
            return
        _tell(group, answers)

    async def _alone(self, tenant: str, single: _Waiting[Move, Answer]) -> Sequence[Answer | BaseException]:
        try:
            return await self._attempt(tenant, [single])
        except GroupFailedError as exc:
            return [exc.__cause__ or exc]

    async def _attempt(self, tenant: str, group: Sequence[_Waiting[Move, Answer]]) -> Sequence[Answer | BaseException]:
        try:
            async with asyncio.timeout(GROUP_TIMEOUT_S):
                return await self._run(tenant, [waiting.move for waiting in group])
        except GroupFailedError:
            raise
        except TimeoutError as exc:
            gone = Unavailable("DATABASE_UNAVAILABLE", "The database does not answer. Try again.", retry_after_s=1.0)
            gone.__cause__ = exc
            return [gone] * len(group)
        except Exception as exc:
            if isinstance(exc, PagemeshError) or len(group) == 1:
                return [exc] * len(group)
            raise GroupFailedError from exc


def _tell(group: "Sequence[_Waiting[Move, Answer]]", answers: "Sequence[Answer | BaseException]") -> None:
    for waiting, answer in zip(group, answers, strict=True):
        if waiting.answer.done():
            continue
        if isinstance(answer, BaseException):
            waiting.answer.set_exception(_own(answer))
        else:
            waiting.answer.set_result(answer)


def _own(error: BaseException) -> BaseException:
    """An error that several callers are told at once is each one's own: raising it writes into it."""
    if isinstance(error, Unavailable):
        told = Unavailable(
            error.reason, error.message, retry_after_s=error.retry_after_s, metadata=dict(error.metadata)
        )
        told.__cause__ = error.__cause__
        return told
    return error


def _stopping() -> Unavailable:
    return Unavailable("DATABASE_UNAVAILABLE", "The ledger is stopping. Try the same request again.", retry_after_s=1.0)
