"""Browser sessions in memory."""

from collections.abc import Sequence

from services.ledger.adapters.memory import MemoryLedger
from services.ledger.domain.browser_sessions import MOST_OF_ONE_ACTOR, BrowserSession
from services.ledger.domain.ports import Clock


class MemoryBrowserSessions:
    """BrowserSessionStore. `clock` says what has expired; in Postgres the server's own does."""

    def __init__(self, ledger: MemoryLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._kept: dict[str, BrowserSession] = {}

    async def add(self, session: BrowserSession) -> None:
        self._ledger.check_tenant(session.tenant)
        self._kept[session.session_id] = session
        own = [s for s in self._kept.values() if (s.tenant, s.actor) == (session.tenant, session.actor)]
        for over in sorted(own, key=lambda s: (s.create_time, s.session_id), reverse=True)[MOST_OF_ONE_ACTOR:]:
            del self._kept[over.session_id]

    async def get(self, tenant: str, session_id: str) -> BrowserSession | None:
        found = self._kept.get(session_id)
        return found if found is not None and found.tenant == tenant else None

    async def find(self, session_id: str) -> BrowserSession | None:
        return self._kept.get(session_id)

    async def list(self, tenant: str, actor: str, after: str, limit: int) -> Sequence[BrowserSession]:
        found = [
            s
            for s in self._kept.values()
            if s.tenant == tenant and actor in ("", s.actor) and s.session_id > after and s.expire_time > self._clock()
        ]
        return sorted(found, key=lambda s: s.session_id)[:limit]

    async def delete(self, tenant: str, session_id: str) -> None:
        if await self.get(tenant, session_id) is not None:
            del self._kept[session_id]

    async def forget(self, limit: int) -> int:
        over = [s.session_id for s in self._kept.values() if s.expire_time <= self._clock()][:limit]
        for session_id in over:
            del self._kept[session_id]
        return len(over)
