"""Liveness and readiness out of named components, each probed in the background."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from prometheus_client import Gauge

from services.runtime.errors import InternalError, PagemeshError

PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 1.0
PROBES_TO_DOWN = 2
"""Failed probes in a row until a component that was up counts as down: one slow answer takes no service out."""

_UP = Gauge("pagemesh_component_up", "1 where the component answered its last probe.", ["component"])
log = structlog.get_logger()


@dataclass(slots=True)
class _Component:
    check: Callable[[], Awaitable[None]]
    required: bool
    up: bool | None = None
    """None while nothing is known for sure."""
    failures: int = 0
    since: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    def report(self) -> dict[str, object]:
        return {"up": bool(self.up), "required": self.required, "since": self.since.isoformat()}


class Health:
    """Ready while every required component is up and the service is not stopping."""

    def __init__(self) -> None:
        self._components: dict[str, _Component] = {}
        self._stopping = False
        self._listeners: list[Callable[[bool], Awaitable[None]]] = []

    def add(self, name: str, check: Callable[[], Awaitable[None]], *, required: bool = True) -> None:
        """Adds a component. `check` raises where it is down; it has PROBE_TIMEOUT_S."""
        self._components[name] = _Component(check, required)

    def on_change(self, listener: Callable[[bool], Awaitable[None]]) -> None:
        """Calls `listener(ready)` after each round of probes."""
        self._listeners.append(listener)

    @property
    def ready(self) -> bool:
        """Whether calls should be sent here."""
        return not self._stopping and all(c.up for c in self._components.values() if c.required)

    def report(self) -> dict[str, object]:
        """The state as JSON: ready, time, and each component with up, required and since when."""
        components = {name: component.report() for name, component in self._components.items()}
        now = dt.datetime.now(dt.UTC).isoformat()
        return {"ready": self.ready, "stopping": self._stopping, "time": now, "components": components}

    async def stop(self) -> None:
        """Not ready from now on."""
        self._stopping = True
        await self._tell()

    async def probe(self) -> None:
        """One round over all components."""
        await asyncio.gather(*(self._probe_one(name, c) for name, c in self._components.items()))
        await self._tell()

    async def run(self) -> None:
        """Probes until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_EVERY_S)

    async def _tell(self) -> None:
        for listener in self._listeners:
            await listener(self.ready)

    async def _probe_one(self, name: str, component: _Component) -> None:
        why: dict[str, str] = {}
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await component.check()
        except Exception as exc:  # noqa: BLE001  # whatever a probe raises means down
            why = _why(exc)
        component.failures = component.failures + 1 if why else 0
        up = not why or (component.failures < PROBES_TO_DOWN and component.up)
        if up != component.up:
            component.up, component.since = up, dt.datetime.now(dt.UTC)
            log.log(20 if up else 40, "component_up" if up else "component_down", component=name, **why)
        _UP.labels(name).set(bool(up))


def _why(failure: Exception) -> dict[str, str]:
    """What an operator needs. Texts that are not ours are left out: they may quote an address with its password."""
    told = failure if isinstance(failure, PagemeshError) else InternalError("CHECK_FAILED", "`error` says why.")
    return {"error": type(told.__cause__ or failure).__name__, "reason": told.reason, "message": told.message}
