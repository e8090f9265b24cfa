"""What jobs need from outside. Every method is one transaction and may raise Unavailable."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from services.summarizer.domain.events import Progress
from services.summarizer.domain.jobs import (
    Batch,
    Claim,
    Fault,
    Forgotten,
    Job,
    JobEvent,
    JobState,
    Order,
    Priority,
    Result,
    Selection,
    Waiting,
)
from services.summarizer.domain.values import Caller, Money


class JobStore(Protocol):
    """Jobs as their owners see them. What belongs to another tenant is not there."""

    async def submit(self, order: Order, *, ids: Sequence[str], batch: str, limit: int) -> tuple[Job, str]:
        """Keeps a job for each document, in the order of `ids`, and queues it, all in one transaction.

        Answers the first job and the batch's id, empty where it is none. An order with the request id of an earlier one
        of the same actor answers what that one made. Raises AlreadyExists REQUEST_ID_REUSED where that asked for
        something else, ResourceExhausted JOB_QUEUE_FULL where more than `limit` jobs of the tenant would wait.
        """
        ...

    async def get(self, tenant: str, job_id: str) -> Job | None:
        """The job with its result."""
        ...

    async def list(self, tenant: str, selection: Selection, *, before: str, limit: int) -> Sequence[Job]:
        """Up to `limit` jobs without their results, newest first: those with an id below `before`, if it is given."""
        ...

    async def batch(self, tenant: str, batch_id: str) -> Batch | None:
        """The batch with its counts."""
        ...

    async def cancel(self, tenant: str, job_id: str, *, keep_s: float) -> Job | None:
        """Ends the job as CANCELLED unless it has ended; its worker, if any, is fenced off. Answers it as it is now."""
        ...

    async def retry(
        self, caller: Caller, job_id: str, *, limit: int, max_cost: Money | None = None
    ) -> tuple[Job, bool] | None:
        """Queues a job of the caller's tenant that FAILED or was CANCELLED; from now on the caller pays for it, within
        `max_cost` or else the bound that it had. Answers it as it is now, and False where it was in another state and
        nothing was done. Raises ResourceExhausted as `submit`."""
        ...

    async def events(self, tenant: str, job_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
        """Up to `limit` events of the job with a sequence number above `after`, in order."""
        ...

    async def batch_events(self, tenant: str, batch_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
        """The same by the batch's own numbers."""
        ...

    async def erase(self, tenant: str, document: str, fault: Fault, *, keep_s: float) -> int:
        """The document is gone: ends its open jobs as FAILED with `fault`, and forgets the results of the others.
        Answers how many were touched."""
        ...


class JobSpending(Protocol):
    """What the calls of jobs cost, and may cost."""

    async def taken(self, claim: Claim, hold_id: str, amount_micros: int) -> bool:
        """Adds to what the job spent the most that a call can cost, before it is made. False, and nothing is added,
        where the claim does not hold any more."""
        ...

    async def ended(self, tenant: str, hold_id: str, cost_micros: int) -> None:
        """Puts what the call cost in the place of the most. Again, or for a call of no job, nothing happens."""
        ...


class JobQueue(Protocol):
    """Jobs as workers see them, of all tenants."""

    async def claim(
        self, order: Sequence[Priority], *, worker: str, lease_s: float, most_of_tenant: int
    ) -> Claim | None:
        """The next job, from the first of the priorities that has one: of the tenant that was served the longest ago
        and has fewer jobs running than its plan says (`most_of_tenant` where it says nothing), the one that is due the
        longest. None where there is none."""
        ...

    async def beat(self, claim: Claim, *, lease_s: float, progress: Progress | None) -> bool:
        """Extends the lease and tells progress, if there is some. False where the claim does not hold any more."""
        ...

    async def finish(
        self,
        claim: Claim,
        state: JobState,
        *,
        result: Result | None,
        fault: Fault | None,
        keep_s: float,
        progress: Progress | None = None,
    ) -> bool:
        """Ends the job; progress that was not told yet is told before, in the same transaction. False, and nothing
        changed, where the claim does not hold any more."""
        ...

    async def postpone(self, claim: Claim, *, delay_s: float, fault: Fault) -> bool:
        """Queues it again after a failed attempt. False as in `finish`."""
        ...

    async def hand_back(self, claim: Claim) -> bool:
        """Queues it again as if this attempt had not been made. False as in `finish`."""
        ...

    async def recover(self, fault: Fault, *, limit: int, keep_s: float) -> int:
        """Takes up to `limit` jobs from workers whose lease has ended: they are queued again, or FAILED with `fault`
        after their last attempt. Answers how many."""
        ...

    async def waiting(self) -> Sequence[Waiting]:
        """The queues, one for each priority."""
        ...

    async def forget(self, now: datetime, *, limit: int) -> Forgotten:
        """Removes up to `limit` jobs that have expired, with their events, and batches without jobs."""
        ...


QUEUED = ""
"""The topic that rings when a job may be there to be claimed."""


class JobBell(Protocol):
    """Rings when something changed. It may ring for nothing, and miss something: it saves waiting, no more."""

    def listening(self, topic: str) -> AbstractContextManager[asyncio.Event]:
        """Within the block the event is set whenever the topic rings: the id of a job or a batch, or QUEUED. Whoever
        hears it clears it, and looks afterwards."""
        ...
