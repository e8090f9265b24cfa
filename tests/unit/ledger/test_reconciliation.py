"""What an operator may do about a hold that nobody answers for, over the stores in memory."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import pytest

from services.ledger.domain.books import Books
from services.ledger.domain.reconciliation import MOST_HOLDS, OPERATION, Reconciliation
from services.ledger.domain.values import Hold, HoldState, Selection, Tokens
from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound
from tests.unit.ledger.samples import ACME, NOW, FixedClock, Stores, a_hold, an_event, open_stores

USED = Tokens(40_000, 9)
LATER = NOW + timedelta(seconds=60)


@dataclass
class Desk:
    reconciliation: Reconciliation
    books: Books
    stores: Stores

    async def unknown_hold(self) -> Hold:
        hold = a_hold()
        await self.stores.holds.reserve(hold)
        await self.stores.holds.expire(LATER, 10)
        return replace(hold, state=HoldState.UNKNOWN)

    async def settle(self, hold_id: UUID, used: Tokens = USED, tenant: str = "acme", request_id: str = "") -> int:
        record = await self.reconciliation.settle(tenant, hold_id, used, request_id=request_id)
        return record.cost_micros


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_stores("memory", lambda _: "") as stores:
        books = Books(holds=stores.holds, usage=stores.usage, prices=stores.prices, clock=FixedClock(LATER))
        yield Desk(Reconciliation(holds=stores.holds, books=books), books, stores)


async def test_only_holds_that_ran_out_are_shown(desk: Desk) -> None:
    unknown = await desk.unknown_hold()
    await desk.stores.holds.reserve(a_hold(ttl_s=3600))
    assert await desk.reconciliation.unanswered(None, limit=10) == [unknown]
    assert await desk.reconciliation.unanswered("other", limit=10) == []
    for limit in (0, MOST_HOLDS + 1):
        with pytest.raises(InvalidArgument, match="limit"):
            await desk.reconciliation.unanswered(None, limit=limit)


async def test_a_call_that_was_made_is_recorded_as_its_maker_would_have(desk: Desk) -> None:
    hold = await desk.unknown_hold()
    assert await desk.settle(hold.hold_id, request_id="request-1") == 800
    report = await desk.stores.reports.report(Selection("acme"), None, 50)
    (record,) = report.records
    assert (record.event.event_id, record.hold_id, record.actor) == (hold.hold_id, hold.hold_id, hold.actor)
    assert (record.event.model, record.event.occur_time) == (hold.model, hold.create_time)
    assert (record.event.operation, record.event.request_id, record.event.tokens) == (OPERATION, "request-1", USED)
    assert report.held_micros == 0
    assert await desk.reconciliation.unanswered("acme", limit=10) == []


async def test_settling_again_answers_the_same_and_otherwise_is_refused(desk: Desk) -> None:
    hold = await desk.unknown_hold()
    assert await desk.settle(hold.hold_id) == await desk.settle(hold.hold_id) == 800
    with pytest.raises(FailedPrecondition, match="HOLD_ALREADY_SETTLED"):
        await desk.settle(hold.hold_id, Tokens(1, 1))
    with pytest.raises(FailedPrecondition, match="HOLD_ALREADY_SETTLED"):
        await desk.reconciliation.release("acme", hold.hold_id)


async def test_the_maker_who_comes_back_in_time_is_right(desk: Desk) -> None:
    hold = await desk.unknown_hold()
    await desk.books.settle(ACME, hold.hold_id, an_event(hold.hold_id))
    with pytest.raises(FailedPrecondition, match="HOLD_ALREADY_SETTLED"):
        await desk.settle(hold.hold_id)


async def test_a_call_that_was_never_sent_frees_its_money(desk: Desk) -> None:
    hold = await desk.unknown_hold()
    for _ in range(2):
        released = await desk.reconciliation.release("acme", hold.hold_id)
        assert released == replace(hold, state=HoldState.RELEASED)
    assert await desk.stores.holds.held_micros() == 0
    with pytest.raises(FailedPrecondition, match="HOLD_RELEASED"):
        await desk.settle(hold.hold_id)


async def test_a_call_that_may_be_under_way_is_left_to_its_maker(desk: Desk) -> None:
    hold = a_hold(ttl_s=3600)
    await desk.stores.holds.reserve(hold)
    with pytest.raises(FailedPrecondition, match="HOLD_NOT_UNKNOWN"):
        await desk.settle(hold.hold_id)
    with pytest.raises(FailedPrecondition, match="HOLD_NOT_UNKNOWN"):
        await desk.reconciliation.release("acme", hold.hold_id)
    assert await desk.stores.holds.find("acme", hold.hold_id) == hold


async def test_another_tenants_hold_is_not_found(desk: Desk) -> None:
    hold = await desk.unknown_hold()
    for tenant, hold_id in (("other", hold.hold_id), ("acme", uuid.uuid4())):
        with pytest.raises(NotFound, match="HOLD_NOT_FOUND"):
            await desk.settle(hold_id, tenant=tenant)
        with pytest.raises(NotFound, match="HOLD_NOT_FOUND"):
            await desk.reconciliation.release(tenant, hold_id)


@pytest.mark.parametrize(
    ("used", "request_id"),
    [(Tokens(-1, 0), ""), (Tokens(0, 10**9 + 1), ""), (USED, "x" * 129), (USED, "\0")],
)
async def test_what_the_books_cannot_keep_is_refused(desk: Desk, used: Tokens, request_id: str) -> None:
    hold = await desk.unknown_hold()
    with pytest.raises(InvalidArgument):
        await desk.settle(hold.hold_id, used, request_id=request_id)
    assert await desk.reconciliation.unanswered("acme", limit=1) == [hold]
