"""Jobs in memory: JobStore, JobQueue and JobSpending as one, for tests. It keeps to the same contract as Postgres."""

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from services.runtime.errors import AlreadyExists, QuotaViolation, ResourceExhausted
from services.summarizer.adapters.job_bell import Bells
from services.summarizer.adapters.job_encoding import fingerprint
from services.summarizer.domain.events import Progress
from services.summarizer.domain.job_notices import JobNotice
from services.summarizer.domain.job_ports import QUEUED
from services.summarizer.domain.jobs import (
    Batch,
    Claim,
    EventKind,
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

_Key = tuple[str, str]


@dataclass
class _Place:
    """A row of the queue."""

    tenant: str
    job_id: str
    priority: Priority
    due: datetime
    attempt: int
    tries: int = 0
    worker: str = ""
    lease: datetime | None = None


@dataclass
class MemoryJobs:
    """Both ports; `now` is its clock."""

    now: Callable[[], datetime]
    bells: Bells = field(default_factory=Bells)
    jobs: dict[_Key, Job] = field(default_factory=dict)
    callers: dict[_Key, Caller] = field(default_factory=dict)
    batches: dict[_Key, Batch] = field(default_factory=dict)
    told: dict[_Key, list[JobEvent]] = field(default_factory=dict)
    requests: dict[tuple[str, str, str], tuple[bytes, str, str]] = field(default_factory=dict)
    places: dict[_Key, _Place] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    calls: dict[_Key, tuple[str, int]] = field(default_factory=dict)
    """Of calls whose cost is not known, by tenant and hold: the job, and the most that they can cost."""
    limits: dict[str, int | None] = field(default_factory=dict)
    notices: list[JobNotice] = field(default_factory=list)
    noticed: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def submit(self, order: Order, *, ids: Sequence[str], batch: str, limit: int) -> tuple[Job, str]:
        caller, tenant = order.caller, order.caller.tenant
        request = (tenant, caller.actor, order.request_id and str(uuid.UUID(order.request_id)))
        if order.request_id and request in self.requests:
            print_of_it, job_id, known_batch = self.requests[request]
            if print_of_it != fingerprint(order):
                raise AlreadyExists("REQUEST_ID_REUSED", "This request id was used for another request.")
            return replace(self.jobs[tenant, job_id], result=None), known_batch
        self.check_room(tenant, len(ids), limit)
        if order.request_id:
            self.requests[request] = (fingerprint(order), ids[0], batch)
        now = self.now()
        if batch:
            self.batches[tenant, batch] = Batch(batch, 0, now)
        for job_id, document in zip(ids, order.documents, strict=True):
            scheduled = order.schedule_time or now
            self.callers[tenant, job_id] = caller
            self.jobs[tenant, job_id] = Job(
                tenant=tenant,
                job_id=job_id,
                document=document,
                work=order.work,
                priority=order.priority,
                state=JobState.QUEUED,
                batch=batch,
                actor=caller.actor,
                attempts=0,
                max_attempts=order.max_attempts,
                last_sequence=0,
                create_time=now,
                schedule_time=scheduled,
                max_cost=order.max_cost,
            )
            self.places[tenant, job_id] = _Place(tenant, job_id, order.priority, scheduled, 0)
            self._move(tenant, job_id, EventKind.QUEUED, JobState.QUEUED)
        self.bells.ring(QUEUED)
        return self.jobs[tenant, ids[0]], batch

    async def get(self, tenant: str, job_id: str) -> Job | None:
        return self.jobs.get((tenant, job_id))

    async def list(self, tenant: str, selection: Selection, *, before: str, limit: int) -> Sequence[Job]:
        found = [
            replace(job, result=None)
            for job in self.jobs.values()
            if job.tenant == tenant
            and (not before or job.job_id < before)
            and selection.state in (None, job.state)
            and selection.batch in ("", job.batch)
            and selection.document in ("", job.document)
        ]
        return sorted(found, key=lambda job: job.job_id, reverse=True)[:limit]

    async def batch(self, tenant: str, batch_id: str) -> Batch | None:
        batch = self.batches.get((tenant, batch_id))
        if batch is None:
            return None
        own = [job for job in self.jobs.values() if (job.tenant, job.batch) == (tenant, batch_id)]
        states = Counter(job.state for job in own)
        return replace(batch, counts=dict(states), spent_micros=sum(job.spent_micros for job in own))

    async def cancel(self, tenant: str, job_id: str, *, keep_s: float) -> Job | None:
        if self.places.pop((tenant, job_id), None) is not None:
            self._move(tenant, job_id, EventKind.ENDED, JobState.CANCELLED, keep_s=keep_s)
        return self.jobs.get((tenant, job_id))

    async def retry(
        self, caller: Caller, job_id: str, *, limit: int, max_cost: Money | None = None
    ) -> tuple[Job, bool] | None:
        tenant = caller.tenant
        job = self.jobs.get((tenant, job_id))
        if job is None or job.state not in (JobState.FAILED, JobState.CANCELLED):
            return None if job is None else (job, False)
        self.check_room(tenant, 1, limit)
        self.places[tenant, job_id] = _Place(tenant, job_id, job.priority, self.now(), job.attempts)
        self.callers[tenant, job_id] = caller
        self.jobs[tenant, job_id] = replace(job, actor=caller.actor, max_cost=max_cost or job.max_cost)
        self._move(tenant, job_id, EventKind.QUEUED, JobState.QUEUED)
        self.bells.ring(QUEUED)
        return self.jobs[tenant, job_id], True

    async def events(self, tenant: str, job_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
        return [event for event in self.told.get((tenant, job_id), []) if event.sequence > after][:limit]

    async def batch_events(self, tenant: str, batch_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
        found = [
            event
            for key, events in self.told.items()
            for event in events
            if key[0] == tenant and self.jobs[key].batch == batch_id and event.batch_sequence > max(after, 0)
        ]
        return sorted(found, key=lambda event: event.batch_sequence)[:limit]

    async def erase(self, tenant: str, document: str, fault: Fault, *, keep_s: float) -> int:
        touched = 0
        for key, job in list(self.jobs.items()):
            if (job.tenant, job.document) != (tenant, document):
                continue
            if self.places.pop(key, None) is not None:
                self._move(*key, EventKind.ENDED, JobState.FAILED, fault=fault, keep_s=keep_s)
                touched += 1
            elif job.result is not None:
                self.jobs[key] = replace(job, result=None)
                touched += 1
        return touched

    async def claim(
        self, order: Sequence[Priority], *, worker: str, lease_s: float, most_of_tenant: int
    ) -> Claim | None:
        now, working = self.now(), Counter(place.tenant for place in self.places.values() if place.worker)
        due = [
            place
            for place in self.places.values()
            if not place.worker
            and place.due <= now
            and place.priority in order
            and working[place.tenant] < self._most(place.tenant, most_of_tenant)
        ]
        if not due:
            return None
        place = min(due, key=lambda p: (order.index(p.priority), self.served.get(p.tenant, 0), p.due, p.job_id))
        self.served[place.tenant] = max(self.served.values(), default=0) + 1
        place.worker, place.lease = worker, now + timedelta(seconds=lease_s)
        place.attempt, place.tries = place.attempt + 1, place.tries + 1
        key = (place.tenant, place.job_id)
        self._move(*key, EventKind.STARTED, JobState.RUNNING, attempts=place.attempt)
        job, rank = self.jobs[key], int(place.priority)
        caller = replace(self.callers[key], scopes=frozenset(), job=f"jobs/{place.job_id}", rank=rank)
        return Claim(
            caller,
            job.job_id,
            job.document,
            job.work,
            job.priority,
            place.attempt,
            place.tries,
            job.max_attempts,
            job.max_cost,
            job.spent_micros,
        )

    async def taken(self, claim: Claim, hold_id: str, amount_micros: int) -> bool:
        if self._held(claim) is None:
            return False
        self.calls[claim.caller.tenant, hold_id] = (claim.job_id, amount_micros)
        self._spend(claim.caller.tenant, claim.job_id, amount_micros)
        return True

    async def ended(self, tenant: str, hold_id: str, cost_micros: int) -> None:
        job_id, amount = self.calls.pop((tenant, hold_id), ("", 0))
        self._spend(tenant, job_id, cost_micros - amount)

    def _spend(self, tenant: str, job_id: str, micros: int) -> None:
        if (job := self.jobs.get((tenant, job_id))) is not None:
            self.jobs[tenant, job_id] = replace(job, spent_micros=job.spent_micros + micros)

    async def beat(self, claim: Claim, *, lease_s: float, progress: Progress | None) -> bool:
        place = self._held(claim)
        if place is None:
            return False
        place.lease = self.now() + timedelta(seconds=lease_s)
        if progress is not None:
            self._move(place.tenant, place.job_id, EventKind.PROGRESS, JobState.RUNNING, progress=progress)
        return True

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
        place = self._held(claim)
        if place is None:
            return False
        if progress is not None:
            self._move(place.tenant, place.job_id, EventKind.PROGRESS, JobState.RUNNING, progress=progress)
        del self.places[place.tenant, place.job_id]
        self._move(place.tenant, place.job_id, EventKind.ENDED, state, keep_s=keep_s, fault=fault, result=result)
        self.bells.ring(QUEUED)
        return True

    async def postpone(self, claim: Claim, *, delay_s: float, fault: Fault) -> bool:
        return self._give_back(claim, EventKind.POSTPONED, delay_s, untried=0, fault=fault)

    async def hand_back(self, claim: Claim) -> bool:
        return self._give_back(claim, EventKind.HANDED_BACK, 0, untried=1, fault=None)

    async def recover(self, fault: Fault, *, limit: int, keep_s: float) -> int:
        lost = [place for place in self.places.values() if place.lease is not None and place.lease < self.now()][:limit]
        for place in lost:
            key = (place.tenant, place.job_id)
            if place.tries >= self.jobs[key].max_attempts:
                del self.places[key]
                self._move(*key, EventKind.ENDED, JobState.FAILED, fault=fault, keep_s=keep_s)
            else:
                place.worker, place.lease, place.due = "", None, self.now()
                self._move(*key, EventKind.WORKER_LOST, JobState.QUEUED, fault=fault)
        self.bells.ring(QUEUED)
        return len(lost)

    async def waiting(self) -> Sequence[Waiting]:
        return [self._waiting(priority) for priority in Priority]

    async def forget(self, now: datetime, *, limit: int) -> Forgotten:
        old = [key for key, job in self.jobs.items() if job.expire_time is not None and job.expire_time <= now][:limit]
        events = sum(len(self.told.pop(key)) for key in old)
        batches = {(key[0], self.jobs.pop(key).batch) for key in old}
        self.calls = {key: call for key, call in self.calls.items() if (key[0], call[0]) not in old}
        self.requests = {key: made for key, made in self.requests.items() if (key[0], made[1]) not in old}
        living = {(job.tenant, job.batch) for job in self.jobs.values()}
        gone = [key for key in batches if key in self.batches and key not in living]
        for key in gone:
            del self.batches[key]
        return Forgotten(len(old), events, len(gone))

    def _most(self, tenant: str, deployment: int) -> int:
        own = self.limits.get(tenant)
        return deployment if own is None else own

    def _waiting(self, priority: Priority) -> Waiting:
        now, places = self.now(), [place for place in self.places.values() if place.priority == priority]
        ages = [(now - place.due).total_seconds() for place in places if not place.worker and place.due <= now]
        working = sum(bool(place.worker) for place in places)
        return Waiting(priority, len(places) - working, working, max(ages, default=0.0))

    def _held(self, claim: Claim) -> _Place | None:
        place = self.places.get((claim.caller.tenant, claim.job_id))
        return place if place is not None and place.worker and place.attempt == claim.attempt else None

    def _give_back(self, claim: Claim, kind: EventKind, delay_s: float, *, untried: int, fault: Fault | None) -> bool:
        place = self._held(claim)
        if place is None:
            return False
        place.worker, place.lease, place.due = "", None, self.now() + timedelta(seconds=delay_s)
        place.tries -= untried
        self._move(place.tenant, place.job_id, kind, JobState.QUEUED, fault=fault)
        self.bells.ring(QUEUED)
        return True

    def check_room(self, tenant: str, more: int, limit: int) -> None:
        """Raises ResourceExhausted JOB_QUEUE_FULL."""
        waiting = sum(place.tenant == tenant and not place.worker for place in self.places.values())
        if waiting + more > limit:
            raise ResourceExhausted(
                "JOB_QUEUE_FULL",
                "Too many jobs wait.",
                retry_after_s=10.0,
                quota=QuotaViolation(f"tenants/{tenant}", f"at most {limit:,} jobs may wait"),
            )

    def _move(
        self, tenant: str, job_id: str, kind: EventKind, state: JobState, *, keep_s: float = 0, **changes: Any
    ) -> None:
        key, now = (tenant, job_id), self.now()
        job, changes = self.jobs[key], {"fault": None, "result": None, **changes}
        job = self.jobs[key] = replace(
            job,
            state=state,
            last_sequence=job.last_sequence + 1,
            start_time=job.start_time or (now if state is JobState.RUNNING else None),
            end_time=now if state.ended else None,
            expire_time=now + timedelta(seconds=keep_s) if state.ended else None,
            **changes,
        )
        number = 0
        if job.batch and kind is not EventKind.PROGRESS:
            batch = self.batches[tenant, job.batch]
            number = batch.last_sequence + 1
            self.batches[tenant, job.batch] = replace(batch, last_sequence=number)
        event = JobEvent(job_id, job.last_sequence, number, kind, state, job.attempts, now, job.progress, job.fault)
        self.told.setdefault(key, []).append(event)
        if state.ended:
            self.notices.append(_notice(next(self.noticed), job, now))
        self.bells.ring(job_id)
        self.bells.ring(job.batch or job_id)


def _notice(position: int, job: Job, now: datetime) -> JobNotice:
    return JobNotice(
        position=position,
        tenant=job.tenant,
        job_id=job.job_id,
        sequence=job.last_sequence,
        batch=job.batch,
        document=job.document,
        state=job.state,
        reason=job.fault.reason if job.fault else "",
        attempts=job.attempts,
        pages_read=job.progress.pages_read,
        page_count=job.progress.page_count,
        accept_time=job.create_time,
        end_time=now,
    )
