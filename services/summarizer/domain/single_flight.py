"""Many identical requests at once make one run, and each of them sees all of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from services.runtime.errors import Unavailable
from services.summarizer.domain.ports import Deadline

K = TypeVar("K", bound=Hashable)
E = TypeVar("E")

Emit = Callable[[E], None]
Run = Callable[[Emit[E], Deadline], Coroutine[Any, Any, None]]
"""What is run: it emits events, and may ask until when anybody listens."""


class _Flight(Generic[E]):
    """One run, what it said so far, and how many listen."""

    def __init__(self) -> None:
        self.log: list[E] = []
        self.deadlines: list[float | None] = []
        """One for each listener."""
        self.ended = False
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def emit(self, event: E) -> None:
        self.log.append(event)
        self._wake()

    def end(self, error: BaseException | None) -> None:
        self.ended, self.error = True, error
        self._wake()

    def deadline(self) -> float | None:
        """When the most patient listener stops waiting; None where one always does, or none is left."""
        known = [deadline for deadline in self.deadlines if deadline is not None]
        return max(known) if known and len(known) == len(self.deadlines) else None

    async def more(self) -> None:
        """Returns once something was emitted or the run ended, after this call began."""
        await self._news.wait()

    def _wake(self) -> None:
        # Those who wait now are woken; those who come later wait for the next news.
        self._news.set()
        self._news = asyncio.Event()


class Seat(Generic[E]):
    """One listener's place in a run: iterate to hear all its events from the first; `leave` when done.

    Iterating raises the run's error after its last event.
    """

    def __init__(self, flight: _Flight[E], *, leads: bool, leave: Callable[[], None]) -> None:
        self.leads = leads
        """Whether this listener began the run."""
        self.leave = leave
        self._flight = flight

    async def __aiter__(self) -> AsyncIterator[E]:
        heard = 0
        while True:
            while heard < len(self._flight.log):
                heard += 1
                yield self._flight.log[heard - 1]
            if self._flight.ended:
                break
            await self._flight.more()
        if self._flight.error is not None:
            # Many listeners raise the same error: each begins with a traceback of its own.
            raise self._flight.error.with_traceback(None)

    def __enter__(self) -> "Seat[E]":
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class SingleFlight(Generic[K, E]):
    """Runs by key. A run is cancelled when its last listener leaves; one that ended is forgotten at once."""

    def __init__(self, *, joined: Callable[[], None]) -> None:
        """`joined` is called for each listener who found a run under way."""
        self._joined = joined
        self._flights: dict[K, _Flight[E]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, key: K, run: Run[E], *, deadline: float | None = None) -> Seat[E]:
        """A seat in the run under the key, which is begun as `run(emit, deadline)` where there is none.

        `deadline` is when this listener stops waiting; the run is told the latest of all.
        """
        flight = self._flights.get(key)
        leads = flight is None
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(run(flight.emit, flight.deadline))
            self._tasks.add(flight.task)
            flight.task.add_done_callback(self._lander(key, flight))
        else:
            self._joined()
        flight.deadlines.append(deadline)
        return Seat(flight, leads=leads, leave=self._leaver(key, flight, deadline))

    async def close(self) -> None:
        """Cancels all runs and waits for their end; their listeners get Unavailable."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lander(self, key: K, flight: _Flight[E]) -> Callable[["asyncio.Task[None]"], None]:
        def landed(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            self._forget(key, flight)
            if task.cancelled():
                flight.end(Unavailable("SHUTTING_DOWN", "The service is stopping. Try again."))
            else:
                flight.end(task.exception())

        return landed

    def _leaver(self, key: K, flight: _Flight[E], deadline: float | None) -> Callable[[], None]:
        left = False

        def leave() -> None:
            nonlocal left
            if left:
                return
            left = True
            flight.deadlines.remove(deadline)
            if not flight.deadlines and flight.task is not None:
                # Forgotten first: who comes now must not be seated in a run that is being cancelled.
                self._forget(key, flight)
                flight.task.cancel()

        return leave

    def _forget(self, key: K, flight: _Flight[E]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
