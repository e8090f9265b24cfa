"""Liveness and readiness out of named components, each probed in the background."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable

from prometheus_client import Gauge

from services.readiness.component import Component

PROBE_EVERY_S = 1.0
"""From the beginning of one round of probes to that of the next; one that took longer is followed at once. So what
stops answering is down PROBE_EVERY_S + PROBES_TO_DOWN * PROBE_TIMEOUT_S later, 3 s, at the latest."""

_UP = Gauge("pagemesh_component_up", "1 where the component answered its last probe.", ["component"])


class Health:
    """Ready while every required component is up and the service is not stopping."""

    def __init__(self) -> None:
        self._components: dict[str, Component] = {}
        self._stopping = False
        self._listeners: list[Callable[[bool], Awaitable[None]]] = []

    def add(self, name: str, check: Callable[[], Awaitable[None]], *, required: bool = True) -> None:
        """Adds a component. `check` raises where it is down; it has PROBE_TIMEOUT_S."""
        self._components[name] = Component(name, check, required)

    def on_change(self, listener: Callable[[bool], Awaitable[None]]) -> None:
        """Calls `listener(ready)` after each round of probes."""
        self._listeners.append(listener)

    @property
    def ready(self) -> bool:
        """Whether calls should be sent here."""
        return not self._stopping and all(c.up for c in self._components.values() if c.required)

    def report(self) -> dict[str, object]:
        """The state as JSON: ready, time, and what each component reports."""
        components = {name: component.report() for name, component in self._components.items()}
        now = dt.datetime.now(dt.UTC).isoformat()
        return {"ready": self.ready, "stopping": self._stopping, "time": now, "components": components}

    async def stop(self) -> None:
        """Not ready from now on."""
        self._stopping = True
        await self._tell()

    async def probe(self) -> None:
        """One round over all components."""
        await asyncio.gather(*(component.probe() for component in self._components.values()))
        for name, component in self._components.items():
            _UP.labels(name).set(bool(component.up))
        await self._tell()

    async def run(self) -> None:
        """Probes until cancelled."""
        time = asyncio.get_running_loop().time
        try:
            while True:
                due = time() + PROBE_EVERY_S
                await self.probe()
                await asyncio.sleep(due - time())
        finally:
            for component in self._components.values():
                component.close()

    async def _tell(self) -> None:
        for listener in self._listeners:
            await listener(self.ready)
