"""What every HoldStore promises, held against the one in memory and the one in Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from services.ledger.domain.values import HoldState, Selection
from services.runtime.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from tests.unit.ledger.samples import NOW, STORES, Stores, a_hold, a_record, an_event, open_stores


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Stores]:
    async with open_stores(request.param, database) as opened:
        yield opened


async def held(stores: Stores, tenant: str = "acme") -> int:
    return (await stores.reports.report(Selection(tenant), None, 1)).held_micros


async def spent(stores: Stores, tenant: str = "acme") -> int:
    return (await stores.reports.report(Selection(tenant), None, 1)).total_cost_micros


async def test_a_hold_is_kept_as_it_was_made(stores: Stores) -> None:
    hold = a_hold()
    assert await stores.holds.reserve(hold) == hold
    assert await stores.holds.find("acme", hold.hold_id) == hold
    assert await held(stores) == 1000
    assert await stores.holds.held_micros() == 1000


async def test_a_replay_answers_the_first_hold_and_holds_once(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 1500)
    hold = a_hold()
    await stores.holds.reserve(hold)
    assert await stores.holds.reserve(a_hold(1400, hold_id=hold.hold_id)) == hold
    await stores.holds.reserve(a_hold(500))
    assert await held(stores) == 1500


async def test_hold_ids_belong_to_their_tenant(stores: Stores) -> None:
    mine = a_hold()
    await stores.holds.reserve(mine)
    theirs = a_hold(5, tenant="other", hold_id=mine.hold_id)
    assert await stores.holds.find("other", mine.hold_id) is None
    assert await stores.holds.release("other", mine.hold_id) is None
    assert await stores.holds.reserve(theirs) == theirs
    assert await stores.holds.find("acme", mine.hold_id) == mine


async def test_an_unknown_tenant_gets_no_hold(stores: Stores) -> None:
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await stores.holds.reserve(a_hold(tenant="nobody"))


async def test_a_hard_budget_counts_what_is_settled_and_what_is_held(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 2500)
    first = a_hold()
    await stores.holds.reserve(first)
    await stores.holds.settle(first, a_record(an_event(), cost_micros=900, hold_id=first.hold_id))
    await stores.holds.reserve(a_hold(1000))
    with pytest.raises(ResourceExhausted) as refused:
        await stores.holds.reserve(a_hold(601))
    assert refused.value.reason == "BUDGET_EXCEEDED"
    assert refused.value.quota is not None
    assert refused.value.quota.subject == "budgets/operator"
    assert "900 settled + 1000 held + 601 asked for > 2500" in refused.value.quota.description
    await stores.holds.reserve(a_hold(600))
    await stores.holds.reserve(a_hold(10**9, tenant="other"))


async def test_a_budget_that_comes_later_counts_what_was_before(stores: Stores) -> None:
    open_hold, closed = a_hold(300), a_hold(500)
    await stores.holds.reserve(open_hold)
    await stores.holds.reserve(closed)
    await stores.holds.settle(closed, a_record(an_event(), cost_micros=400, hold_id=closed.hold_id))
    await stores.tenants.set_hard_budget("acme", 1000)
    with pytest.raises(ResourceExhausted):
        await stores.holds.reserve(a_hold(301))
    await stores.holds.reserve(a_hold(300))
    await stores.tenants.set_hard_budget("acme", 1001)
    await stores.holds.reserve(a_hold(1))


async def test_concurrent_reservations_never_overspend(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 10_999)
    results = await asyncio.gather(*(stores.holds.reserve(a_hold(1000)) for _ in range(64)), return_exceptions=True)
    refused = [r for r in results if isinstance(r, BaseException)]
    assert len(refused) == 54
    assert all(isinstance(r, ResourceExhausted) for r in refused), refused
    assert await held(stores) == 10_000


async def test_concurrent_replays_hold_once(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 1500)
    hold = a_hold()
    results = await asyncio.gather(*(stores.holds.reserve(hold) for _ in range(16)))
    assert results == [hold] * 16
    assert await held(stores) == 1000


async def test_a_budget_that_comes_amid_calls_counts_each_of_them(stores: Stores) -> None:
    async def call(index: int) -> None:
        hold = a_hold(100)
        await stores.holds.reserve(hold)
        if index % 2:
            await stores.holds.settle(hold, a_record(an_event(), cost_micros=60, hold_id=hold.hold_id))

    calls = [asyncio.create_task(call(index)) for index in range(40)]
    await asyncio.gather(*calls[:4])
    await stores.tenants.set_hard_budget("acme", 10**6)
    await asyncio.gather(*calls)
    assert (await held(stores), await spent(stores)) == (2000, 1200)
    with pytest.raises(ResourceExhausted, match="BUDGET_EXCEEDED") as refused:
        await stores.holds.reserve(a_hold(10**6))
    assert refused.value.quota is not None
    assert "1200 settled + 2000 held" in refused.value.quota.description


async def test_settling_closes_records_and_moves_the_money(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 1000)
    hold = a_hold()
    await stores.holds.reserve(hold)
    record = a_record(an_event(tags={"team": "blue"}), cost_micros=900, hold_id=hold.hold_id)
    assert await stores.holds.settle(hold, record) == record
    found = await stores.holds.find("acme", hold.hold_id)
    assert found is not None
    assert found.state is HoldState.SETTLED
    report = await stores.reports.report(Selection("acme"), None, 10)
    assert (report.records, report.held_micros) == ((record,), 0)
    await stores.holds.reserve(a_hold(100))


async def test_more_than_was_held_is_recorded_as_it_is(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 1000)
    hold = a_hold()
    await stores.holds.reserve(hold)
    await stores.holds.settle(hold, a_record(an_event(), cost_micros=1700, hold_id=hold.hold_id))
    assert await spent(stores) == 1700
    with pytest.raises(ResourceExhausted):
        await stores.holds.reserve(a_hold(1))


async def test_settling_again_answers_the_first_record(stores: Stores) -> None:
    hold = a_hold()
    await stores.holds.reserve(hold)
    first = a_record(an_event(), hold_id=hold.hold_id)
    other = a_record(an_event(), cost_micros=1, hold_id=hold.hold_id)
    await stores.holds.settle(hold, first)
    assert await stores.holds.settle(hold, first) == first
    assert await stores.holds.settle(hold, other) == first
    assert await spent(stores) == 900


async def test_concurrent_settlements_record_once(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 5000)
    hold = a_hold()
    await stores.holds.reserve(hold)
    record = a_record(an_event(), hold_id=hold.hold_id)
    assert await asyncio.gather(*(stores.holds.settle(hold, record) for _ in range(16))) == [record] * 16
    assert (await spent(stores), await held(stores)) == (900, 0)


async def test_one_event_settles_one_hold(stores: Stores) -> None:
    holds = [a_hold(), a_hold()]
    event_id = uuid.uuid4()
    for hold in holds:
        await stores.holds.reserve(hold)
    await stores.holds.settle(holds[0], a_record(an_event(event_id), hold_id=holds[0].hold_id))
    with pytest.raises(AlreadyExists, match="EVENT_ID_REUSED"):
        await stores.holds.settle(holds[1], a_record(an_event(event_id), hold_id=holds[1].hold_id))
    still_open = await stores.holds.find("acme", holds[1].hold_id)
    assert still_open is not None
    assert still_open.state is HoldState.HELD


async def test_releasing_frees_the_money_once(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 1000)
    hold = a_hold()
    await stores.holds.reserve(hold)
    for _ in range(2):
        released = await stores.holds.release("acme", hold.hold_id)
        assert released is not None
        assert released.state is HoldState.RELEASED
    await stores.holds.reserve(a_hold(1000))
    with pytest.raises(ResourceExhausted):
        await stores.holds.reserve(a_hold(1))


async def test_what_was_released_cannot_be_settled_nor_the_other_way_round(stores: Stores) -> None:
    released, settled = a_hold(), a_hold()
    for hold in (released, settled):
        await stores.holds.reserve(hold)
    await stores.holds.release("acme", released.hold_id)
    with pytest.raises(FailedPrecondition, match="HOLD_RELEASED"):
        await stores.holds.settle(released, a_record(an_event(), hold_id=released.hold_id))
    await stores.holds.settle(settled, a_record(an_event(), hold_id=settled.hold_id))
    left = await stores.holds.release("acme", settled.hold_id)
    assert left is not None
    assert left.state is HoldState.SETTLED
    assert await spent(stores) == 900


async def test_settlement_and_release_at_once_do_one_of_them(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 10**6)
    for _ in range(8):
        hold = a_hold()
        await stores.holds.reserve(hold)
        settled, released = await asyncio.gather(
            stores.holds.settle(hold, a_record(an_event(), hold_id=hold.hold_id)),
            stores.holds.release("acme", hold.hold_id),
            return_exceptions=True,
        )
        assert not isinstance(released, BaseException)
        assert released is not None
        assert isinstance(settled, BaseException) == (released.state is HoldState.RELEASED)
    assert await held(stores) == 0


async def test_what_runs_out_becomes_unknown_and_still_counts(stores: Stores) -> None:
    await stores.tenants.set_hard_budget("acme", 1000)
    hold = a_hold(ttl_s=10)
    await stores.holds.reserve(hold)
    assert await stores.holds.expire(NOW + timedelta(seconds=9), 10) == 0
    assert await stores.holds.expire(NOW + timedelta(seconds=10), 10) == 1
    assert await stores.holds.expire(NOW + timedelta(seconds=10), 10) == 0
    found = await stores.holds.find("acme", hold.hold_id)
    assert found is not None
    assert found.state is HoldState.UNKNOWN
    assert await held(stores) == 1000
    with pytest.raises(ResourceExhausted):
        await stores.holds.reserve(a_hold(1))


@pytest.mark.parametrize("end", ["settle", "release"])
async def test_the_unknown_is_reconciled(stores: Stores, end: str) -> None:
    await stores.tenants.set_hard_budget("acme", 1000)
    hold = a_hold(ttl_s=1)
    await stores.holds.reserve(hold)
    await stores.holds.expire(NOW + timedelta(seconds=1), 10)
    if end == "settle":
        await stores.holds.settle(hold, a_record(an_event(), cost_micros=0, hold_id=hold.hold_id))
    else:
        await stores.holds.release("acme", hold.hold_id)
    assert await held(stores) == 0
    await stores.holds.reserve(a_hold(1000))


async def test_replicas_share_what_runs_out(stores: Stores) -> None:
    for _ in range(30):
        await stores.holds.reserve(a_hold(ttl_s=1))
    late = NOW + timedelta(seconds=2)
    assert await stores.holds.expire(late, 4) == 4
    assert sum(await asyncio.gather(*(stores.holds.expire(late, 26) for _ in range(4)))) == 26


async def test_unknown_holds_are_listed_oldest_first(stores: Stores) -> None:
    young, old, other = a_hold(1), a_hold(2), a_hold(3, tenant="other")
    old = replace(old, create_time=NOW - timedelta(seconds=1))
    other = replace(other, create_time=NOW - timedelta(seconds=2))
    for hold in (young, old, other, a_hold(4, ttl_s=3600)):
        await stores.holds.reserve(hold)
    assert await stores.holds.unknown(None, 10) == []
    await stores.holds.expire(NOW + timedelta(seconds=60), 10)
    young, old, other = (replace(hold, state=HoldState.UNKNOWN) for hold in (young, old, other))
    assert await stores.holds.unknown("acme", 10) == [old, young]
    assert await stores.holds.unknown(None, 2) == [other, old]
    await stores.holds.release("acme", old.hold_id)
    await stores.holds.settle(young, a_record(an_event(), hold_id=young.hold_id))
    assert await stores.holds.unknown(None, 10) == [other]
