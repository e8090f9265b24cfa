"""Turns in memory, for tests of one process."""

from collections.abc import Callable


class MemoryTurns:
    """TurnBook in one process."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.held: dict[tuple[str, bytes], tuple[str, float]] = {}
        """Holder and end by tenant and key."""
        self.asked: list[str] = []
        """Who asked, each time."""

    async def take(self, tenant: str, key: bytes, holder: str, lease_s: float) -> bool:
        """Takes or renews."""
        self.asked.append(holder)
        has, end = self.held.get((tenant, key), (holder, 0.0))
        if has != holder and end >= self._now_s():
            return False
        self.held[tenant, key] = (holder, self._now_s() + lease_s)
        return True

    async def leave(self, tenant: str, key: bytes, holder: str) -> None:
        """Gives it back."""
        if self.held.get((tenant, key), ("", 0.0))[0] == holder:
            del self.held[tenant, key]
