"""Room in the spool for objects that are read from afar: so many on their way, and so many bytes that lie there."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from prometheus_client import Gauge

from services.runtime.errors import ResourceExhausted
from services.waiting.fair_slots import FairSlots

_HELD = Gauge("pagemesh_extractor_downloaded_bytes", "Bytes of documents from S3 that lie in the spool to be read.")
_WAITING = Gauge("pagemesh_extractor_downloads_waiting", "Documents that wait to be fetched from S3.")


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """`downloads` at a time, `max_bytes` in all, `max_waiting` who wait for either, and for how long."""

    downloads: int = 8
    max_bytes: int = 1024 * 1024 * 1024
    max_waiting: int = 256
    wait_s: float = 60.0


DEFAULT_ROOM = RoomLimits()


@dataclass(eq=False, slots=True)
class _Waiter:
    tenant: str
    size_bytes: int
    granted: asyncio.Future[None]


class DownloadRoom:
    """Shared by all that read through one spool. Of one tenant lies there at most half; an object that is larger than
    that has to be alone, of its tenant or altogether."""

    def __init__(self, limits: RoomLimits) -> None:
        self._limits = limits
        self._turns = FairSlots(size=limits.downloads, max_waiting=limits.max_waiting, busy=_busy)
        self._held: Counter[str] = Counter()
        self._waiting: deque[_Waiter] = deque()

    @contextlib.asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator["Place"]:
        """A place for one object, which is given back with the context."""
        place = Place(self, tenant, until=asyncio.get_running_loop().time() + self._limits.wait_s)
        try:
            yield place
        finally:
            self._give_back(tenant, place.size_bytes)

    @contextlib.asynccontextmanager
    async def _turn(self, tenant: str, timeout_s: float) -> AsyncIterator[None]:
        with _WAITING.track_inprogress():
            await self._turns.acquire(tenant, timeout_s=timeout_s)
        try:
            yield
        finally:
            self._turns.release(tenant)

    def _ask(self, tenant: str, size_bytes: int) -> _Waiter:
        """Whoever is let in at once does not wait."""
        waiter = _Waiter(tenant, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._let_in()
        return waiter

    async def _wait(self, tenant: str, size_bytes: int, timeout_s: float) -> None:
        own = sum(waiter.tenant == tenant for waiter in self._waiting)
        if len(self._waiting) >= self._limits.max_waiting or own >= self._limits.max_waiting // 2:
            raise _busy()
        waiter = self._ask(tenant, size_bytes)
        try:
            with _WAITING.track_inprogress():
                async with asyncio.timeout(timeout_s):
                    await waiter.granted
        except BaseException as exc:
            self._leave(waiter)
            if isinstance(exc, TimeoutError):
                raise _busy() from exc
            raise

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._let_in()  # it may have stood before others
        elif waiter.granted.done() and not waiter.granted.cancelled():
            self._give_back(waiter.tenant, waiter.size_bytes)  # it was let in as it left

    def _give_back(self, tenant: str, size_bytes: int) -> None:
        self._held[tenant] -= size_bytes
        if not self._held[tenant]:
            del self._held[tenant]
        _HELD.dec(size_bytes)
        self._let_in()

    def _let_in(self) -> None:
        """In the order in which they came, but for those whose tenant has its half: they keep nobody else waiting."""
        for waiter in tuple(self._waiting):
            if not _fits(waiter.size_bytes, self._held[waiter.tenant], self._limits.max_bytes // 2):
                continue
            if not _fits(waiter.size_bytes, self._held.total(), self._limits.max_bytes):
                return  # the large ones would never have their turn
            self._waiting.remove(waiter)
            if not waiter.granted.done():
                self._held[waiter.tenant] += waiter.size_bytes
                _HELD.inc(waiter.size_bytes)
                waiter.granted.set_result(None)


class Place:
    """What one object may take of the room."""

    def __init__(self, room: DownloadRoom, tenant: str, *, until: float) -> None:
        self.size_bytes = 0
        self._room = room
        self._tenant = tenant
        self._until = until

    def turn(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Waits until the object may be on its way. Raises ResourceExhausted."""
        return self._room._turn(self._tenant, self._left_s())

    def take(self, size_bytes: int) -> bool:
        """Takes so many bytes where they are free and nobody waits for them; true also where they were taken before."""
        if size_bytes == self.size_bytes:
            return True
        waiter = self._room._ask(self._tenant, size_bytes - self.size_bytes)
        if waiter.granted.done():
            self.size_bytes = size_bytes
            return True
        self._room._leave(waiter)
        return False

    async def wait(self, size_bytes: int) -> None:
        """Waits for so many bytes and takes them. Raises ResourceExhausted."""
        await self._room._wait(self._tenant, size_bytes - self.size_bytes, self._left_s())
        self.size_bytes = size_bytes

    def _left_s(self) -> float:
        return max(0.0, self._until - asyncio.get_running_loop().time())


def _fits(size_bytes: int, held_bytes: int, max_bytes: int) -> bool:
    return not held_bytes or held_bytes + size_bytes <= max_bytes


def _busy() -> ResourceExhausted:
    return ResourceExhausted(
        "STORE_BUSY", "Too many documents are being fetched at once. Try again shortly.", retry_after_s=2.0
    )
