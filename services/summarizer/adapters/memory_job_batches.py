"""Whole batches in memory: BatchStore of MemoryJobs, for tests."""

from collections.abc import Sequence

from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.domain.job_batches import Moved
from services.summarizer.domain.jobs import Batch, Job, JobState, Work
from services.summarizer.domain.values import Caller


class MemoryBatches:
    """BatchStore."""

    def __init__(self, jobs: MemoryJobs) -> None:
        self._jobs = jobs

    async def batch(self, tenant: str, batch_id: str) -> Batch | None:
        return await self._jobs.batch(tenant, batch_id)

    async def work(self, tenant: str, batch_id: str) -> Work | None:
        return next((job.work for job in self._of(tenant, batch_id)), None)

    async def list(self, tenant: str, *, open_only: bool, first: str, before: str, limit: int) -> Sequence[Batch]:
        names = sorted((name for owner, name in self._jobs.batches if owner == tenant), reverse=True)
        found = [await self._jobs.batch(tenant, name) for name in names if first <= name < before]
        return [batch for batch in found if batch is not None and not (open_only and batch.ended)][:limit]

    async def cancel_some(self, tenant: str, batch_id: str, *, after: str, limit: int, keep_s: float) -> Moved:
        some = [job for job in self._of(tenant, batch_id) if not job.state.ended and job.job_id > after][:limit]
        for job in some:
            await self._jobs.cancel(tenant, job.job_id, keep_s=keep_s)
        return Moved(len(some), some[-1].job_id if len(some) == limit else "")

    async def retry_some(
        self, caller: Caller, batch_id: str, states: Sequence[JobState], *, after: str, limit: int, most_waiting: int
    ) -> Moved:
        some = [job for job in self._of(caller.tenant, batch_id) if job.state in states and job.job_id > after][:limit]
        self._jobs.check_room(caller.tenant, len(some), most_waiting)
        for job in some:
            await self._jobs.retry(caller, job.job_id, limit=most_waiting)
        return Moved(len(some), some[-1].job_id if len(some) == limit else "")

    def _of(self, tenant: str, batch_id: str) -> Sequence[Job]:
        found = [job for job in self._jobs.jobs.values() if (job.tenant, job.batch) == (tenant, batch_id)]
        return sorted(found, key=lambda job: job.job_id)
