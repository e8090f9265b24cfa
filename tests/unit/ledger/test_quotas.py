"""Counting without asking: never more than the quota, few questions, and what happens at the edges of an hour."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ledger.adapters.memory_identity import MemoryQuotas
from services.ledger.domain.identity_ports import Lease
from services.ledger.domain.plans import UNLIMITED, Kind, Plan
from services.ledger.domain.principals import Principal
from services.ledger.domain.quotas import Exhausted, Quotas
from services.runtime.errors import Unavailable

HOUR_S = 3600.0


def acme(plan: Plan) -> Principal:
    return Principal("acme", "apiKeys/x", "", frozenset(), plan=plan)


@dataclass
class Hours:
    """A clock, the store that goes by it, and any number of replicas."""

    now_s: float = 0.0
    asked: int = 0
    down: bool = False
    replicas: list[Quotas] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryQuotas(hour=lambda: int(self.now_s // HOUR_S), lasts_s=lambda: HOUR_S - self.now_s % HOUR_S)
        self.replicas = [Quotas(store=self, monotonic_s=lambda: self.now_s) for _ in range(3)]

    async def lease(self, tenant: str, kind: Kind, *, quota: int, wanted: int, returned: int = 0) -> Lease:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("DATABASE_UNAVAILABLE", "down")
        return await self.store.lease(tenant, kind, quota=quota, wanted=wanted, returned=returned)


async def let_through(quotas: Quotas, plan: Plan, calls: int, *, upload: bool = False) -> int:
    answers = [await quotas.take(acme(plan), upload=upload) for _ in range(calls)]
    return sum(answer is None for answer in answers)


async def test_a_plan_without_limits_asks_nobody() -> None:
    hours = Hours()
    assert await let_through(hours.replicas[0], UNLIMITED, 100, upload=True) == 100
    assert hours.asked == 0


async def test_a_thousand_calls_take_fifty_questions() -> None:
    hours = Hours()
    plan = Plan("free", calls_per_hour=1000)
    assert await let_through(hours.replicas[0], plan, 1000) == 1000
    assert hours.asked == 50
    used_up = await hours.replicas[0].take(acme(plan), upload=False)
    assert used_up == Exhausted(Kind.CALLS, 3600)
    assert await let_through(hours.replicas[0], plan, 100) == 0
    assert hours.asked == 51, "who is refused costs no question each time"


async def test_a_new_hour_is_a_new_quota() -> None:
    hours = Hours()
    plan = Plan("free", uploads_per_hour=3)
    assert await let_through(hours.replicas[0], plan, 9, upload=True) == 3
    hours.now_s = HOUR_S - 0.5
    assert await hours.replicas[0].take(acme(plan), upload=True) == Exhausted(Kind.UPLOADS, 1)
    hours.now_s = HOUR_S
    assert await let_through(hours.replicas[0], plan, 9, upload=True) == 3


async def test_another_plan_counts_from_the_next_call() -> None:
    hours = Hours()
    assert await let_through(hours.replicas[0], Plan("free", calls_per_hour=10), 20) == 10
    assert await let_through(hours.replicas[0], Plan("more", calls_per_hour=30), 50) == 20
    assert await let_through(hours.replicas[0], Plan("free", calls_per_hour=10), 5) == 0
    assert await let_through(hours.replicas[0], UNLIMITED, 5) == 5


async def test_a_smaller_plan_does_not_count_what_was_leased_of_the_larger_one() -> None:
    hours = Hours()
    large, small = Plan("large", calls_per_hour=60_000), Plan("small", calls_per_hour=100)
    for replica in hours.replicas:
        assert await let_through(replica, large, 5) == 5
    # Each replica gives back what it holds when it hears of the change.
    assert sum([await let_through(replica, small, 1) for replica in hours.replicas]) >= 1
    hours.now_s += 10
    assert await let_through(hours.replicas[2], small, 100) + 15 in range(90, 101)
    for _ in range(3):
        assert await let_through(hours.replicas[0], large, 50) == 50
        assert await let_through(hours.replicas[0], small, 50) == 0, "what was really done counts"


async def test_what_may_have_been_given_back_is_not_given_back_again() -> None:
    hours = Hours()
    large, small = Plan("large", calls_per_hour=1000), Plan("small", calls_per_hour=30)
    assert await let_through(hours.replicas[0], large, 15) == 15
    hours.down = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await hours.replicas[0].take(acme(small), upload=False)
    hours.down = False
    assert await let_through(hours.replicas[0], small, 30) == 10


async def test_nothing_is_given_back_when_the_hour_may_be_over() -> None:
    hours = Hours()
    large, small = Plan("large", calls_per_hour=60_000), Plan("small", calls_per_hour=30)
    assert await let_through(hours.replicas[0], large, 1) == 1
    hours.now_s = HOUR_S - 1
    assert await let_through(hours.replicas[0], small, 1) == 0
    hours.now_s = HOUR_S
    assert await let_through(hours.replicas[0], small, 50) == 30


async def test_what_is_leased_outlasts_the_database_and_nothing_else() -> None:
    hours = Hours()
    plan = Plan("free", calls_per_hour=1000)
    assert await let_through(hours.replicas[0], plan, 1) == 1
    hours.down = True
    assert await let_through(hours.replicas[0], plan, 19) == 19
    with pytest.raises(Unavailable):
        await hours.replicas[0].take(acme(plan), upload=False)
    assert await let_through(hours.replicas[0], UNLIMITED, 5) == 5


async def test_what_is_remembered_is_bounded() -> None:
    hours = Hours()
    quotas = Quotas(store=hours, monotonic_s=lambda: 0.0, max_tenants=2)
    for number in range(20):
        principal = Principal(f"t{number}", "apiKeys/x", "", frozenset(), plan=Plan("free", calls_per_hour=100))
        assert await quotas.take(principal, upload=False) is None
    assert len(quotas._held) == 4
    assert not quotas._leasing


@settings(max_examples=50, deadline=None)
@given(
    quota=st.integers(0, 300),
    replicas=st.integers(1, 3),
    calls=st.lists(st.integers(0, 2), max_size=400),
)
async def test_replicas_together_never_let_more_through(quota: int, replicas: int, calls: list[int]) -> None:
    hours = Hours()
    plan = Plan("free", calls_per_hour=quota)
    taken = await asyncio.gather(
        *(hours.replicas[number % replicas].take(acme(plan), upload=False) for number in calls)
    )
    passed = sum(answer is None for answer in taken)
    stranded = (replicas - 1) * max(1, quota // 50)
    assert passed <= quota
    assert passed >= min(len(calls), quota - stranded)
