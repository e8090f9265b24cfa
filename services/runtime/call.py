"""Who is calling, for which tenant, until when: one value for each incoming call, carried by the task."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from services.runtime.errors import Unauthenticated
from services.telemetry.context import TraceContext

_UNTRACED = TraceContext("", "")


@dataclass(frozen=True, slots=True)
class Identity:
    """On whose behalf a call is made; `tenant` is the bare id, `actor` a resource name such as `apiKeys/…`."""

    tenant: str
    actor: str
    project: str
    scopes: frozenset[str]


@dataclass(slots=True)
class Call:
    """One incoming call, filled by the concerns around it as they come to know it. `deadline` is in the event loop's
    time; None means that there is none."""

    method: str
    request_id: str = ""
    trace: TraceContext = _UNTRACED
    peer: str = ""
    identity: Identity | None = None
    deadline: float | None = None

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, never below 0; None without a deadline."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


_current: ContextVar[Call] = ContextVar("pagemesh_call")


def current_call() -> Call:
    """The call that this task works for. LookupError outside one."""
    return _current.get()


def of_task() -> Call | None:
    """The call that this task works for, if any."""
    return _current.get(None)


def current_identity() -> Identity:
    """Whom this task works for. Raises Unauthenticated where nobody is named."""
    call = _current.get(None)
    if call is None or call.identity is None:
        raise Unauthenticated("NO_IDENTITY", "The call names no tenant. Call through the edge with an API key.")
    return call.identity


def enter(call: Call) -> None:
    """Makes `call` the current one for the rest of this task."""
    _current.set(call)


@contextlib.contextmanager
def acting_as(identity: Identity, *, request_id: str) -> Iterator[Call]:
    """For background work that acts for a tenant without an incoming call."""
    call = Call("background", request_id, TraceContext.new(), identity=identity)
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
