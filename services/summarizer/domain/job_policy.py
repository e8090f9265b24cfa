"""What becomes of a job whose attempt failed, and which class goes next."""

from collections.abc import Callable
from dataclasses import dataclass

from services.runtime.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    PagemeshError,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.domain.jobs import Fault, Priority

FIRST_DELAY_S = 2.0
MAX_DELAY_S = 600.0
_MAY_PASS = (Unavailable, DeadlineExceeded, Aborted, Cancelled, InternalError, ResourceExhausted)
_FINAL = frozenset({"BUDGET_EXCEEDED"})
"""Reasons of such errors that no waiting of minutes cures: somebody has to act."""

_ALL = (Priority.URGENT, Priority.NORMAL, Priority.BATCH)
_TURNS = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about a failed attempt; without `delay_s` the job is given up."""

    fault: Fault
    delay_s: float | None


def judge(error: Exception, *, tries: int, max_attempts: int, jitter: Callable[[], float]) -> Verdict:
    """The verdict on the attempt number `tries`; `jitter` answers random numbers from 0 to 1.

    What may pass by itself is tried again after 2 s, 4 s and so on up to 10 minutes, each shortened by up to half, and
    never before the time that the error names. A mistake of ours is tried again as well: another replica may be newer.
    """
    fault = fault_of(error)
    known = isinstance(error, PagemeshError)
    final = known and (not isinstance(error, _MAY_PASS) or fault.reason in _FINAL)
    if final or tries >= max_attempts:
        return Verdict(fault, None)
    longest = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** min(tries - 1, 20))
    asked = error.retry_after_s if isinstance(error, PagemeshError) else None
    return Verdict(fault, max(longest * (0.5 + jitter() / 2), min(asked or 0.0, MAX_DELAY_S)))


def fault_of(error: Exception) -> Fault:
    """What is told of an error; of one that is not ours nothing, as everywhere."""
    if isinstance(error, PagemeshError):
        return Fault(type(error).__name__, error.reason, error.message)
    return Fault(
        InternalError.__name__, "INTERNAL", "Something went wrong on our side. Tell the operator the name of the job."
    )


def turn(number: int) -> tuple[Priority, ...]:
    """In which order the classes are asked for the claim of this number.

    Of ten claims, one begins with the batch class and two with the normal one, so that no class starves; an urgent job
    waits for no more than two others at a place, and has a place of its own besides.
    """
    if number % _TURNS == 9:
        return (Priority.BATCH, Priority.URGENT, Priority.NORMAL)
    if number % _TURNS in (3, 6):
        return (Priority.NORMAL, Priority.URGENT, Priority.BATCH)
    return _ALL
