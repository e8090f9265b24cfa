"""What becomes of a failed attempt, and which class goes next."""

import itertools
from collections import Counter

import pytest

from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from services.summarizer.domain.job_policy import MAX_DELAY_S, judge, turn
from services.summarizer.domain.jobs import Priority

PASSING = [
    Unavailable("PEER_DOWN", "down"),
    DeadlineExceeded("JOB_TIMEOUT", "late"),
    ResourceExhausted("PROVIDER_RATE_LIMITED", "wait"),
    RuntimeError("a mistake of ours"),
]
FINAL = [
    NotFound("DOCUMENT_NOT_FOUND", "gone"),
    InvalidArgument("MODEL_UNKNOWN", "no"),
    FailedPrecondition("DOCUMENT_HAS_NO_TEXT", "empty"),
    PermissionDenied("NO", "no"),
    ResourceExhausted("BUDGET_EXCEEDED", "spent"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_what_may_pass_is_tried_until_the_last_attempt(error: Exception) -> None:
    delays = [judge(error, tries=tries, max_attempts=20, jitter=lambda: 1.0).delay_s for tries in range(1, 20)]
    assert delays[:4] == [2, 4, 8, 16]
    assert delays[-1] == MAX_DELAY_S
    assert judge(error, tries=20, max_attempts=20, jitter=lambda: 1.0).delay_s is None
    assert judge(error, tries=1, max_attempts=20, jitter=lambda: 0.0).delay_s == 1


@pytest.mark.parametrize("error", FINAL, ids=str)
def test_what_stays_so_is_given_up_at_once(error: Exception) -> None:
    verdict = judge(error, tries=1, max_attempts=20, jitter=lambda: 1.0)
    assert verdict.delay_s is None
    assert verdict.fault.kind == type(error).__name__


def test_a_time_that_is_named_is_waited_for() -> None:
    error = ResourceExhausted("PROVIDER_RATE_LIMITED", "wait", retry_after_s=90)
    assert judge(error, tries=1, max_attempts=5, jitter=lambda: 1.0).delay_s == 90


def test_mistakes_of_ours_tell_nothing() -> None:
    verdict = judge(RuntimeError("secret"), tries=9, max_attempts=3, jitter=lambda: 1.0)
    assert (verdict.fault.kind, verdict.fault.reason) == ("InternalError", "INTERNAL")
    assert "secret" not in verdict.fault.message


def test_no_class_starves_and_urgent_ones_wait_for_one_other_at_most() -> None:
    orders = [turn(number) for number in range(100)]
    assert all(sorted(order) == sorted(Priority) for order in orders)
    first = Counter(order[0] for order in orders)
    assert first == {Priority.URGENT: 70, Priority.NORMAL: 20, Priority.BATCH: 10}
    assert all(order.index(Priority.URGENT) <= 1 for order in orders)
    assert all(Priority.URGENT in (one[0], other[0]) for one, other in itertools.pairwise(orders))
