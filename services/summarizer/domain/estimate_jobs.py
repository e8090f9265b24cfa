"""The use case: what jobs would use and cost, document by document and together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from services.runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PagemeshError,
)
from services.summarizer.domain.estimate import Estimate, Outlay
from services.summarizer.domain.estimates import Estimator
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.job_scopes import check_scope
from services.summarizer.domain.jobs import AskWork, ExtractWork, FieldsWork, SummarizeWork, Work
from services.summarizer.domain.purse import CURRENCY
from services.summarizer.domain.values import Caller, Money, TokenCount

AT_ONCE = 2
"""Documents of one request that are read at a time: each is held in memory meanwhile."""
MARGIN_S = 2.0
"""Kept back of the deadline, so that there is time to tell what was found out."""
LONGEST_S = 25.0
"""For a caller who names no deadline: the edge waits for 30 s."""
_ABOUT_THE_DOCUMENT = (NotFound, FailedPrecondition, InvalidArgument, OutOfRange, DeadlineExceeded)
_ABOUT_THE_WORK = ("MODEL_UNPRICED", "MODEL_UNKNOWN")
_FIELDS: dict[type[Work], str] = {
    SummarizeWork: "work.summarize.",
    ExtractWork: "work.extract.",
    FieldsWork: "work.extract_fields.",
    AskWork: "work.ask.",
}


@dataclass(frozen=True, slots=True)
class JobEstimate:
    """What a job on the document would take, or why nobody can tell."""

    document: str
    found: Estimate | PagemeshError


@dataclass(frozen=True, slots=True)
class JobsTotal:
    """Estimates added up. `free` are documents that cost nothing at most."""

    estimated: int
    free: int
    errors: int
    pages: int
    ocr_pages: int
    low: Outlay
    expected: Outlay
    high: Outlay


class EstimateJobs:
    """Estimates as Estimator does, for whoever would hand the jobs in."""

    def __init__(self, estimator: Estimator, *, orders: Orders) -> None:
        self._estimator = estimator
        self._orders = orders

    async def __call__(
        self, caller: Caller, documents: Sequence[str], work: Work, *, deadline: float | None
    ) -> list[JobEstimate]:
        """An estimate for each document, in their order, before the deadline in the event loop's time: what is not
        found out by then is DeadlineExceeded NO_TIME_LEFT.

        Raises what JobDesk.create_batch raises of the work, FailedPrecondition MODEL_UNPRICED, and Unavailable.
        """
        check_scope(caller, work)
        work = await self._orders.settled(caller.tenant, work)
        now = asyncio.get_running_loop().time()
        end = (now + LONGEST_S if deadline is None else deadline) - MARGIN_S
        turns = asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._one(caller, name, work, turns, end=end)) for name in documents]
        except ExceptionGroup as failures:
            # The callers know one error.
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _one(
        self, caller: Caller, document: str, work: Work, turns: asyncio.Semaphore, *, end: float
    ) -> JobEstimate:
        try:
            async with asyncio.timeout_at(end), turns:
                return JobEstimate(document, await self._estimator(caller, [document], work, at=_FIELDS[type(work)]))
        except TimeoutError:
            message = "There was no time left for this document. Ask again: what was read of it is stored."
            return JobEstimate(document, DeadlineExceeded("NO_TIME_LEFT", message))
        except _ABOUT_THE_DOCUMENT as exc:
            if exc.reason in _ABOUT_THE_WORK:
                raise
            return JobEstimate(document, exc)


def total_of(jobs: Sequence[JobEstimate]) -> JobsTotal:
    """Those that were estimated, together."""
    found = [job.found for job in jobs if isinstance(job.found, Estimate)]
    return JobsTotal(
        estimated=len(found),
        free=sum(not each.high.calls for each in found),
        errors=len(jobs) - len(found),
        pages=sum(each.page_count for each in found),
        ocr_pages=sum(each.ocr_page_count for each in found),
        low=_sum([each.low for each in found]),
        expected=_sum([each.expected for each in found]),
        high=_sum([each.high for each in found]),
    )


def _sum(outlays: Sequence[Outlay]) -> Outlay:
    """Together; the time is that of one after the other, which no batch takes."""
    return Outlay(
        calls=sum(each.calls for each in outlays),
        tokens=TokenCount(
            sum(each.tokens.input_tokens for each in outlays), sum(each.tokens.output_tokens for each in outlays)
        ),
        cost=Money(CURRENCY, sum(each.cost.micros for each in outlays)),
        duration_s=sum(each.duration_s for each in outlays),
    )
