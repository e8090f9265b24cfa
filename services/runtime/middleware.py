"""What surrounds every call, one small function for each concern, and the one order in which they stand."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import grpc
import protovalidate
import structlog
from google.protobuf.message import Message

from services.runtime import call, metrics, status
from services.runtime.access import Access
from services.runtime.call import Call, Identity
from services.runtime.errors import DeadlineExceeded, FieldViolation, InternalError, InvalidArgument, PermissionDenied
from services.runtime.tls import peer_name
from services.telemetry import spans
from services.telemetry.context import TraceContext

MAX_CALL_S = 300.0
"""Longest deadline that is honoured; calls without one get it too."""

_MAX_TOLD_BYTES = 4 * 1024
"""Of a longer message only the first violation is told."""
_MAX_TOLD = 20
"""Errors travel in trailers, which have to be short."""
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,128}$")
log = structlog.get_logger()


@dataclass(slots=True)
class Exchange:
    """One call on its way through the concerns."""

    access: Access
    context: "grpc.aio.ServicerContext[Any, Any]"
    metadata: Mapping[str, str]
    call: Call
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    checks: list[Callable[[Message], None]] = field(default_factory=list)
    """Run on each message of the caller before the servicer sees it."""
    response: object = None
    """What a unary call is answered with, once the servicer has said it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom this service lets in."""

    trust_domain: str
    peers: frozenset[str]


Concern = Callable[[Exchange, Policy], AbstractAsyncContextManager[None] | None]
"""Acts before the call, and answers what surrounds the rest of it, if anything. What never waits is no coroutine: that
costs every call less."""


def request_id(exchange: Exchange, _: Policy) -> None:
    """Takes the caller's trace and id over, or begins a trace and takes its id. The edge tells the client; nothing is
    sent back from here, since headers that go out early would fix the HTTP status of a stream before its first
    message."""
    exchange.call.trace = TraceContext.continued(exchange.metadata.get("traceparent"))
    given = exchange.metadata.get("x-request-id", "")
    exchange.call.request_id = given if _REQUEST_ID.match(given) else exchange.call.trace.trace_id
    call.enter(exchange.call)


def traced(exchange: Exchange, _: Policy) -> AbstractAsyncContextManager[None] | None:
    """A span for each call, below its caller's, while spans are recorded."""
    return _traced(exchange) if spans.recording() and not exchange.access.infrastructure else None


@contextlib.asynccontextmanager
async def _traced(exchange: Exchange) -> AsyncIterator[None]:
    with spans.of_server(exchange.call.method, exchange.metadata.get("traceparent")) as span:
        if span.trace is not None:
            exchange.call.trace = span.trace
        try:
            yield
        finally:
            identity = exchange.call.identity
            span.say({"pagemesh.tenant": identity.tenant if identity else "", "pagemesh.peer": exchange.call.peer})
            span.answered(exchange.code.value[0], exchange.reason)


