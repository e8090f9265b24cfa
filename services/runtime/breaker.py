"""pybreaker's states under asyncio: failures are counted, an open breaker refuses, half-open lets one probe through.

pybreaker's own call() holds a lock for the whole call, cannot see a coroutine's failure and lets every caller through
in half-open; its states and storage are sound. This wrapper uses those alone, so the version is pinned.
"""

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pybreaker
import structlog
from prometheus_client import Gauge

from services.runtime.errors import DeadlineExceeded, InternalError, PagemeshError, Unavailable

T = TypeVar("T")
log = structlog.get_logger()

_STATE = Gauge("pagemesh_breaker_state", "0 closed, 1 half-open, 2 open.", ["breaker"])
_STATE_VALUES = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}


def counts_by_default(error: BaseException) -> bool:
    """A failure of the other side; what it refuses for a reason is an answer, and a caller's own hurry is none."""
    if isinstance(error, PagemeshError):
        if error.metadata.get("deadline") == "caller":
            return False
        return isinstance(error, Unavailable | DeadlineExceeded | InternalError)
    return isinstance(error, Exception)


class _Told(pybreaker.CircuitBreakerListener):
    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        log.warning("breaker_changed", breaker=cb.name, was=old_state and old_state.name, now=new_state.name)


class Breaker:
    """Refuses calls to something that keeps failing, for `reset_timeout_s` after `fail_max` failures in a row."""

    def __init__(
        self,
        name: str,
        *,
        fail_max: int = 5,
        reset_timeout_s: float = 10.0,
        counts: Callable[[BaseException], bool] = counts_by_default,
    ) -> None:
        self.name = name
        self._counts = counts
        self._probing = False
        self._inner = pybreaker.CircuitBreaker(
            fail_max=fail_max,
            reset_timeout=reset_timeout_s,
            name=name,
            listeners=[_Told()],
            throw_new_error_on_trip=False,
        )
        _STATE.labels(name).set_function(lambda: _STATE_VALUES[self.state])

    @property
    def state(self) -> str:
        """`closed`, `half-open` (the next call is a probe, or one is under way) or `open`."""
        rested = self._inner.current_state == pybreaker.STATE_OPEN and self._wait_s() <= 0
        return str(pybreaker.STATE_HALF_OPEN if rested else self._inner.current_state)

    async def call(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Awaits `fn()`. Raises Unavailable BREAKER_OPEN, without calling it, while the breaker is open."""
        async with self.guard():
            return await fn()

    @contextlib.asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """The same around a block. A cancelled block is neither success nor failure."""
        probe = self._admit()
        try:
            yield
        except BaseException as exc:
            if self._counts(exc):
                self._failed(exc, probe=probe)
            elif isinstance(exc, Exception):
                self._succeeded(probe=probe)
            raise
        else:
            self._succeeded(probe=probe)
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Lets a call in; true where it is the probe of a half-open breaker."""
        if self._inner.current_state == pybreaker.STATE_CLOSED:
            return False
        wait_s = self._wait_s()
        if wait_s > 0 or self._probing:
            raise Unavailable(
                "BREAKER_OPEN",
                f"{self.name} keeps failing and is given a rest. Try again later.",
                retry_after_s=max(wait_s, 1.0),
                metadata={"breaker": self.name, "sent": "no"},
            )
        self._probing = True
        self._inner.half_open()
        return True

    def _wait_s(self) -> float:
        opened_at = self._inner._state_storage.opened_at
        if self._inner.current_state != pybreaker.STATE_OPEN or opened_at is None:
            return 0.0
        rested_s = (dt.datetime.now(dt.UTC) - opened_at).total_seconds()
        return float(self._inner.reset_timeout - rested_s)

    def _succeeded(self, *, probe: bool) -> None:
        # A call from before the trip says nothing about the half-open state: only the probe decides there.
        if probe or self._inner.current_state == pybreaker.STATE_CLOSED:
            self._inner.state._handle_success()

    def _failed(self, error: BaseException, *, probe: bool) -> None:
        if not probe and self._inner.current_state != pybreaker.STATE_CLOSED:
            return
        # The states raise the error again when they trip; the block's own `raise` does that.
        with contextlib.suppress(type(error)):
            self._inner.state._handle_error(error, reraise=False)
