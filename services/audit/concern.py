"""The concern that tells the trail of every public call; one more in the order of services/runtime/middleware.py."""

import asyncio
import functools
import re
import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message

from services.audit.event import Event
from services.audit.resources import resource_of
from services.audit.trail import Trail
from services.runtime import status
from services.runtime.access import EDGE
from services.runtime.errors import PagemeshError
from services.runtime.middleware import Concern, Exchange, Policy

CLIENT_HEADER = "x-pagemesh-client"
_CLIENT = re.compile(r"^[0-9a-f]{32}$")
_INVALID_ARGUMENT = 3
_CANCELLED = 1
_LATE_S = 0.9
"""How long after its deadline a call that was done may wait for its event; callers are promised a second."""


def audited(trail: Trail, *, reads: frozenset[str] = frozenset()) -> Concern:
    """Tells `trail` of each call that the edge sent for a tenant: the services' calls to each other are part of it.

    A method that may change something is answered when its event is safe. `reads` are methods, such as
    `pagemesh.extractor.v1.ExtractorService/ExtractPages`, that are not declared free of side effects and are treated
    so: what they keep is a copy of what was there.
    """
    changes = functools.lru_cache(maxsize=1000)(functools.partial(_changes, reads))

    def concern(exchange: Exchange, _: Policy) -> "_Audited | None":
        return None if exchange.access.infrastructure else _Audited(exchange, trail, changes(exchange.call.method))

    return concern


def _changes(reads: frozenset[str], path: str) -> bool:
    """Whether a method may change something, as far as its contract knows."""
    action = path.removeprefix("/")
    if action in reads:
        return False
    service, _, name = action.partition("/")
    try:
        method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return False
    return bool(method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS)


class _Audited(AbstractAsyncContextManager[None]):
    """Around one call. A class, because that costs a third of what a generator does."""

    __slots__ = ("_begun", "_changes", "_exchange", "_resource", "_seen", "_trail")

    def __init__(self, exchange: Exchange, trail: Trail, changes: bool) -> None:
        self._exchange = exchange
        self._trail = trail
        self._changes = changes
        self._seen = False
        self._resource = ""
        self._begun = time.perf_counter()

    async def __aenter__(self) -> None:
        self._exchange.checks.append(self._note)

    def _note(self, message: Message) -> None:
        if not self._seen:  # of a stream, the first message says what it is about
            self._seen = True
            self._resource = resource_of(message)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        call = self._exchange.call
        if call.peer != EDGE or call.identity is None:
            return
        code, reason = _outcome(error)
        # What is not as the contract says may be anything that somebody typed.
        resource = "" if code == _INVALID_ARGUMENT else self._resource or resource_of(self._exchange.response)
        client = self._exchange.metadata.get(CLIENT_HEADER, "")
        event = Event(
            tenant=call.identity.tenant,
            action=call.method.removeprefix("/"),
            actor=call.identity.actor,
            request_id=call.request_id,
            client=client if _CLIENT.match(client) else "",
            resource=resource,
            code=code,
            reason=reason,
            duration_micros=int((time.perf_counter() - self._begun) * 1_000_000),
        )
        remaining_s = call.remaining_s()
        try:
            await self._trail.record(event, durable=self._changes, within_s=(remaining_s or 0.0) + _LATE_S)
        except PagemeshError:
            if error is None:
                raise
            # The call is refused anyway, and why is the better answer; the trail has counted and told it.


def _outcome(error: BaseException | None) -> tuple[int, str]:
    """google.rpc.Code and machine reason."""
    if error is None:
        return 0, ""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return _CANCELLED, ""
    if not isinstance(error, Exception):
        return 2, ""
    ours = status.known(error)
    return status.code_of(ours).value[0], ours.reason
