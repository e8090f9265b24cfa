"""The use cases of whoever hands jobs in and looks after them."""

import asyncio
import base64
import binascii
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.runtime.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PagemeshError,
    ResourceExhausted,
)
from services.summarizer.domain.job_ids import JobIds
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.job_ports import JobBell, JobStore
from services.summarizer.domain.job_scopes import check_scope
from services.summarizer.domain.jobs import (
    Batch,
    Fault,
    Job,
    JobEvent,
    Order,
    Selection,
)
from services.summarizer.domain.ports import ActAs, PageSource
from services.summarizer.domain.purse import check_currency
from services.summarizer.domain.values import Caller, Money

HEARTBEAT_S = 10.0
"""How long a watcher hears nothing at most."""
EVENTS_AT_ONCE = 200
MAX_WATCHES = 100
"""Watches of one tenant that are open at one replica: each asks the database whenever something happens."""
LONGEST_AHEAD = timedelta(days=30)
DEFAULT_PAGE = 50
_TOKEN_BYTES = 24

ERASED = Fault("FailedPrecondition", "DOCUMENT_DELETED", "The document was deleted before the job had ended.")


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What a deployment allows. `most_waiting` jobs of a tenant; jobs that ended are kept for `keep_s`."""

    most_waiting: int
    max_attempts: int
    keep_s: float


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing happened for a while; everything up to `last_sequence` was told."""

    last_sequence: int


