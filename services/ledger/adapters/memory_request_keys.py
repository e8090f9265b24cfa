"""Public keys of signed requests, and their nonces, in memory."""

from collections.abc import Callable
from datetime import datetime


class MemoryRequestKeys:
    """RequestKeyStore. `clock` says when something is over; in Postgres the server's own does."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._keys: dict[tuple[str, str], bytes] = {}
        self._nonces: dict[tuple[str, str, bytes], datetime] = {}

    async def set(self, tenant: str, key_id: str, public_key: bytes | None, now: datetime) -> None:
        if public_key is None:
            self._keys.pop((tenant, key_id), None)
        else:
            self._keys[tenant, key_id] = public_key

    async def get(self, tenant: str, key_id: str) -> bytes | None:
        return self._keys.get((tenant, key_id))

    async def use(self, tenant: str, key_id: str, nonce: bytes, forget_time: datetime) -> bool:
        if (tenant, key_id, nonce) in self._nonces:
            return False
        self._nonces[tenant, key_id, nonce] = forget_time
        return True

    async def forget(self, limit: int) -> int:
        over = [nonce for nonce, forget_time in self._nonces.items() if forget_time <= self._clock()][:limit]
        for nonce in over:
            del self._nonces[nonce]
        return len(over)
