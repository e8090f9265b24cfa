"""The trail of a service that is not the ledger: over an outbox of its own, so that the ledger may be away."""

import asyncio

from services.audit.concern import audited
from services.audit.feeder import AuditFeeder
from services.audit.outbox import AuditOutbox
from services.audit.trail import Trail
from services.database.pool import Pool
from services.runtime.clients import MeshClient

_GRACE_S = 5.0


class ServiceTrail:
    """Its parts as one: `concern` for the server, `run` in the background, `close` at the end."""

    def __init__(self, pool: Pool, *, schema: str, ledger: MeshClient, reads: frozenset[str] = frozenset()) -> None:
        """`reads` as in `audited`."""
        outbox = AuditOutbox(pool, schema=schema)
        self._trail = Trail(outbox.keep)
        self._feeder = AuditFeeder(outbox, ledger)
        self.concern = audited(self._trail, reads=reads)

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._trail.run())
            group.create_task(self._feeder.run())

    async def close(self) -> None:
        """Writes what is left into the outbox. What is there is fed by another replica, or after the next start."""
        await self._trail.close(_GRACE_S)
