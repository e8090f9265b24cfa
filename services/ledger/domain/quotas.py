"""Hourly quotas, counted exactly enough without asking the database about every call: docs/adr/0017."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from services.ledger.domain.identity_ports import QuotaStore
from services.ledger.domain.plans import Kind
from services.ledger.domain.principals import Principal
from services.runtime.errors import Unavailable

_SHARE = 50
"""A replica takes at most this part of a quota at a time: what is stranded with one that gets no calls is at most that.
"""
_MOST_LEASED = 1000
_REFUSED_FOR_S = 5.0
"""How long a quota that was used up is believed to be so: an hour's end is another key of the table, and a larger quota
another limit, so this bounds only what a correction by hand has to wait for."""
_LEASE_TIMEOUT_S = 2.0


@dataclass(slots=True)
class _Held:
    """What this process holds of one tenant's quota of one kind."""

    quota: int
    left: int
    until_s: float
    refused_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The quota of that kind is used up; there is a new one in `retry_after_s` whole seconds."""

    kind: Kind
    retry_after_s: int


class Quotas:
    """Counts the calls of tenants whose plan limits them; at most `max_tenants` are remembered."""

    def __init__(self, *, store: QuotaStore, monotonic_s: Callable[[], float], max_tenants: int = 10_000) -> None:
        self._store = store
        self._monotonic_s = monotonic_s
        self._max_held = 2 * max_tenants
        self._held: OrderedDict[tuple[str, Kind], _Held] = OrderedDict()
        self._leasing: dict[tuple[str, Kind], asyncio.Lock] = {}

    async def take(self, principal: Principal, *, upload: bool) -> Exhausted | None:
        """Counts one call, and one upload where it is one; answers what is used up, if anything is.

        A call that is refused for its upload has counted as a call. Raises Unavailable where the database has to be
        asked and does not answer.
        """
        kinds = (Kind.CALLS, Kind.UPLOADS) if upload else (Kind.CALLS,)
        for kind in kinds:
            quota = principal.plan.per_hour(kind)
            if quota is None:
                continue
            wait_s = await self._use(principal.tenant, kind, quota)
            if wait_s is not None:
                return Exhausted(kind, max(1, math.ceil(wait_s)))
        return None

    async def _use(self, tenant: str, kind: Kind, quota: int) -> float | None:
        """Uses one; answers None, or how long it is until the next hour."""
        place = (tenant, kind)
        known, wait_s = self._use_held(place, quota)
        if known:
            return wait_s
        lock = self._leasing.setdefault(place, asyncio.Lock())
        try:
            async with lock:
                # Who waited for the lock finds what the one before took.
                known, wait_s = self._use_held(place, quota)
                if not known:
                    await self._lease(place, quota)
                    known, wait_s = self._use_held(place, quota)
        finally:
            if not lock.locked():
                self._leasing.pop(place, None)
        # What was leased may be over already, at the very end of an hour.
        return wait_s if known else 1.0

    def _use_held(self, place: tuple[str, Kind], quota: int) -> tuple[bool, float | None]:
        """Whether it can be said without the store; if so, None for one that was used, or how long to wait."""
        held, now_s = self._held.get(place), self._monotonic_s()
        if held is None or held.quota != quota or now_s >= held.until_s:
            return False, None
        self._held.move_to_end(place)
        if held.left > 0:
            held.left -= 1
            return True, None
        return now_s < held.refused_until_s, held.until_s - now_s

    async def _lease(self, place: tuple[str, Kind], quota: int) -> None:
        now_s = self._monotonic_s()
        wanted = min(max(1, quota // _SHARE), _MOST_LEASED)
        # What is left of another plan's lease goes back, so that a smaller quota is not used up by what was never done.
        # It is forgotten first: an attempt of which nobody knows whether it was made is not made again.
        before = self._held.pop(place, None)
        returned = before.left if before is not None and before.until_s > now_s + _LEASE_TIMEOUT_S else 0
        try:
            async with asyncio.timeout(_LEASE_TIMEOUT_S):
                lease = await self._store.lease(*place, quota=quota, wanted=wanted, returned=returned)
        except TimeoutError as exc:
            raise Unavailable("QUOTA_UNAVAILABLE", "Calls cannot be counted. Try again.", retry_after_s=1.0) from exc
        refused_s = 0.0 if lease.granted else now_s + _REFUSED_FOR_S
        self._held[place] = _Held(quota, lease.granted, now_s + lease.lasts_s, refused_s)
        self._held.move_to_end(place)
        if len(self._held) > self._max_held:
            self._held.popitem(last=False)
