"""What every BudgetStore promises, and what holds and records do to budgets, in memory and in Postgres."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from services.ledger.domain.budget_ports import NewLimits
from services.ledger.domain.budgets import Budget, BudgetStatus, Limit, Period
from services.ledger.domain.values import Hold
from services.runtime.errors import FailedPrecondition, ResourceExhausted
from tests.unit.ledger.samples import NOW, STORES, Stores, a_hold, a_record, an_event, open_stores

KEY = "apiKeys/0000000000000000"
DAY = timedelta(days=1)


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Stores]:
    async with open_stores(request.param, database) as opened:
        yield opened


def a_budget(
    budget_id: str = "b",
    *,
    subject: str = "tenants/acme",
    period: Period = Period.TOTAL,
    hard: int | None = 1000,
    soft: int | None = None,
    tenant: str = "acme",
    now: datetime = NOW,
) -> Budget:
    return Budget(
        tenant=tenant,
        budget_id=budget_id,
        subject=subject,
        period=period,
        hard_micros=hard,
        soft_micros=soft,
        create_time=now,
        update_time=now,
        made_hard_micros=hard,
        made_soft_micros=soft,
    )


def at(hold: Hold, now: datetime) -> Hold:
    return replace(hold, create_time=now, expire_time=now + timedelta(seconds=60))


async def found(stores: Stores, budget_id: str = "b", now: datetime = NOW) -> BudgetStatus:
    status = await stores.budgets.find("acme", budget_id, now)
    assert status is not None
    return status


async def totals(stores: Stores, budget_id: str = "b", now: datetime = NOW) -> tuple[int, int]:
    status = await found(stores, budget_id, now)
    return status.settled_micros, status.held_micros


async def refusing(stores: Stores, hold: Hold) -> str:
    """The budget that refuses the hold."""
    with pytest.raises(ResourceExhausted, match="BUDGET_EXCEEDED") as refused:
        await stores.holds.reserve(hold)
    assert refused.value.quota is not None
    return refused.value.quota.subject


async def test_a_budget_is_kept_as_it_was_made(stores: Stores) -> None:
    budget = a_budget(soft=500, period=Period.MONTH, subject=KEY)
    made = await stores.budgets.create(budget)
    assert made == BudgetStatus(budget, datetime(2026, 3, 1, tzinfo=UTC), 0, 0)
    assert made.end == datetime(2026, 4, 1, tzinfo=UTC)
    assert await found(stores) == made
    assert await stores.budgets.find("other", "b", NOW) is None
    assert await stores.budgets.create(replace(budget, hard_micros=7)) == made


async def test_an_unknown_tenant_gets_no_budget(stores: Stores) -> None:
    with pytest.raises(FailedPrecondition, match="TENANT_UNKNOWN"):
        await stores.budgets.create(a_budget(tenant="nobody", subject="tenants/nobody"))


async def test_a_call_counts_against_every_budget_of_its_own(stores: Stores) -> None:
    mine = ("jobs/j", KEY, "projects/p", "tenants/acme")
    for index, subject in enumerate((*mine, "jobs/k", "apiKeys/1", "projects/q")):
        await stores.budgets.create(a_budget(f"b{index}", subject=subject, hard=10**6))
    hold = replace(a_hold(), project="projects/p", job="jobs/j")
    await stores.holds.reserve(hold)
    assert [await totals(stores, f"b{n}") for n in range(7)] == [(0, 1000)] * 4 + [(0, 0)] * 3
    record = replace(a_record(an_event(), hold_id=hold.hold_id), project="projects/p")
    await stores.holds.settle(hold, replace(record, event=replace(record.event, job="jobs/j")))
    assert [await totals(stores, f"b{n}") for n in range(7)] == [(900, 0)] * 4 + [(0, 0)] * 3
    await stores.usage.record([replace(a_record(an_event(), cost_micros=50), project="projects/q")])
    assert [await totals(stores, f"b{n}") for n in range(7)] == [
        (900, 0),
        (950, 0),
        (900, 0),
        (950, 0),
        (0, 0),
        (0, 0),
        (50, 0),
    ]


async def test_the_narrowest_budget_without_room_is_named_and_nothing_moves(stores: Stores) -> None:
    subjects = {"a": "tenants/acme", "b": "projects/p", "c": KEY, "d": "jobs/j"}
    limits = {"a": 1000, "b": 900, "c": 800, "d": 700}
    for budget_id, subject in subjects.items():
        await stores.budgets.create(a_budget(budget_id, subject=subject, hard=limits[budget_id]))
    for amount, budget_id in ((2000, "d"), (750, "d"), (701, "d")):
        hold = replace(a_hold(amount), project="projects/p", job="jobs/j")
        assert await refusing(stores, hold) == f"budgets/{budget_id}"
        assert await stores.holds.find("acme", hold.hold_id) is None
    assert await refusing(stores, replace(a_hold(850), project="projects/p")) == "budgets/c"
    other = replace(a_hold(950), project="projects/p", actor="users/u")
    assert await refusing(stores, other) == "budgets/b"
    assert await refusing(stores, replace(other, project="", amount_micros=1001)) == "budgets/a"
    assert [await totals(stores, budget_id) for budget_id in subjects] == [(0, 0)] * 4
    await stores.holds.reserve(replace(a_hold(700), project="projects/p", job="jobs/j"))
    assert [await totals(stores, budget_id) for budget_id in subjects] == [(0, 700)] * 4


async def test_a_soft_limit_refuses_nothing(stores: Stores) -> None:
    await stores.budgets.create(a_budget(hard=None, soft=10))
    await stores.holds.reserve(a_hold(1000))
    assert await totals(stores) == (0, 1000)


async def test_each_threshold_is_reached_once(stores: Stores) -> None:
    await stores.budgets.create(a_budget(hard=1000, soft=500))
    reached: list[list[tuple[Limit, int]]] = []
    hold = a_hold(400)
    for step in (hold, a_hold(100), a_hold(300), a_hold(200)):
        await stores.holds.reserve(step)
        reached.append([(c.kind, c.percent) for c in (await found(stores)).crossings])
    hard, soft = Limit.HARD, Limit.SOFT
    assert reached[0] == [(soft, 50), (soft, 80)]
    assert reached[1] == [(hard, 50), (soft, 50), (soft, 80), (soft, 100)]
    assert reached[2] == [(hard, 50), (hard, 80), (soft, 50), (soft, 80), (soft, 100)]
    assert reached[3] == [(hard, 50), (hard, 80), (hard, 100), (soft, 50), (soft, 80), (soft, 100)]
    first = (await found(stores)).crossings
    await stores.holds.release("acme", hold.hold_id)
    await stores.holds.reserve(at(a_hold(400), NOW + timedelta(hours=1)))
    assert (await found(stores)).crossings == first


async def test_a_threshold_is_a_line_in_the_log(database: Callable[[str], str]) -> None:
    async with open_stores("postgres", database) as stores:
        await stores.budgets.create(a_budget(hard=1000, soft=None))
        with capture_logs() as lines:
            await stores.holds.reserve(a_hold(800))
            await stores.holds.reserve(a_hold(100))
    told = [line for line in lines if line["event"] == "budget_threshold_reached"]
    assert [(line["tenant"], line["budget"], line["limit"], line["percent"]) for line in told] == [
        ("acme", a_budget().name, "hard", 50),
        ("acme", a_budget().name, "hard", 80),
    ]


async def test_a_changed_limit_has_thresholds_of_its_own(stores: Stores) -> None:
    await stores.budgets.create(a_budget(hard=1000))
    await stores.holds.reserve(a_hold(800))
    changed = await stores.budgets.change("acme", "b", NewLimits({Limit.HARD: 1600}), NOW + DAY)
    assert changed is not None
    assert [(c.percent, c.limit_micros, c.time) for c in changed.crossings] == [(50, 1600, NOW + DAY)]
    await stores.holds.reserve(a_hold(480))
    assert [c.percent for c in (await found(stores)).crossings] == [50, 80]
    back = await stores.budgets.change("acme", "b", NewLimits({Limit.HARD: 1000}), NOW + 2 * DAY)
    assert back is not None
    assert [(c.percent, c.time) for c in back.crossings] == [(50, NOW), (80, NOW), (100, NOW + 2 * DAY)]


async def test_a_new_day_starts_at_zero(stores: Stores) -> None:
    await stores.budgets.create(a_budget("day", period=Period.DAY))
    await stores.budgets.create(a_budget("month", period=Period.MONTH, hard=1800))
    await stores.budgets.create(a_budget("total", hard=2500))
    evening, morning = NOW.replace(hour=23, minute=59, second=59, microsecond=999_999), NOW.replace(hour=0) + DAY
    first = at(a_hold(1000), evening)
    await stores.holds.reserve(first)
    assert await refusing(stores, at(a_hold(1), evening)) == "budgets/day"
    await stores.holds.reserve(at(a_hold(700), morning))
    assert await totals(stores, "day", morning) == (0, 700)
    assert await refusing(stores, at(a_hold(101), morning)) == "budgets/month"
    april = datetime(2026, 4, 1, tzinfo=UTC)
    await stores.holds.reserve(at(a_hold(101), april))
    assert await totals(stores, "month", april) == (0, 101)
    assert await refusing(stores, at(a_hold(700), april)) == "budgets/total"
    # Settled a day later: it counts in the day in which it was held.
    late = replace(a_record(an_event(), cost_micros=990, hold_id=first.hold_id), record_time=morning)
    await stores.holds.settle(first, late)
    assert await totals(stores, "day", evening) == (990, 0)
    assert await totals(stores, "day", morning) == (0, 700)
    assert await totals(stores, "total", april) == (990, 801)


async def test_a_clock_that_is_set_back_finds_the_room_that_was_left(stores: Stores) -> None:
    await stores.budgets.create(a_budget(period=Period.DAY))
    await stores.holds.reserve(at(a_hold(900), NOW))
    await stores.holds.reserve(at(a_hold(1000), NOW + DAY))
    assert await refusing(stores, at(a_hold(101), NOW)) == "budgets/b"
    await stores.holds.reserve(at(a_hold(100), NOW))
    assert await refusing(stores, at(a_hold(1), NOW)) == "budgets/b"
    assert await refusing(stores, at(a_hold(1), NOW + DAY)) == "budgets/b"


@pytest.mark.parametrize("period", list(Period), ids=lambda period: period.value)
async def test_a_budget_that_comes_later_counts_its_period(stores: Stores, period: Period) -> None:
    yesterday, last_month = NOW - DAY, NOW - 40 * DAY
    for when in (last_month, yesterday, NOW):
        kept, settled = (at(replace(a_hold(amount), job="jobs/j"), when) for amount in (10, 100))
        for hold in (kept, settled, at(a_hold(5000), when)):
            await stores.holds.reserve(hold)
        record = replace(a_record(an_event(), cost_micros=90, hold_id=settled.hold_id), record_time=NOW)
        await stores.holds.settle(settled, replace(record, event=replace(record.event, job="jobs/j")))
        bare = replace(a_record(an_event(), cost_micros=1), record_time=when)
        await stores.usage.record([replace(bare, event=replace(bare.event, job="jobs/j"))])
    made = await stores.budgets.create(a_budget(subject="jobs/j", period=period, hard=10**6))
    times = {Period.DAY: 1, Period.MONTH: 1, Period.TOTAL: 3}[period]  # NOW is the first of a month
    assert (made.settled_micros, made.held_micros) == (91 * times, 10 * times)
    by_key = await stores.budgets.create(a_budget("key", subject=KEY, period=period, hard=10**6))
    assert (by_key.settled_micros, by_key.held_micros) == (91 * times, 5010 * times)


async def test_what_was_held_before_the_first_period_is_closed_all_the_same(stores: Stores) -> None:
    before = at(a_hold(1000), NOW - DAY)
    await stores.holds.reserve(before)
    await stores.budgets.create(a_budget(period=Period.DAY))
    record = replace(a_record(an_event(), hold_id=before.hold_id), record_time=NOW)
    await stores.holds.settle(before, record)
    assert await totals(stores) == (0, 0)


async def test_budgets_are_listed_by_id_in_parts(stores: Stores) -> None:
    for budget_id in ("c", "a", "b"):
        await stores.budgets.create(a_budget(budget_id, subject="jobs/j" if budget_id != "b" else KEY))
    await stores.budgets.create(a_budget("z", tenant="other", subject="tenants/other"))
    await stores.budgets.create(a_budget("gone"))
    await stores.budgets.delete("acme", "gone", NOW)

    async def listed(subject: str = "", after: str = "", limit: int = 10) -> str:
        part = await stores.budgets.list("acme", subject=subject, after=after, limit=limit, now=NOW)
        return "".join(status.budget.budget_id for status in part)

    assert (await listed(), await listed(limit=2), await listed(after="b")) == ("abc", "ab", "c")
    assert (await listed("jobs/j"), await listed(KEY), await listed("jobs/x")) == ("ac", "b", "")


async def test_limits_change_and_one_stays(stores: Stores) -> None:
    await stores.budgets.create(a_budget(hard=1000))
    await stores.holds.reserve(a_hold(1000))
    await stores.budgets.change("acme", "b", NewLimits({Limit.HARD: 1500, Limit.SOFT: 3}), NOW)
    await stores.holds.reserve(a_hold(500))
    changed = await stores.budgets.change("acme", "b", NewLimits({Limit.HARD: None}), NOW + DAY)
    assert changed is not None
    assert (changed.budget.hard_micros, changed.budget.soft_micros) == (None, 3)
    assert changed.budget.update_time == NOW + DAY
    await stores.holds.reserve(a_hold(10**6))
    with pytest.raises(FailedPrecondition, match="BUDGET_WITHOUT_LIMIT"):
        await stores.budgets.change("acme", "b", NewLimits({Limit.SOFT: None}), NOW)
    assert await stores.budgets.change("other", "b", NewLimits({Limit.SOFT: 1}), NOW) is None
    assert await stores.budgets.change("acme", "x", NewLimits({Limit.SOFT: 1}), NOW) is None


async def test_a_deleted_budget_limits_nothing_and_is_remembered(stores: Stores) -> None:
    await stores.budgets.create(a_budget(hard=1000))
    hold = a_hold(1000)
    await stores.holds.reserve(hold)
    assert await stores.budgets.delete("other", "b", NOW) is None
    for when in (NOW, NOW + DAY):
        deleted = await stores.budgets.delete("acme", "b", when)
        assert deleted is not None
        assert deleted.budget.delete_time == NOW
    await stores.holds.reserve(a_hold(10**6))
    await stores.holds.settle(hold, a_record(an_event(), hold_id=hold.hold_id))
    assert (await stores.budgets.create(a_budget(hard=5))).budget.delete_time == NOW
    assert await stores.budgets.change("acme", "b", NewLimits({Limit.HARD: 1}), NOW) is None


async def test_the_operators_budget_is_one_of_them(stores: Stores) -> None:
    await stores.holds.reserve(a_hold(300))
    await stores.tenants.set_hard_budget("acme", 1000)
    status = await found(stores, "operator")
    assert (status.budget.operator, status.budget.subject, status.budget.period) == (True, "tenants/acme", Period.TOTAL)
    assert (status.budget.hard_micros, status.held_micros) == (1000, 300)
    await stores.tenants.set_hard_budget("acme", 600)
    assert [c.percent for c in (await found(stores, "operator")).crossings] == [50]


async def test_many_budgets_and_many_calls_add_up(stores: Stores) -> None:
    """Budgets come and change amid calls with several subjects; totals are those of the books, and nobody deadlocks."""

    async def call(index: int) -> None:
        hold = replace(a_hold(100), project=f"projects/p{index % 2}", job=f"jobs/j{index % 3}")
        await stores.holds.reserve(hold)
        if index % 4 == 0:
            await stores.holds.release("acme", hold.hold_id)
        elif index % 4 == 1:
            record = replace(a_record(an_event(), cost_micros=60, hold_id=hold.hold_id), project=hold.project)
            await stores.holds.settle(hold, replace(record, event=replace(record.event, job=hold.job)))
        else:
            bare = replace(a_record(an_event(), cost_micros=7), project=hold.project)
            await stores.usage.record([replace(bare, event=replace(bare.event, job=hold.job))])

    subjects = ["tenants/acme", "projects/p0", "projects/p1", "jobs/j0", "jobs/j1", "jobs/j2", KEY]
    calls = [call(index) for index in range(48)]
    makers = [
        stores.budgets.create(a_budget(f"b{index}", subject=subject, period=period, hard=10**9))
        for index, subject in enumerate(subjects)
        for period in [list(Period)[index % 3]]
    ]
    await asyncio.gather(*calls[:16], *makers[:4], *calls[16:32], *makers[4:], *calls[32:])
    assert await totals(stores, "b0") == (12 * 60 + 24 * 7, 24 * 100)
    assert await totals(stores, "b6") == (12 * 60 + 24 * 7, 24 * 100)
    halves = [await totals(stores, f"b{n}") for n in (1, 2)]
    thirds = [await totals(stores, f"b{n}") for n in (3, 4, 5)]
    for parts in (halves, thirds):
        assert (sum(s for s, _ in parts), sum(h for _, h in parts)) == await totals(stores, "b0")


async def test_two_replicas_share_the_room(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    async with open_stores("postgres", lambda _: dsn) as one, open_stores("postgres", lambda _: dsn) as two:
        await one.budgets.create(a_budget("t", hard=10_999))
        await one.budgets.create(a_budget("d", subject=KEY, period=Period.DAY, hard=10_999))
        holds = [a_hold(1000) for _ in range(64)]
        calls = [stores.holds.reserve(hold) for hold in holds[:48] for stores in (one, two)]
        calls += [(one, two)[n % 2].holds.reserve(hold) for n, hold in enumerate(holds[48:])]
        results = await asyncio.gather(*calls, return_exceptions=True)
        kept = {r.hold_id for r in results if isinstance(r, Hold)}
        refused = [r for r in results if isinstance(r, BaseException)]
        assert all(isinstance(r, ResourceExhausted) for r in refused), refused
        assert len(kept) == 10
        assert await totals(one, "t") == await totals(two, "d") == (0, 10_000)
        made = [h for h in holds if h.hold_id in kept]
        settling = [
            stores.holds.settle(hold, a_record(an_event(hold.hold_id), hold_id=hold.hold_id))
            for hold in made
            for stores in (one, two)
        ]
        records = await asyncio.gather(*settling)
        assert records[::2] == records[1::2]
        assert await totals(one, "t") == await totals(two, "d") == (9000, 0)


async def test_replicas_that_reserve_different_calls_never_pass_the_limit(database: Callable[[str], str]) -> None:
    """Nothing but the budget is common to them: neither a hold nor an event makes one wait for the other."""
    dsn = database("ledger")
    async with open_stores("postgres", lambda _: dsn) as one, open_stores("postgres", lambda _: dsn) as two:
        for number in range(8):
            job = f"jobs/{number}"
            await one.budgets.create(a_budget(f"b{number}", subject=job, hard=3_500))
            calls = [stores.holds.reserve(replace(a_hold(1000), job=job)) for _ in range(6) for stores in (one, two)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            kept = [r for r in results if isinstance(r, Hold)]
            assert len(kept) == 3
            assert await totals(two, f"b{number}") == (0, 3000)
            settling = [
                (one, two)[n % 2].holds.settle(hold, replace(record, event=replace(record.event, job=job)))
                for n, hold in enumerate(kept)
                for record in [a_record(an_event(), hold_id=hold.hold_id)]
            ]
            await asyncio.gather(*settling)
            assert await totals(two, f"b{number}") == (2700, 0)


async def test_a_call_that_its_caller_gave_up_takes_nobody_with_it(stores: Stores) -> None:
    await stores.budgets.create(a_budget(hard=10**6))
    holds = [a_hold(100) for _ in range(30)]
    tasks = [asyncio.create_task(stores.holds.reserve(hold)) for hold in holds]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [r for r in results if isinstance(r, Hold)]
    assert len(kept) >= 20
    assert all(isinstance(r, Hold | asyncio.CancelledError) for r in results), results
    again = await asyncio.gather(*(stores.holds.reserve(hold) for hold in holds))
    assert again == holds
    assert await totals(stores) == (0, 3000)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE ledger.budgets; --", '"; SELECT 1', "%s %(tenant)s {0}", "ü\U0001f4b8"]
)
async def test_texts_are_data(stores: Stores, text: str) -> None:
    await stores.budgets.create(a_budget())
    assert await stores.budgets.find("acme", text, NOW) is None
    assert await stores.budgets.find(text, "b", NOW) is None
    assert await stores.budgets.list("acme", subject=text, after=text, limit=5, now=NOW) == []
    assert await stores.budgets.delete("acme", text, NOW) is None
    hold = replace(a_hold(10), project=text, job=text, actor=text, hold_id=uuid.uuid4())
    assert await stores.holds.reserve(hold) == hold
    assert await totals(stores) == (0, 10)
