"""The way of events from the requests to where they are safe: many at a time, in their order, none left out."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Gauge

from services.audit.event import Event
from services.runtime.errors import PagemeshError, Unavailable

MAX_WAITING = 10_000
BATCH = 500
READ_LINGER_S = 0.2
"""How long an event that nobody waits for may wait for company."""
COMPANY_S = 0.001
"""How long one that is waited for does: the groups grow, and so do calls a second."""
RETRY_S = (0.05, 0.2, 0.5, 1.0)
WAIT_S = 5.0
"""Longest time that a call waits for its event."""
WRITE_TIMEOUT_S = 15.0

_WRITTEN = Counter("pagemesh_audit_events_written", "Audit events that are safe.")
_FAILED = Counter("pagemesh_audit_writes_failed", "Attempts to write audit events that failed; each is made again.")
_REFUSED = Counter("pagemesh_audit_calls_refused", "Calls that were not answered because their event was not safe.")
_FULL = Counter("pagemesh_audit_queue_full", "Calls that had to wait because too many events were waiting.")
_LOST = Counter("pagemesh_audit_events_lost", "Events that could not be written before the service ended.")
_WAITING = Gauge("pagemesh_audit_events_waiting", "Audit events that are not written yet.")

log = structlog.get_logger()

Keep = Callable[[Sequence[Event]], Awaitable[None]]
"""Makes events safe, in their order, and the same ones again where it failed or nobody knows. Raises PagemeshError."""


@dataclass(slots=True)
class _Waiting:
    event: Event
    safe: "asyncio.Future[None] | None"


class Trail:
    """Events of one process. `run` writes them; `close` writes what is left."""

    def __init__(self, keep: Keep, *, max_waiting: int = MAX_WAITING, wait_s: float = WAIT_S) -> None:
        self._keep = keep
        self._max_waiting = max_waiting
        self._wait_s = wait_s
        self._queue: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()
        _WAITING.set_function(lambda: len(self._queue))

    async def record(self, event: Event, *, durable: bool, within_s: float | None = None) -> None:
        """Takes the event over; `durable` waits until it is safe, at most `within_s`.

        Raises Unavailable AUDIT_UNAVAILABLE where that takes too long, or where there is no room for it.
        """
        limit_s = self._wait_s if within_s is None else min(self._wait_s, within_s)
        if durable or len(self._queue) >= self._max_waiting:
            try:
                async with asyncio.timeout(limit_s):
                    await self._record_patiently(event, durable=durable)
            except TimeoutError as exc:
                _REFUSED.inc()
                log.error("audit_unavailable", action=event.action, request_id=event.request_id)
                raise _unavailable() from exc
        else:
            self._take(event, None)

    async def _record_patiently(self, event: Event, *, durable: bool) -> None:
        if len(self._queue) >= self._max_waiting:
            _FULL.inc()
        while len(self._queue) >= self._max_waiting:
            self._room.clear()
            self._urgent.set()
            await self._room.wait()
        safe = asyncio.get_running_loop().create_future() if durable else None
        self._take(event, safe)
        if safe is not None:
            self._urgent.set()
            await safe

    def _take(self, event: Event, safe: "asyncio.Future[None] | None") -> None:
        self._queue.append(_Waiting(event, safe))
        self._some.set()
        if len(self._queue) >= BATCH:
            self._urgent.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        failures = 0
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_LINGER_S):
                    await self._urgent.wait()
            await asyncio.sleep(COMPANY_S)
            if await self._write():
                failures = 0
            else:
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1

    async def close(self, grace_s: float) -> None:
        """Writes what is left, for so long at most; what is still there then is lost, and told."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._queue:
                    if not await self._write():
                        await asyncio.sleep(RETRY_S[0])
        if self._queue:
            _LOST.inc(len(self._queue))
            log.error("audit_events_lost", count=len(self._queue))

    async def _write(self) -> bool:
        """Writes one batch. It leaves the queue when it is safe: whatever breaks the attempt, it is still there."""
        async with self._writing:
            batch = [self._queue[index] for index in range(min(BATCH, len(self._queue)))]
            self._urgent.clear()
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._keep([waiting.event for waiting in batch])
            except Exception as exc:  # whatever it is, the events stay and are written again
                _FAILED.inc()
                known = isinstance(exc, PagemeshError | TimeoutError)
                log.warning("audit_write_failed", error=type(exc).__name__, exc_info=None if known else exc)
                self._urgent.set()
                return False
            for waiting in batch:
                self._queue.popleft()
                if waiting.safe is not None and not waiting.safe.done():
                    waiting.safe.set_result(None)
        _WRITTEN.inc(len(batch))
        self._room.set()
        if not self._queue:
            self._some.clear()
        elif len(self._queue) >= BATCH or any(waiting.safe for waiting in self._queue):
            self._urgent.set()
        return True


def _unavailable() -> Unavailable:
    return Unavailable(
        "AUDIT_UNAVAILABLE",
        "The call could not be written into the audit trail in time. Try the same request again.",
        retry_after_s=1.0,
    )
