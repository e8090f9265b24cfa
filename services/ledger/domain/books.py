"""The ledger's use cases: setting money aside, settling, recording and telling."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from services.ledger.domain import refusals
from services.ledger.domain.checks import check_text
from services.ledger.domain.ports import Clock, HoldStore, PriceBooks, UsageStore
from services.ledger.domain.pricing import cost_micros, costs_micros
from services.ledger.domain.usage_batch import EventBatch, RecordBatch, micros_of
from services.ledger.domain.usage_window import UsageWindow, time_out_of_range
from services.ledger.domain.values import (
    Caller,
    Hold,
    HoldState,
    Recorded,
    Tokens,
    UsageEvent,
    UsageRecord,
)
from services.runtime.errors import AlreadyExists, FailedPrecondition

EXPIRE_BATCH = 500
EXPIRE_BATCHES = 20
"""Most batches of one round: what is left over waits for the next one."""


class Books:
    """What each tenant holds and has spent."""

    def __init__(
        self,
        *,
        holds: HoldStore,
        usage: UsageStore,
        prices: PriceBooks,
        clock: Clock,
        window: UsageWindow = UsageWindow(),  # noqa: B008  # a frozen value
    ) -> None:
        self._window = window
        self._holds = holds
        self._usage = usage
        self._prices = prices
        self._clock = clock

    async def reserve(
        self, caller: Caller, hold_id: UUID, model: str, most: Tokens, ttl: timedelta, *, job: str = ""
    ) -> Hold:
        """Sets the highest possible price of one call aside. The same id and arguments again answer the same hold.

        Raises AlreadyExists HOLD_ID_REUSED (same id, other arguments), FailedPrecondition MODEL_UNPRICED or
        TENANT_UNKNOWN, ResourceExhausted BUDGET_EXCEEDED; in this order.
        """
        now = self._clock()
        book = await self._prices.current(caller.tenant)
        try:
            amount = cost_micros(book.price(model), most)
        except FailedPrecondition:
            # The price may be gone since the hold was made: a replay is answered all the same.
            known = await self._holds.find(caller.tenant, hold_id)
            if known is None:
                raise
            return _replayed(known, model, most, ttl, job)
        asked = Hold(
            tenant=caller.tenant,
            hold_id=hold_id,
            state=HoldState.HELD,
            model=model,
            most=most,
            amount_micros=amount,
            price_book_version=book.version,
            actor=caller.actor,
            create_time=now,
            expire_time=now + ttl,
            project=caller.project,
            job=job,
        )
        return _replayed(await self._holds.reserve(asked), model, most, ttl, job)

    async def settle(self, caller: Caller, hold_id: UUID, event: UsageEvent) -> tuple[Hold, UsageRecord]:
        """Records the call that the hold was made for and closes the hold. The same event again answers the same.

        The cost comes from the event's model and tokens at the hold's version of the price book. It is the truth even
        where it is more than was held: a call that was made is never left out.

        Raises NotFound HOLD_NOT_FOUND, FailedPrecondition HOLD_OF_OTHER_JOB (the event names another job than the
        hold), HOLD_ALREADY_SETTLED (by another event), HOLD_RELEASED or MODEL_UNPRICED, AlreadyExists EVENT_ID_REUSED,
        InvalidArgument OCCUR_TIME_OUT_OF_RANGE.
        """
        now = self._clock()
        self._check_events([event], "event", now)
        hold = await self._holds.made(caller.tenant, hold_id)
        if hold is None:
            raise refusals.hold_not_found()
        if event.job != hold.job:
            raise FailedPrecondition(
                "HOLD_OF_OTHER_JOB",
                "The event's job is not the one that the hold was made for, whose budget it counts against."
                " Name the same job in Reserve and in Settle.",
            )
        book = await self._prices.version(caller.tenant, hold.price_book_version)
        record = UsageRecord(
            tenant=caller.tenant,
            event=event,
            cost_micros=cost_micros(book.price(event.model), event.tokens),
            price_book_version=book.version,
            hold_id=hold_id,
            actor=caller.actor,
            record_time=now,
            project=hold.project,
        )
        kept = await self._holds.settle(hold, record)
        if kept.event != event:
            raise FailedPrecondition(
                "HOLD_ALREADY_SETTLED", "Another usage event settled this hold. Make one hold for each call."
            )
        return replace(hold, state=HoldState.SETTLED), kept

    async def release(self, caller: Caller, hold_id: UUID) -> Hold:
        """Frees the hold of a call that was never sent; again, it answers the same.

        A hold that ran out is freed too: who releases knows what the ledger could not.

        Raises NotFound HOLD_NOT_FOUND, FailedPrecondition HOLD_ALREADY_SETTLED.
        """
        hold = await self._holds.release(caller.tenant, hold_id)
        if hold is None:
            raise refusals.hold_not_found()
        if hold.state is HoldState.SETTLED:
            raise FailedPrecondition(
                "HOLD_ALREADY_SETTLED", "The call of this hold is in the books; it cannot be released."
            )
        return hold

    async def record(self, caller: Caller, events: Collection[UsageEvent]) -> Recorded:
        """Records events that had no hold, at the current prices: each id once, all or none.

        They are recorded whatever the budget, because they have happened.

        Raises AlreadyExists EVENT_ID_REUSED (an id with another event), FailedPrecondition MODEL_UNPRICED or
        TENANT_UNKNOWN, InvalidArgument OCCUR_TIME_OUT_OF_RANGE.
        """
        now = self._clock()
        batch = EventBatch.of(events)
        self._check_batch(batch, now)
        book = await self._prices.current(caller.tenant)
        prices = {model: book.price(model) for model in set(batch.models)}
        distinct = _distinct(batch)
        kept = await self._usage.record(
            RecordBatch(
                tenant=caller.tenant,
                events=distinct,
                costs_micros=costs_micros([prices[m] for m in distinct.models], distinct.sent, distinct.received),
                price_book_version=book.version,
                actor=caller.actor,
                record_time=now,
                project=caller.project,
            )
        )
        return replace(kept, already_known=kept.already_known + len(batch) - len(distinct))

    async def expire(self) -> int:
        """Turns holds past their time into UNKNOWN, in batches; answers how many."""
        total = 0
        for _ in range(EXPIRE_BATCHES):
            turned = await self._holds.expire(self._clock(), EXPIRE_BATCH)
            total += turned
            if turned < EXPIRE_BATCH:
                break
        return total

    async def held_micros(self) -> int:
        """What open holds of all tenants set aside."""
        return await self._holds.held_micros()

    def _check_batch(self, batch: EventBatch, now: datetime) -> None:
        """The same as `_check_events`, which is asked only where something is wrong, and says what."""
        first, last = (micros_of(time) for time in self._window.bounds(now))
        texts = "".join(batch.request_ids) + "".join(
            value for tags in {id(tags): tags for tags in batch.tags}.values() for value in tags.values()
        )
        if min(batch.occur_micros) < first or max(batch.occur_micros) > last or "\0" in texts:
            self._check_events(batch, "events[{}]", now)

    def _check_events(self, events: Iterable[UsageEvent], path: str, now: datetime) -> None:
        """`path` is where an event stands in the request, with its number for the braces."""
        first, last = self._window.bounds(now)
        for index, event in enumerate(events):
            if not first <= event.occur_time <= last:
                raise time_out_of_range(f"{path.format(index)}.occur_time", first)
            if "\0" in event.request_id or (event.tags and "\0" in "".join(event.tags.values())):
                check_text(event.request_id, f"{path.format(index)}.request_id")
                for key, value in event.tags.items():
                    check_text(value, f"{path.format(index)}.tags[{key}]")


def _replayed(hold: Hold, model: str, most: Tokens, ttl: timedelta, job: str) -> Hold:
    if (hold.model, hold.most, hold.ttl, hold.job) != (model, most, ttl, job):
        raise AlreadyExists(
            "HOLD_ID_REUSED", "This hold id was used with other arguments. Make a new id for each call."
        )
    return hold


def _distinct(events: EventBatch) -> EventBatch:
    """Each id once; one id with two events is refused."""
    if len(set(events.event_ids)) == len(events):
        return events
    by_id: dict[UUID, UsageEvent] = {}
    for event in events:
        known = by_id.setdefault(event.event_id, event)
        if known is not event and known != event:
            raise refusals.event_id_reused()
    return EventBatch.of(by_id.values())
