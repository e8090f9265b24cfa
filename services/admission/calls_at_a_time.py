"""How many calls of one tenant a service works on at a time; one more concern in services/runtime/middleware.py."""

from collections import Counter
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from services.runtime.access import EDGE
from services.runtime.errors import QuotaViolation, ResourceExhausted
from services.runtime.middleware import Exchange, Policy

_RETRY_AFTER_S = 1.0


class CallsAtATime:
    """Lets `most` calls of each tenant in, streams and others alike, and refuses the next one until one has ended.

    The edge's calls count and no others. What a service asks another one for is part of a call that was counted there,
    or of a job, of which a tenant has only so many running; to refuse it would break what was let in, and leave open
    what has to end: a settlement, a deletion.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> dict[str, int]:
        """How many calls of each tenant are worked on; who has none is not there."""
        return dict(self._open)

    def __call__(self, exchange: Exchange, _: Policy) -> AbstractAsyncContextManager[None] | None:
        """Implements Concern. Where it stands the caller is known."""
        identity = exchange.call.identity
        return (
            None if identity is None or exchange.call.peer != EDGE else _Place(self._open, self._most, identity.tenant)
        )


class _Place(AbstractAsyncContextManager[None]):
    """One call's. A class, because that costs a third of what a generator does; it never waits, so that nobody can
    leave between its taking and its being known as taken."""

    __slots__ = ("_most", "_open", "_tenant")

    def __init__(self, open_calls: Counter[str], most: int, tenant: str) -> None:
        self._open, self._most, self._tenant = open_calls, most, tenant

    async def __aenter__(self) -> None:
        if self._open[self._tenant] >= self._most:
            raise ResourceExhausted(
                "TOO_MANY_CALLS",
                f"{self._most} calls of the tenant are under way at this service. Wait until some have ended.",
                retry_after_s=_RETRY_AFTER_S,
                quota=QuotaViolation(f"tenants/{self._tenant}", f"{self._most} calls at a time"),
            )
        self._open[self._tenant] += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open[self._tenant] -= 1
        if not self._open[self._tenant]:
            del self._open[self._tenant]
