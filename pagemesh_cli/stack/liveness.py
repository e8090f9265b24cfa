"""Whether a process still does anything at all: one that is stuck does not end, and nobody would restart it."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future

ASK_EVERY_S = 5.0
FAILURES_TO_STUCK = 6
"""In a row: half a minute without an answer."""


class Pulse:
    """Asks one process again and again, each time on a thread of `executor`, so that nobody waits for the answer."""

    def __init__(
        self,
        ask: Callable[[], None],
        executor: Executor,
        *,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` raises OSError where there is no answer; until the first one, `patience_s` are given for starting."""
        self._ask = ask
        self._executor = executor
        self._clock = clock
        self._begun = clock()
        self._patience_s = patience_s
        self._due = self._begun + ASK_EVERY_S
        self._pending: Future[None] | None = None
        self._answered = False
        self._failures = 0
        self.problem = ""
        """What the last question met; empty where it was answered."""

    def is_stuck(self) -> bool:
        """Notes what came back and asks anew where that is due. Never waits."""
        if self._pending is not None and self._pending.done():
            self._note(self._pending)
            self._pending = None
        if self._pending is None and self._clock() >= self._due:
            self._due = self._clock() + ASK_EVERY_S
            self._pending = self._executor.submit(self._ask)
        return self._failures >= FAILURES_TO_STUCK

    def _note(self, answer: "Future[None]") -> None:
        try:
            answer.result()
        except OSError as error:
            self.problem = str(error)
            if self._answered or self._clock() - self._begun >= self._patience_s:
                self._failures += 1
        else:
            self._answered, self._failures, self.problem = True, 0, ""
