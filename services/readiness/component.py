"""One thing that a service depends on, asked again and again whether it is up."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from services.runtime.errors import InternalError, PagemeshError

PROBE_TIMEOUT_S = 1.0
PROBES_TO_DOWN = 2
"""Failed probes in a row until a component that was up counts as down: one slow answer takes no service out."""

log = structlog.get_logger()


@dataclass(slots=True)
class Component:
    """`check` raises where it is down."""

    name: str
    check: Callable[[], Awaitable[None]]
    required: bool
    up: bool | None = None
    """None while nothing is known for sure."""
    since: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    _why: dict[str, str] = field(default_factory=dict)
    """Why its last probe failed."""
    _failures: int = 0
    _asking: "asyncio.Future[None] | None" = None

    def report(self) -> dict[str, object]:
        """The state as JSON: up, required, since when, and why it is down."""
        why = {} if self.up else self._why
        return {"up": bool(self.up), "required": self.required, "since": self.since.isoformat(), **why}

    async def probe(self) -> None:
        """Asks once, and tells the log where that changes something. It is over after PROBE_TIMEOUT_S.

        A check that is late is cancelled and left to itself, since a driver may take long even for that: psycopg asks a
        server that is frozen to cancel. While it does the component is silent, and nobody else is sent after it.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self.check())
        await asyncio.wait([self._asking], timeout=PROBE_TIMEOUT_S)
        failure = _failure(self._asking)
        if not self._asking.done():
            self._asking.cancel()
        before, self._why = self._why, {} if failure is None else _told(failure)
        self._failures = self._failures + 1 if failure else 0
        up = failure is None or bool(self.up and self._failures < PROBES_TO_DOWN)
        told_already = up == self.up and (up or before["reason"] == self._why["reason"])
        if up != self.up:
            self.up, self.since = up, dt.datetime.now(dt.UTC)
        if not told_already:
            log.log(20 if up else 40, "component_up" if up else "component_down", component=self.name, **self._why)

    def close(self) -> None:
        """Ends what it is still asking."""
        if self._asking is not None:
            self._asking.cancel()


def _failure(asking: "asyncio.Future[None]") -> BaseException | None:
    if asking.done() and not asking.cancelled():
        return asking.exception()
    return TimeoutError()


def _told(failure: BaseException) -> dict[str, str]:
    """What an operator needs. Texts that are not ours are left out: they may quote an address with its password."""
    told = failure if isinstance(failure, PagemeshError) else InternalError("CHECK_FAILED", "`error` says why.")
    return {"error": type(told.__cause__ or failure).__name__, "reason": told.reason, "message": told.message}