class Surrounding(AbstractAsyncContextManager[None]):
    """What stands around the rest of a call. A class, because that costs a third of what a generator does."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange, _: Policy) -> None:
        self.exchange = exchange

    async def __aenter__(self) -> None:
        """Nothing, where all is to be done at the end."""


class Told(Surrounding):
    """Counts the call, its status and its time, and writes one line when it ends."""

    __slots__ = ("_begun", "_in_flight", "_seconds")

    async def __aenter__(self) -> None:
        self._begun = time.perf_counter()
        self._in_flight, self._seconds = metrics.of_method(self.exchange.call.method)
        self._in_flight.inc()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._in_flight.dec()
        took = time.perf_counter() - self._begun
        made, code, reason = self.exchange.call, self.exchange.code.name, self.exchange.reason
        self._seconds.observe(took)
        metrics.handled(made.method, code).inc()
        write = log.debug if self.exchange.access.infrastructure else log.info
        write("call", method=made.method, code=code, reason=reason, peer=made.peer, ms=round(took * 1000, 2))


class Errors(Surrounding):
    """Turns what is raised into a status; what nobody foresaw is told to the log alone."""

    __slots__ = ()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        exchange = self.exchange
        if isinstance(error, asyncio.CancelledError | GeneratorExit):  # the latter where the caller left amid messages
            exchange.code = grpc.StatusCode.CANCELLED
        elif isinstance(error, grpc.aio.AbortError):
            exchange.code = grpc.StatusCode.UNKNOWN
        elif isinstance(error, Exception):  # the border of the service: everything becomes a status
            ours = status.known(error)
            exchange.code, exchange.reason = status.code_of(ours), ours.reason
            if isinstance(ours, InternalError):
                log.error("internal_error", method=exchange.call.method, exc_info=error)
            await status.abort(exchange.context, ours)


class _Deadline(Surrounding):
    __slots__ = ("_timer",)

    async def __aenter__(self) -> None:
        remaining = self.exchange.context.time_remaining()
        limit_s = MAX_CALL_S if remaining is None else min(max(remaining, 0.0), MAX_CALL_S)
        self.exchange.call.deadline = asyncio.get_running_loop().time() + limit_s
        self._timer = asyncio.timeout(limit_s)
        await self._timer.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            await self._timer.__aexit__(kind, error, traceback)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                "DEADLINE_EXCEEDED", "The deadline passed before the work was done. Allow more time."
            ) from exc


def deadline(exchange: Exchange, policy: Policy) -> Surrounding | None:
    """Ends the work when the caller's time is up."""
    return None if exchange.access.infrastructure else _Deadline(exchange, policy)


def auth(exchange: Exchange, policy: Policy) -> None:
    """Lets known peers in, believes the tenant that they name, and asks for the scope that the contract wants."""
    peer = peer_name(exchange.context.auth_context(), policy.trust_domain)
    if peer not in policy.peers:
        raise PermissionDenied("PEER_NOT_ALLOWED", "This service does not talk to that certificate.")
    exchange.call.peer, exchange.call.identity = peer, _identity(exchange.metadata)
    exchange.access.check(peer, exchange.call.identity)


def validation(exchange: Exchange, _: Policy) -> None:
    """Holds each message against its contract."""
    exchange.checks.append(_validate)


def in_order(*audit: Concern, admission: Concern | None = None) -> tuple[Concern, ...]:
    """The concerns of every call; `audit` is the service's own, where it keeps a trail, and `admission` what turns away
    those that are too many."""
    return (
        request_id,  # first: everything after it is told apart by the id
        traced,  # outside of all work, which is below its span
        Told,  # outside of what follows, so that refusals are logged and counted as well
        Errors,  # outside of all that raises
        *audit,  # sees how the call ended before the caller does, and may refuse an answer that it could not write down
        deadline,  # from here on the caller's time runs
        auth,  # a stranger learns nothing of the contract's rules
        *((admission,) if admission else ()),  # whose calls there are too many of is known, and nothing was done yet
        validation,  # last: only messages that somebody may send are worth the work
    )


def _identity(metadata: Mapping[str, str]) -> Identity | None:
    tenant = metadata.get("x-pagemesh-tenant", "")
    if not tenant:
        return None
    scopes = frozenset(metadata.get("x-pagemesh-scopes", "").split())
    return Identity(tenant, metadata.get("x-pagemesh-actor", ""), metadata.get("x-pagemesh-project", ""), scopes)


def _validate(message: Message) -> None:
    try:
        # All that is wrong is told of a message that somebody wrote; of a long list, that much would take seconds.
        protovalidate.validate(message, fail_fast=message.ByteSize() > _MAX_TOLD_BYTES)
    except protovalidate.ValidationError as exc:
        fields = [_violation(violation) for violation in exc.to_proto().violations[:_MAX_TOLD]]
        raise InvalidArgument(
            "INVALID_FIELD", f"{fields[0].field or 'The request'}: {fields[0].description}", fields=fields
        ) from exc


def _violation(violation: Any) -> FieldViolation:
    path = ""
    for element in violation.field.elements if violation.field else ():
        path += ("." if path else "") + element.field_name
    return FieldViolation(path, violation.message or violation.rule_id)