class JobDesk:
    """Jobs of one deployment. Every method speaks of the caller's tenant alone."""

    def __init__(
        self,
        *,
        store: JobStore,
        bell: JobBell,
        orders: Orders,
        pages: PageSource,
        act_as: ActAs,
        limits: JobLimits,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._bell = bell
        self._orders = orders
        self._pages = pages
        self._act_as = act_as
        self._limits = limits
        self._now = now
        self._ids = JobIds(now)
        self._watching: Counter[str] = Counter()

    async def create(self, order: Order) -> Job:
        """Accepts a job. Raises PermissionDenied SCOPE_MISSING, InvalidArgument, NotFound, and what JobStore.submit
        raises."""
        order = await self._checked(order)
        await self._look(order)
        job, _ = await self._submit(order, batch="")
        return job

    async def create_batch(self, order: Order) -> Batch:
        """Accepts a job for each document. Raises as `create`, but NotFound of a schema alone."""
        order = await self._checked(order)
        _, batch_id = await self._submit(order, batch=self._ids.one())
        return await self.batch(order.caller.tenant, batch_id)

    async def get(self, tenant: str, job_id: str) -> Job:
        """The job with its result. Raises NotFound JOB_NOT_FOUND."""
        return _found(await self._store.get(tenant, job_id))

    async def list(
        self, tenant: str, selection: Selection, *, page_size: int, page_token: str
    ) -> tuple[Sequence[Job], str]:
        """One page of jobs, newest first, and the token for the next. Raises InvalidArgument INVALID_PAGE_TOKEN."""
        size = page_size or DEFAULT_PAGE
        before = _decode(page_token, selection) if page_token else ""
        found = await self._store.list(tenant, selection, before=before, limit=size + 1)
        if len(found) <= size:
            return found, ""
        return found[:size], _encode(found[size - 1].job_id, selection)

    async def batch(self, tenant: str, batch_id: str) -> Batch:
        """The batch. Raises NotFound BATCH_NOT_FOUND."""
        found = await self._store.batch(tenant, batch_id)
        if found is None:
            raise NotFound("BATCH_NOT_FOUND", "There is no such batch.")
        return found

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """Ends the job, if it has not ended. Raises NotFound."""
        return _found(await self._store.cancel(tenant, job_id, keep_s=self._limits.keep_s))

    async def retry(self, caller: Caller, job_id: str, *, max_cost: Money | None = None) -> Job:
        """Queues the job once more, as the caller's own: whoever has it done again pays for it, within `max_cost` where
        it is given. Raises NotFound, PermissionDenied SCOPE_MISSING, InvalidArgument MAX_COST_CURRENCY,
        FailedPrecondition JOB_NOT_RETRYABLE, ResourceExhausted."""
        tenant = caller.tenant
        if max_cost is not None:
            check_currency(max_cost)
        check_scope(caller, (await self.get(tenant, job_id)).work)
        found = await self._store.retry(caller, job_id, limit=self._limits.most_waiting, max_cost=max_cost)
        if found is None:
            raise _no_job()
        job, queued = found
        if not queued:
            raise FailedPrecondition(
                "JOB_NOT_RETRYABLE", f"Only jobs that failed or were cancelled are retried; it is {job.state.value}."
            )
        return job

    async def erase(self, tenant: str, document: str) -> int:
        """The document is gone: so are its jobs and what they made. Answers how many were touched."""
        return await self._store.erase(tenant, document, ERASED, keep_s=self._limits.keep_s)

    def watch(self, tenant: str, job_id: str, *, after: int) -> AsyncGenerator[JobEvent | Silence | Batch, None]:
        """The events after that number; ends with the job. Raises NotFound."""

        async def more(known: int) -> Sequence[JobEvent]:
            return await self._store.events(tenant, job_id, after=known, limit=EVENTS_AT_ONCE)

        async def look(known: int) -> tuple[bool, None]:
            job = await self.get(tenant, job_id)
            return job.state.ended and known >= job.last_sequence, None

        return self._watch(job_id, after, more, look, lambda event: event.sequence, tenant=tenant)

    def watch_batch(
        self, tenant: str, batch_id: str, *, after: int
    ) -> AsyncGenerator[JobEvent | Silence | Batch, None]:
        """The events of its jobs after that number, and its counts as they become; ends when all have. NotFound."""

        async def more(known: int) -> Sequence[JobEvent]:
            return await self._store.batch_events(tenant, batch_id, after=known, limit=EVENTS_AT_ONCE)

        async def look(known: int) -> tuple[bool, Batch]:
            batch = await self.batch(tenant, batch_id)
            return batch.ended and known >= batch.last_sequence, batch

        return self._watch(batch_id, after, more, look, lambda event: event.batch_sequence, tenant=tenant)

    @contextlib.contextmanager
    def _seat(self, tenant: str) -> Iterator[None]:
        """One watch of the tenant's. Raises ResourceExhausted TOO_MANY_WATCHES."""
        if self._watching[tenant] >= MAX_WATCHES:
            raise ResourceExhausted(
                "TOO_MANY_WATCHES",
                f"{MAX_WATCHES} watches of this tenant are open here. Close some, or watch batches instead of jobs.",
                retry_after_s=HEARTBEAT_S,
            )
        self._watching[tenant] += 1
        try:
            yield
        finally:
            self._watching[tenant] -= 1
            if not self._watching[tenant]:
                del self._watching[tenant]

    async def _watch(
        self,
        topic: str,
        after: int,
        more: Callable[[int], Awaitable[Sequence[JobEvent]]],
        look: Callable[[int], Awaitable[tuple[bool, Batch | None]]],
        number: Callable[[JobEvent], int],
        *,
        tenant: str,
    ) -> AsyncGenerator[JobEvent | Silence | Batch, None]:
        known, told = after, None
        with self._seat(tenant), self._bell.listening(topic) as rung:
            while True:
                # Cleared first: what happens from here on rings again.
                rung.clear()
                events = await more(known)
                for event in events:
                    known = number(event)
                    yield event
                if len(events) == EVENTS_AT_ONCE:
                    continue
                over, batch = await look(known)
                if batch is not None and (over or batch != told):
                    yield batch
                    told = batch
                if over:
                    return
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await rung.wait()
                except TimeoutError:
                    yield Silence(known)

    async def _submit(self, order: Order, *, batch: str) -> tuple[Job, str]:
        ids = self._ids.many(len(order.documents))
        order = replace(order, max_attempts=order.max_attempts or self._limits.max_attempts, as_batch=bool(batch))
        return await self._store.submit(order, ids=ids, batch=batch, limit=self._limits.most_waiting)

    async def _checked(self, order: Order) -> Order:
        """The order with its work settled."""
        check_scope(order.caller, order.work)
        if order.max_cost is not None:
            check_currency(order.max_cost)
        if order.schedule_time is not None and order.schedule_time > self._now() + LONGEST_AHEAD:
            raise invalid("schedule_time", f"must be at most {LONGEST_AHEAD.days} days ahead")
        work = await self._orders.settled(order.caller.tenant, order.work)
        return replace(order, work=work, asked=order.work)

    async def _look(self, order: Order) -> None:
        """A document that is not there is told now; where nobody can say, the job will find out."""
        with self._act_as(order.caller):
            try:
                await self._pages.exists(order.documents[0])
            except NotFound:
                raise
            except PagemeshError:
                return


def invalid(field: str, description: str, *, reason: str = "INVALID_REQUEST") -> InvalidArgument:
    """A field of the request that is not as it must be."""
    return InvalidArgument(reason, f"The field {field} {description}.", fields=[FieldViolation(field, description)])


def _encode(job_id: str, selection: Selection) -> str:
    """The token for what follows the job, bound to what was asked for: 32 characters of base64url."""
    return base64.urlsafe_b64encode(_digest(selection) + bytes.fromhex(job_id)).decode()


def _decode(token: str, selection: Selection) -> str:
    try:
        packed = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        packed = b""
    if len(packed) != _TOKEN_BYTES or packed[:8] != _digest(selection):
        raise invalid(
            "page_token", "must be the next_page_token of an answer to the same conditions", reason="INVALID_PAGE_TOKEN"
        )
    return packed[8:].hex()


def _digest(selection: Selection) -> bytes:
    return hashlib.sha256(repr(selection).encode()).digest()[:8]


def _found(job: Job | None) -> Job:
    if job is None:
        raise _no_job()
    return job


def _no_job() -> NotFound:
    return NotFound("JOB_NOT_FOUND", "There is no such job. It may have expired.")
