"""Which days cost too much, and that a round looks at every tenant and tells once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.adapters.memory import MemoryLedger, MemoryTenants, MemoryUsage
from services.ledger.adapters.memory_anomalies import MemoryAnomalies
from services.ledger.domain import cost_anomalies
from services.ledger.domain.cost_anomalies import (
    FACTOR,
    FLOOR_MICROS,
    AnomalyWatch,
    CostAnomaly,
    Spending,
    anomaly_of,
    usual_micros,
)
from services.ledger.domain.usage_spans import DAY
from tests.unit.ledger.samples import NOW, FixedClock, a_record, an_event

TODAY = datetime(2026, 3, 2, tzinfo=UTC)
DOLLAR = 1_000_000
amounts = st.integers(0, 10**12)


def spending(today: int, *before: int, days: int = 60) -> Spending:
    """Costs of the days before, yesterday's first; the first call was so many days ago."""
    costs = {TODAY - (n + 1) * DAY: cost for n, cost in enumerate(before)}
    return Spending("acme", TODAY - days * DAY, {**costs, TODAY: today})


def alarms(told: Spending) -> bool:
    return anomaly_of(told, TODAY, NOW) is not None


def test_more_than_three_times_the_usual_is_told_of_with_what_was_usual() -> None:
    assert not alarms(spending(15 * DOLLAR, *[5 * DOLLAR] * 28))
    found = anomaly_of(spending(15 * DOLLAR + 1, *[5 * DOLLAR] * 28), TODAY, NOW)
    assert found == CostAnomaly("acme", TODAY, 15 * DOLLAR + 1, 5 * DOLLAR, 15 * DOLLAR, NOW)
    assert found.factor_micros == 3_000_000


def test_cents_are_never_told_of() -> None:
    assert not alarms(spending(DOLLAR, *[1] * 28))
    assert alarms(spending(DOLLAR + 1, *[1] * 28))


def test_a_tenant_that_spent_nothing_for_long_is_told_of() -> None:
    found = anomaly_of(spending(2 * DOLLAR), TODAY, NOW)
    assert found is not None
    assert (found.usual_micros, found.factor_micros) == (0, None)


def test_seven_whole_days_of_history_are_needed() -> None:
    """The day of the first call is not a whole one."""
    assert usual_micros(spending(0, *[5] * 7, days=7), TODAY) is None
    assert usual_micros(spending(0, *[5] * 7, 900, days=8), TODAY) == 5


def test_a_weekday_that_is_always_dear_is_usual() -> None:
    weekly = [1000 * DOLLAR if n % 7 == 6 else DOLLAR for n in range(28)]
    assert not alarms(spending(3000 * DOLLAR, *weekly))
    assert alarms(spending(3000 * DOLLAR + 1, *weekly))
    # On any other day the same is not.
    assert alarms(spending(1000 * DOLLAR, *weekly[3:], *weekly[:3]))
    # One of four may be chance, and so may two where there are no more yet.
    assert alarms(spending(1000 * DOLLAR, *[DOLLAR] * 21, *weekly[21:]))
    assert alarms(spending(1000 * DOLLAR, *weekly[:14], days=15))
    assert not alarms(spending(1000 * DOLLAR, *weekly[:21], days=22))


def test_days_of_rest_do_not_make_days_of_work_odd() -> None:
    resting = [0 if n % 7 > 1 else 20 * DOLLAR for n in range(28)]
    assert not alarms(spending(50 * DOLLAR, *resting))


def test_what_lies_further_back_than_four_weeks_does_not_count() -> None:
    assert alarms(spending(10 * DOLLAR, *[DOLLAR] * 28, *[100 * DOLLAR] * 28))


@given(st.lists(amounts, max_size=28), amounts, amounts, st.integers(0, 40))
def test_dearer_days_are_told_of_all_the_more(before: list[int], cost: int, more: int, days: int) -> None:
    if alarms(spending(cost, *before, days=days)):
        assert cost > FLOOR_MICROS
        assert alarms(spending(cost + more, *before, days=days))


@given(st.lists(amounts, min_size=7, max_size=28))
def test_no_day_is_told_of_that_is_like_most(before: list[int]) -> None:
    """Up to the threshold it is not, beyond it is, and no more than half of the days that cost something are dearer
    than what is usual, unless the weekday says so."""
    told = spending(0, *before)
    usual = usual_micros(told, TODAY)
    assert usual is not None
    threshold = max(FACTOR * usual, FLOOR_MICROS)
    assert not alarms(spending(threshold, *before))
    assert alarms(spending(threshold + 1, *before))
    assert usual == 0 or usual in before
    dearer = sum(cost > usual for cost in before)
    assert dearer <= sum(cost > 0 for cost in before) / 2


@given(st.integers(1, 10**9), st.integers(0, 27), amounts)
def test_one_odd_day_hides_nothing_and_alarms_nobody(usual: int, place: int, odd: int) -> None:
    before = [usual] * 28
    before[place] = odd
    threshold = max(FACTOR * usual, FLOOR_MICROS)
    assert not alarms(spending(threshold, *before))
    assert alarms(spending(threshold + 1, *before))


async def told_by(watch: AnomalyWatch) -> list[tuple[str, datetime]]:
    return [(anomaly.tenant, anomaly.day) async for anomaly in watch.look()]


async def test_a_round_looks_at_all_tenants_and_tells_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_anomalies, "PART", 2)
    ledger, clock = MemoryLedger(), FixedClock()
    usage, store = MemoryUsage(ledger), MemoryAnomalies(ledger)
    for n in range(7):
        await MemoryTenants(ledger).ensure(f"t{n}", "", NOW)
        first = a_record(an_event(after_s=-20 * 86_400), tenant=f"t{n}", cost_micros=1)
        # Every other one is dear.
        await usage.record([first, a_record(an_event(), tenant=f"t{n}", cost_micros=DOLLAR + n % 2)])
    watch = AnomalyWatch(store=store, clock=clock)
    day = NOW.replace(hour=0)
    assert await told_by(watch) == [(f"t{n}", day) for n in (1, 3, 5)]
    assert await told_by(watch) == []
    assert store.told["t1", day].cost_micros == DOLLAR + 1


async def test_a_day_is_looked_at_for_an_hour_after_its_end() -> None:
    ledger, clock = MemoryLedger(), FixedClock()
    usage, watch = MemoryUsage(ledger), AnomalyWatch(store=MemoryAnomalies(ledger), clock=clock)
    await MemoryTenants(ledger).ensure("acme", "", NOW)
    await usage.record([a_record(an_event(after_s=-20 * 86_400))])
    midnight = NOW.replace(hour=0) + DAY
    await usage.record([a_record(an_event(after_s=12 * 3600 - 1), cost_micros=9 * DOLLAR)])
    clock.now = midnight + timedelta(hours=1)
    assert await told_by(watch) == []
    clock.now -= timedelta(microseconds=1)
    assert await told_by(watch) == [("acme", NOW.replace(hour=0))]
