"""How many jobs of each tenant may run, in memory: LimitBook of MemoryJobs, for tests."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.domain.job_limits import TenantQueue


class MemoryLimits:
    """LimitBook."""

    def __init__(self, jobs: MemoryJobs) -> None:
        self._jobs = jobs
        self._asked: dict[str, datetime] = {}

    async def stale(self, *, older_s: float, limit: int) -> Sequence[str]:
        now = self._jobs.now()
        waiting = {place.tenant for place in self._jobs.places.values() if not place.worker}
        old = [
            tenant
            for tenant in sorted(waiting)
            if tenant not in self._asked or self._asked[tenant] < now - timedelta(seconds=older_s)
        ][:limit]
        self._asked |= dict.fromkeys(old, now)
        return old

    async def set(self, tenant: str, most_running: int | None) -> None:
        self._jobs.limits[tenant] = most_running

    async def top(self, limit: int) -> Sequence[TenantQueue]:
        now, found = self._jobs.now(), []
        for tenant in {place.tenant for place in self._jobs.places.values()}:
            places = [place for place in self._jobs.places.values() if place.tenant == tenant]
            running = sum(bool(place.worker) for place in places)
            ages = [(now - place.due).total_seconds() for place in places if not place.worker and place.due <= now]
            found.append(
                TenantQueue(
                    tenant,
                    len(places) - running,
                    len(ages),
                    running,
                    max(ages, default=0.0),
                    self._jobs.limits.get(tenant),
                )
            )
        return sorted(found, key=lambda queue: (-queue.queued - queue.running, queue.tenant))[:limit]
