"""Ids of jobs and batches: 32 hexadecimal digits that grow with time, so that lists are in the order of making."""

import secrets
from collections.abc import Callable
from datetime import datetime

_RANDOM_BITS = 80
_STEP_BITS = 32


class JobIds:
    """Makes ids: milliseconds since 1970 in 12 digits, and 80 random bits in 20.

    Each is larger than all that were made here before, also within a millisecond, and where the clock was set back.
    Those of two processes are in order by the millisecond.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._last = 0

    def one(self) -> str:
        """An id."""
        return self.many(1)[0]

    def many(self, count: int) -> list[str]:
        """So many, each larger than the one before."""
        # Half of the random numbers are left free, so that those that follow have room within the millisecond.
        fresh = (_milliseconds(self._now()) << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS - 1)
        first = max(fresh, self._last + 1 + secrets.randbits(_STEP_BITS))
        self._last = first + count - 1
        return [f"{first + number:032x}" for number in range(count)]


def first_at(time: datetime) -> str:
    """What no id is below that is made from then on, and every id is that was made before: a part of one."""
    return f"{max(0, _milliseconds(time)):012x}"


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
