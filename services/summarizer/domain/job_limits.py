"""How many jobs of a tenant may run at once: what its plan says goes before what the deployment says."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.runtime.errors import PagemeshError

STALE_S = 30.0
"""A changed plan counts for jobs after so long at most, with CHECK_S and a call on top."""
CHECK_S = 2.0
AT_ONCE = 50
_TOGETHER = 8


@dataclass(frozen=True, slots=True)
class TenantQueue:
    """The queue of one tenant. `due` of the `queued` could run now, the oldest of them since `oldest_age_s`.
    `most_running` is what its plan allows; None where the deployment decides."""

    tenant: str
    queued: int
    due: int
    running: int
    oldest_age_s: float
    most_running: int | None


class LimitBook(Protocol):
    """What the queue knows of tenants. Each method is one transaction and may raise Unavailable."""

    async def stale(self, *, older_s: float, limit: int) -> Sequence[str]:
        """Up to `limit` tenants with jobs that wait, whose plans were not asked for so long. From now on they count as
        asked, so that others do not ask too."""
        ...

    async def set(self, tenant: str, most_running: int | None) -> None:
        """The next claim goes by it."""
        ...

    async def top(self, limit: int) -> Sequence[TenantQueue]:
        """The tenants with the most jobs that wait or run, those with the most first."""
        ...


class Plans(Protocol):
    """The ledger."""

    async def most_running(self, tenant: str) -> int | None:
        """What the tenant's plan says; None where it says nothing. Raises what calls raise."""
        ...


class LimitKeeper:
    """Keeps the limits fresh of tenants that have jobs waiting. One that cannot be asked keeps what is known of it."""

    def __init__(self, *, book: LimitBook, plans: Plans, failed: Callable[[str, Exception], None]) -> None:
        """`failed` hears the tenant, or nothing where a whole round failed."""
        self._book = book
        self._plans = plans
        self._failed = failed

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            asked = 0
            try:
                asked = await self.look()
            except Exception as exc:  # noqa: BLE001  # a round that fails must not end the keeping
                self._failed("", exc)
            if asked < AT_ONCE:
                await asyncio.sleep(CHECK_S)

    async def look(self) -> int:
        """One round; answers how many tenants were asked for. Raises what the book raises."""
        tenants = await self._book.stale(older_s=STALE_S, limit=AT_ONCE)
        gate = asyncio.Semaphore(_TOGETHER)

        async def ask(tenant: str) -> None:
            async with gate:
                try:
                    await self._book.set(tenant, await self._plans.most_running(tenant))
                except PagemeshError as exc:
                    self._failed(tenant, exc)

        async with asyncio.TaskGroup() as group:
            for tenant in tenants:
                group.create_task(ask(tenant))
        return len(tenants)
