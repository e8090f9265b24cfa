"""Signing keys and ended sessions in memory: the same promises as in Postgres, and nothing survives the process."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from services.ledger.domain.signing_keys import Plan, StoredSigningKey


class MemorySigningKeys:
    """SigningKeyStore."""

    def __init__(self) -> None:
        self.keys: dict[str, StoredSigningKey] = {}

    async def agree(self, now: datetime, plan: Plan) -> Sequence[StoredSigningKey]:
        await asyncio.sleep(0)
        self.keys = {kid: key for kid, key in self.keys.items() if key.verify_until > now}
        wanted = plan(self._kept())
        if wanted is not None:
            self.keys[wanted.kid] = wanted
        return self._kept()

    async def all(self) -> Sequence[StoredSigningKey]:
        return self._kept()

    def _kept(self) -> list[StoredSigningKey]:
        return sorted(self.keys.values(), key=lambda key: key.sign_from)


class MemoryRevokedSessions:
    """RevokedSessions. `clock` says when something is over; in Postgres the server's own does."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._ended: dict[tuple[str, str], datetime] = {}

    async def add(self, tenant: str, session_id: str, now: datetime, forget_time: datetime) -> None:
        self._ended.setdefault((tenant, session_id), forget_time)

    async def has(self, tenant: str, session_id: str) -> bool:
        return (tenant, session_id) in self._ended

    async def forget(self, limit: int) -> int:
        over = [key for key, forget_time in self._ended.items() if forget_time <= self._clock()][:limit]
        for key in over:
            del self._ended[key]
        return len(over)
