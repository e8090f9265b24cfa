"""What the code says of its work: spans. Nothing is recorded, and next to nothing done, until a tracer is set.

A span carries names, numbers and ids, never text, a query, a password, a key or an address.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import TracebackType
from typing import Protocol

from services.runtime.call import enter, of_task
from services.telemetry.context import TraceContext

Attributes = Mapping[str, str | int | float | bool]


class Kind(Enum):
    """Which side of a call a span tells of, if any."""

    SERVER = "SERVER"
    CLIENT = "CLIENT"
    INTERNAL = "INTERNAL"


class Span:
    """A piece of work from its beginning to the end of its block. This one is not recorded."""

    trace: TraceContext | None = None
    """What work below it names as its parent; None where it is not recorded."""

    def __enter__(self) -> "Span":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends it. An error is told by its reason, or else its type."""

    def say(self, attributes: Attributes) -> None:
        """Adds what is known only now."""

    def answered(self, code: int, reason: str) -> None:
        """How an RPC ended: google.rpc.Code and our machine reason."""


NO_SPAN = Span()
_NOTHING: Attributes = {}


class Tracer(Protocol):
    """What records spans."""

    def begin(self, name: str, kind: Kind, parent: TraceContext | None, attributes: Attributes) -> Span:
        """A span that has begun, below `parent` or as the first of a trace; NO_SPAN where it is not sampled."""
        ...

    def close(self) -> None:
        """Brings away what is there, within a bounded time."""
        ...


_tracer: Tracer | None = None


def record_with(tracer: Tracer | None) -> None:
    """From here on spans are recorded by `tracer`; with None by nobody."""
    global _tracer  # noqa: PLW0603  # one for a process, as with logs and metrics
    _tracer = tracer


def recording() -> bool:
    """Whether anything is recorded."""
    return _tracer is not None


def close() -> None:
    """Ends the recording."""
    if _tracer is not None:
        _tracer.close()
    record_with(None)


def of_server(method: str, traceparent: str | None) -> Span:
    """The answering of an RPC, `/package.Service/Method`: sampled as its caller says, or as the tracer does."""
    parent = TraceContext.parsed(traceparent)
    if _tracer is None or (parent is not None and not parent.sampled):
        return NO_SPAN
    return _tracer.begin(method.removeprefix("/"), Kind.SERVER, parent, _of_rpc(method))


def of_client(method: Callable[..., object]) -> Span:
    """An RPC to another service, for the call that this task works for. `method` has its `path`."""
    if _tracer is None:
        return NO_SPAN
    path = getattr(method, "path", "")
    return below(path.removeprefix("/"), kind=Kind.CLIENT, attributes=_of_rpc(path))


def below(name: str, *, kind: Kind = Kind.INTERNAL, attributes: Attributes = _NOTHING) -> Span:
    """A part of the call that this task works for; not recorded outside of one, or where that is not."""
    call = of_task()
    if _tracer is None or call is None or not call.trace.sampled:
        return NO_SPAN
    return _tracer.begin(name, kind, call.trace, attributes)


def below_trace(traceparent: str, name: str, *, attributes: Attributes = _NOTHING) -> Span:
    """Work that goes on with a trace that was written down, for nobody who waits."""
    parent = TraceContext.parsed(traceparent)
    if _tracer is None or parent is None or not parent.sampled:
        return NO_SPAN
    return _tracer.begin(name, Kind.INTERNAL, parent, attributes)


@contextlib.contextmanager
def within(span: Span) -> Iterator[Span]:
    """Runs a block as `span`: what begins inside is below it."""
    call = of_task()
    with span:
        if span.trace is None or call is None:
            yield span
            return
        enter(dataclasses.replace(call, trace=span.trace))
        try:
            yield span
        finally:
            enter(call)


@functools.lru_cache(maxsize=1000)
def _of_rpc(method: str) -> Attributes:
    service, _, name = method.removeprefix("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
