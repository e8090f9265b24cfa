"""What webhooks are told: events that other services publish, and what became of every message."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from itertools import groupby
from typing import Protocol
from uuid import UUID

from services.ledger.domain import paging
from services.ledger.domain.ports import Clock, UsageReports
from services.ledger.domain.usage_values import Dimension, Grouping
from services.ledger.domain.values import CURRENCY, Caller, Cursor, Selection
from services.runtime.errors import FailedPrecondition, NotFound

DEFAULT_PAGE = 50


class DeliveryState(Enum):
    """Where a message stands."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one webhook. `due_time` says something of PENDING ones alone."""

    tenant: str
    delivery_id: UUID
    webhook_id: str
    event_type: str
    body: str
    state: DeliveryState
    attempts: int
    last_failure: str
    create_time: datetime
    due_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Event:
    """What another service tells. `data` is what goes out, and may hold texts, numbers and None; where it is about a
    `job`, what the books have for it goes out too. The same `event_id` again is the same event."""

    tenant: str
    event_id: str
    event_type: str
    time: datetime
    data: Mapping[str, str | int | None]
    job: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it is posted."""

    event_id: str
    event_type: str
    body: str


class DeliveryStore(Protocol):
    """Messages to webhooks. Each method is one transaction and may raise Unavailable."""

    async def wanted(self, tenant: str) -> frozenset[str]:
        """The types of events that some webhook of the tenant wants."""
        ...

    async def write(self, tenant: str, told: Sequence[Told], now: datetime) -> int:
        """A message for each event to each webhook that wants its type, due now. One that was written before is left as
        it is. Answers how many are new."""
        ...

    async def list(
        self, tenant: str, state: DeliveryState | None, *, after: Cursor | None, limit: int
    ) -> Sequence[Delivery]:
        """Up to `limit` messages in that state or in any, newest first, those behind the cursor."""
        ...

    async def again(self, tenant: str, delivery_id: UUID, now: datetime) -> tuple[Delivery, bool] | None:
        """Makes a message that has ended, and whose webhook is there, wait anew. Answers it as it is now, and False
        where nothing was done."""
        ...


class WebhookMessages:
    """The messages of each tenant."""

    def __init__(self, *, store: DeliveryStore, usage: UsageReports, clock: Clock) -> None:
        self._store = store
        self._usage = usage
        self._clock = clock

    async def publish(self, events: Sequence[Event]) -> int:
        """Writes what the tenants' webhooks are to be sent; answers how many messages are new. May be repeated."""
        written = 0
        for tenant, own in groupby(sorted(events, key=lambda event: event.tenant), key=lambda event: event.tenant):
            wanted = await self._store.wanted(tenant)
            told = [await self._told(event) for event in own if event.event_type in wanted]
            if told:
                written += await self._store.write(tenant, told, self._clock())
        return written

    async def list(
        self, caller: Caller, state: DeliveryState | None, page_size: int, page_token: str
    ) -> tuple[Sequence[Delivery], str]:
        """One part of the messages, newest first, and the token for the next. Raises InvalidArgument
        INVALID_PAGE_TOKEN."""
        size = page_size or DEFAULT_PAGE
        listed = f"deliveries of {caller.tenant} {state}"
        after = paging.decode(page_token, listed) if page_token else None
        found = await self._store.list(caller.tenant, state, after=after, limit=size + 1)
        if len(found) <= size:
            return found, ""
        last = found[size - 1]
        return found[:size], paging.encode(Cursor(last.create_time, last.delivery_id), listed)

    async def retry(self, caller: Caller, delivery_id: UUID) -> Delivery:
        """Sends a message once more. Raises NotFound DELIVERY_NOT_FOUND, FailedPrecondition DELIVERY_NOT_RETRYABLE."""
        found = await self._store.again(caller.tenant, delivery_id, self._clock())
        if found is None:
            raise NotFound("DELIVERY_NOT_FOUND", "There is no such message. They are kept for seven days.")
        delivery, queued = found
        if not queued:
            raise FailedPrecondition(
                "DELIVERY_NOT_RETRYABLE", "It still waits to be sent, or its webhook was deleted: nothing was done."
            )
        return delivery

    async def _told(self, event: Event) -> Told:
        data = dict(event.data)
        if event.job:
            chosen = Selection(event.tenant, job=event.job)
            groups = await self._usage.groups(chosen, Grouping((Dimension.JOB,)))
            data |= {"currency": CURRENCY, "cost_micros": sum(group.cost_micros for group in groups)}
        body = {"type": event.event_type, "timestamp": event.time.isoformat(), "data": data}
        return Told(event.event_id, event.event_type, json.dumps(body))


def waiting_anew(delivery: Delivery, now: datetime) -> Delivery:
    """A message that has ended, as it is when it is to be sent again."""
    return replace(delivery, state=DeliveryState.PENDING, attempts=0, last_failure="", due_time=now, end_time=None)
