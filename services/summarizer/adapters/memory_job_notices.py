"""Ends of jobs in memory: NoticeBook for tests."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.domain.job_notices import BatchNotice, JobNotice, NoticeBacklog
from services.summarizer.domain.jobs import JobState


@dataclass
class MemoryNoticeBook:
    """NoticeBook and Feeding of MemoryJobs. `owing` are jobs that the ledger has not heard all of."""

    jobs: MemoryJobs
    owing: set[str] = field(default_factory=set)
    parked: dict[int, str] = field(default_factory=dict)
    cost_wait_s: float = 0.0

    @contextlib.asynccontextmanager
    async def feeding(self) -> AsyncIterator["MemoryNoticeBook"]:
        """What fails within the block changes nothing."""
        before, parked = list(self.jobs.notices), dict(self.parked)
        try:
            yield self
        except BaseException:
            self.jobs.notices[:], self.parked = before, parked
            raise

    async def take(self, limit: int, *, cost_wait_s: float) -> Sequence[JobNotice]:
        self.cost_wait_s = cost_wait_s
        return [
            notice
            for notice in self.jobs.notices
            if notice.position not in self.parked and not self._is_kept_back(notice)
        ][:limit]

    async def ended(self, notices: Sequence[JobNotice]) -> Sequence[BatchNotice]:
        found = []
        for tenant, batch_id in sorted({(notice.tenant, notice.batch) for notice in notices if notice.batch}):
            batch = await self.jobs.batch(tenant, batch_id)
            if batch is None or not batch.ended or self._keeps_back(batch_id, notices):
                continue
            ends = [job.end_time for job in self.jobs.jobs.values() if (job.tenant, job.batch) == (tenant, batch_id)]
            found.append(
                BatchNotice(
                    tenant=tenant,
                    batch_id=batch_id,
                    sequence=batch.last_sequence,
                    succeeded=batch.counts.get(JobState.SUCCEEDED, 0),
                    failed=batch.counts.get(JobState.FAILED, 0),
                    cancelled=batch.counts.get(JobState.CANCELLED, 0),
                    accept_time=batch.create_time,
                    end_time=max(end for end in ends if end is not None),
                    cost_micros=batch.spent_micros,
                )
            )
        return found

    def _keeps_back(self, batch_id: str, taken: Sequence[JobNotice]) -> bool:
        others = (notice for notice in self.jobs.notices if notice.batch == batch_id and notice not in taken)
        return any(notice.position not in self.parked and self._is_kept_back(notice) for notice in others)

    def _is_kept_back(self, notice: JobNotice) -> bool:
        age_s = (self.jobs.now() - notice.end_time).total_seconds()
        return notice.job_id in self.owing and age_s <= self.cost_wait_s

    async def done(self, notices: Sequence[JobNotice]) -> None:
        gone = {notice.position for notice in notices}
        self.jobs.notices[:] = [notice for notice in self.jobs.notices if notice.position not in gone]

    async def park(self, notice: JobNotice, reason: str) -> None:
        self.parked[notice.position] = reason

    async def backlog(self) -> NoticeBacklog:
        waiting = [notice for notice in self.jobs.notices if notice.position not in self.parked]
        ages = [(self.jobs.now() - notice.end_time).total_seconds() for notice in waiting]
        return NoticeBacklog(len(waiting), max(ages, default=0.0), len(self.parked))
