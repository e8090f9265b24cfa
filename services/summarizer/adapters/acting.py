"""Puts a caller of the domain on outgoing calls."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.runtime.call import Call, Identity, acting_as, current_call, enter
from services.summarizer.domain.ports import Deadline, no_deadline
from services.summarizer.domain.values import Caller
from services.telemetry.context import TraceContext


@dataclass(slots=True)
class _Acting(Call):
    """A call whose end may move while it runs, because others wait for it too."""

    latest: Deadline = field(default=no_deadline)
    rank: int = 0

    def remaining_s(self) -> float | None:
        """Seconds until the latest deadline that is now known, never below 0; None without one."""
        deadline = self.latest()
        return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())


@contextlib.contextmanager
def act_as(caller: Caller, deadline: Deadline = no_deadline) -> Iterator[None]:
    """Outgoing calls inside the block are made for `caller` and end by `deadline`.

    Inside the call that the caller made, its trace goes on; elsewhere the one that the caller names, or a new one.
    """
    identity = Identity(caller.tenant, caller.actor, caller.project, caller.scopes)
    trace = _trace_of(caller)
    with acting_as(identity, request_id=caller.request_id) as call:
        enter(
            _Acting(
                call.method, call.request_id, trace or call.trace, identity=identity, latest=deadline, rank=caller.rank
            )
        )
        yield


def remaining_s() -> float | None:
    """Seconds that are left for what this task works on; None without a limit."""
    try:
        return current_call().remaining_s()
    except LookupError:
        return None


def tenant() -> str:
    """For whom this task works; empty where it is for nobody."""
    try:
        identity = current_call().identity
    except LookupError:
        return ""
    return "" if identity is None else identity.tenant


def rank() -> int:
    """How urgent the work of this task is among its tenant's: 0 before 1 before 2."""
    try:
        call = current_call()
    except LookupError:
        return 0
    return call.rank if isinstance(call, _Acting) else 0


def _trace_of(caller: Caller) -> TraceContext | None:
    """The trace of the incoming call, where that is the caller's own; else the one that was written down."""
    try:
        call = current_call()
    except LookupError:
        return TraceContext.parsed(caller.trace)
    return call.trace if call.request_id == caller.request_id else TraceContext.parsed(caller.trace)
