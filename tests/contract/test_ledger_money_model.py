"""Holds and budgets against a model of a page: whatever is done in whatever order, both say the same.

The model adds up lists. It knows nothing of rows, groups, locks or periods that are opened: a hold counts where it was
made, against the budgets of its job, key, project and tenant, and so does what its call cost.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from services.ledger.domain.budget_ports import NewLimits
from services.ledger.domain.budgets import THRESHOLDS, Budget, Limit, Period, subjects_of_hold, subjects_of_record
from services.ledger.domain.values import Hold, HoldState, UsageRecord
from services.runtime.errors import AlreadyExists, FailedPrecondition, PagemeshError, ResourceExhausted
from tests.unit.ledger.samples import NOW, STORES, Stores, a_hold, a_record, an_event, open_stores

RANKS = ("jobs", "apiKeys", "projects", "tenants")
amounts = st.integers(0, 1200)
limits = st.one_of(st.none(), st.integers(0, 4000))
picks = st.integers(0, 10**6)
_tenants = itertools.count(1)


@dataclass
class Model:
    """What is true, as lists."""

    holds: dict[UUID, Hold] = field(default_factory=dict)
    records: list[UsageRecord] = field(default_factory=list)
    budgets: dict[str, Budget] = field(default_factory=dict)
    crossings: set[tuple[str, object, Limit, int, int]] = field(default_factory=set)

    def totals(self, budget: Budget, start: object) -> tuple[int, int]:
        settled = held = 0
        for record in self.records:
            made = self.holds.get(record.hold_id) if record.hold_id else None
            whose = subjects_of_hold(made) if made else subjects_of_record(record)
            time = made.create_time if made else record.record_time
            if budget.subject in whose and budget.period.start(time) == start:
                settled += record.cost_micros
        for hold in self.holds.values():
            counts = hold.state in (HoldState.HELD, HoldState.UNKNOWN)
            if counts and budget.subject in subjects_of_hold(hold) and budget.period.start(hold.create_time) == start:
                held += hold.amount_micros
        return settled, held

    def refusing(self, hold: Hold) -> str:
        """The budget that has no room for the hold; empty for none."""
        full = []
        for budget in self.budgets.values():
            if budget.delete_time is None and budget.subject in subjects_of_hold(hold):
                used = sum(self.totals(budget, budget.period.start(hold.create_time)))
                if budget.hard_micros is not None and used + hold.amount_micros > budget.hard_micros:
                    full.append((RANKS.index(budget.subject.split("/")[0]), budget.budget_id))
        return f"budgets/{min(full)[1]}" if full else ""

    def note(self) -> None:
        """The thresholds that are reached now."""
        times = {hold.create_time for hold in self.holds.values()} | {r.record_time for r in self.records}
        for budget in self.budgets.values():
            for start in {budget.period.start(time) for time in times} if budget.delete_time is None else ():
                used = sum(self.totals(budget, start))
                for kind, limit in budget.limits():
                    for percent in THRESHOLDS:
                        if used > 0 and used * 100 >= limit * percent:
                            self.crossings.add((budget.budget_id, start, kind, limit, percent))


class Money(RuleBasedStateMachine):
    """One tenant, its calls and its budgets."""

    run: "Callable[[object], object]"
    stores: Stores

    def __init__(self) -> None:
        super().__init__()
        self.tenant = f"model-{next(_tenants)}"
        self.now = NOW
        self.model = Model()
        self.do(self.stores.tenants.ensure(self.tenant, "x", NOW))

    def do(self, work: object) -> object:
        return type(self).run(work)

    def hold(self, amount: int, place: int) -> Hold:
        made = a_hold(amount, tenant=self.tenant)
        projects, jobs = ("", "projects/p", "projects/q"), ("", "jobs/j", "jobs/k")
        actor = ("apiKeys/0000000000000000", "users/u")[place % 2]
        return replace(
            made,
            project=projects[place % 3],
            job=jobs[place // 3 % 3],
            actor=actor,
            create_time=self.now,
            expire_time=self.now + timedelta(seconds=60),
        )

    def one(self, pick: int) -> Hold:
        return list(self.model.holds.values())[pick % len(self.model.holds)]

    @rule(amount=amounts, place=picks)
    def reserve(self, amount: int, place: int) -> None:
        hold = self.hold(amount, place)
        refusing = self.model.refusing(hold)
        if refusing:
            with pytest.raises(ResourceExhausted) as refused:
                self.do(self.stores.holds.reserve(hold))
            assert refused.value.quota is not None
            assert refused.value.quota.subject == refusing
            return
        assert self.do(self.stores.holds.reserve(hold)) == hold
        self.model.holds[hold.hold_id] = hold
        self.model.note()

    @rule(wanted=st.lists(amounts, min_size=2, max_size=6), place=picks)
    def reserve_at_once(self, wanted: list[int], place: int) -> None:
        """Together: the room is never passed, and what is kept and refused is possible in some order."""

        async def together(holds: list[Hold]) -> list[object]:
            return await asyncio.gather(*map(self.stores.holds.reserve, holds), return_exceptions=True)

        holds = [self.hold(amount, place) for amount in wanted]
        results = self.do(together(holds))
        assert isinstance(results, list)
        for hold, result in zip(holds, results, strict=True):
            if isinstance(result, Hold):
                assert self.model.refusing(hold) == ""
                self.model.holds[hold.hold_id] = hold
                self.model.note()
        for hold, result in zip(holds, results, strict=True):
            if not isinstance(result, Hold):
                assert isinstance(result, ResourceExhausted)
                assert self.model.refusing(hold)

    @precondition(lambda self: self.model.holds)
    @rule(pick=picks)
    def reserve_again(self, pick: int) -> None:
        hold = self.one(pick)
        later = self.now + timedelta(seconds=60)
        again = replace(hold, state=HoldState.HELD, amount_micros=10**6, create_time=self.now, expire_time=later)
        assert self.do(self.stores.holds.reserve(again)) == hold

    @precondition(lambda self: self.model.holds)
    @rule(pick=picks, cost=amounts)
    def settle(self, pick: int, cost: int) -> None:
        hold = self.one(pick)
        event = replace(an_event(), job=hold.job)
        record = a_record(event, tenant=self.tenant, cost_micros=cost, hold_id=hold.hold_id)
        record = replace(record, record_time=self.now, project=hold.project)
        if hold.state is HoldState.RELEASED:
            with pytest.raises(FailedPrecondition, match="HOLD_RELEASED"):
                self.do(self.stores.holds.settle(hold, record))
        elif hold.state is HoldState.SETTLED:
            (known,) = [r for r in self.model.records if r.hold_id == hold.hold_id]
            assert self.do(self.stores.holds.settle(hold, record)) == known
        else:
            assert self.do(self.stores.holds.settle(hold, record)) == record
            self.model.records.append(record)
            self.model.holds[hold.hold_id] = replace(hold, state=HoldState.SETTLED)
            self.model.note()

    @precondition(lambda self: self.model.records)
    @rule(pick=picks, amount=amounts)
    def settle_with_an_event_of_another(self, pick: int, amount: int) -> None:
        taken = self.model.records[pick % len(self.model.records)]
        hold = self.hold(amount, 0)
        if not self.model.refusing(hold):
            self.do(self.stores.holds.reserve(hold))
            self.model.holds[hold.hold_id] = hold
            self.model.note()
            with pytest.raises(AlreadyExists, match="EVENT_ID_REUSED"):
                self.do(self.stores.holds.settle(hold, replace(taken, hold_id=hold.hold_id)))

    @precondition(lambda self: self.model.holds)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        hold = self.one(pick)
        if hold.state is not HoldState.SETTLED:
            hold = self.model.holds[hold.hold_id] = replace(hold, state=HoldState.RELEASED)
        assert self.do(self.stores.holds.release(self.tenant, hold.hold_id)) == hold

    @rule(cost=amounts, place=picks)
    def record(self, cost: int, place: int) -> None:
        like = self.hold(0, place)
        event = replace(an_event(), job=like.job)
        record = a_record(event, tenant=self.tenant, cost_micros=cost)
        record = replace(record, record_time=self.now, project=like.project, actor=like.actor)
        for _ in range(2):  # again: counted once
            self.do(self.stores.usage.record([record]))
        self.model.records.append(record)
        self.model.note()

    @rule(index=st.integers(0, 6), period=st.sampled_from(Period), hard=limits, soft=limits)
    def create_budget(self, index: int, period: Period, hard: int | None, soft: int | None) -> None:
        subjects = (f"tenants/{self.tenant}", "projects/p", "projects/q", "jobs/j", "jobs/k")
        subject = (*subjects, "apiKeys/0000000000000000", "apiKeys/1111111111111111")[index]
        if hard is None and soft is None:
            hard = 1000
        budget = Budget(
            tenant=self.tenant,
            budget_id=f"b{len(self.model.budgets):03d}",
            subject=subject,
            period=period,
            hard_micros=hard,
            soft_micros=soft,
            create_time=self.now,
            update_time=self.now,
            made_hard_micros=hard,
            made_soft_micros=soft,
        )
        self.do(self.stores.budgets.create(budget))
        self.model.budgets[budget.budget_id] = budget
        self.model.note()

    @precondition(lambda self: self.model.budgets)
    @rule(pick=picks, kind=st.sampled_from(Limit), micros=limits)
    def change_budget(self, pick: int, kind: Limit, micros: int | None) -> None:
        budget = list(self.model.budgets.values())[pick % len(self.model.budgets)]
        changed = replace(budget, **{f"{kind.value.lower()}_micros": micros}, update_time=self.now)  # type: ignore[arg-type]
        refused: type[PagemeshError] | None = None
        if budget.delete_time is None and not changed.limits():
            refused = FailedPrecondition
        with pytest.raises(refused) if refused else contextlib.nullcontext():
            self.do(self.stores.budgets.change(self.tenant, budget.budget_id, NewLimits({kind: micros}), self.now))
        if budget.delete_time is None and refused is None:
            self.model.budgets[budget.budget_id] = changed
            self.model.note()

    @precondition(lambda self: self.model.budgets)
    @rule(pick=picks)
    def delete_budget(self, pick: int) -> None:
        budget = list(self.model.budgets.values())[pick % len(self.model.budgets)]
        self.do(self.stores.budgets.delete(self.tenant, budget.budget_id, self.now))
        if budget.delete_time is None:
            gone = replace(budget, delete_time=self.now, update_time=self.now)
            self.model.budgets[budget.budget_id] = gone

    @rule(hours=st.integers(-30, 100))
    def move_the_clock(self, hours: int) -> None:
        """Back too, but not before the last budget was made: what it never knew it need not tell."""
        newest = max((budget.create_time for budget in self.model.budgets.values()), default=NOW)
        self.now = max(self.now + timedelta(hours=hours), newest)

    @rule()
    def expire(self) -> None:
        self.do(self.stores.holds.expire(self.now, 10_000))
        for hold_id, hold in self.model.holds.items():
            if hold.state is HoldState.HELD and hold.expire_time <= self.now:
                self.model.holds[hold_id] = replace(hold, state=HoldState.UNKNOWN)

    @invariant()
    def both_say_the_same(self) -> None:
        listed = self.do(self.stores.budgets.list(self.tenant, subject="", after="", limit=1000, now=self.now))
        assert isinstance(listed, Sequence)
        live = [budget for budget in self.model.budgets.values() if budget.delete_time is None]
        assert [status.budget for status in listed] == live
        for budget, status in zip(live, listed, strict=True):
            start = budget.period.start(self.now)
            assert (status.start, status.settled_micros, status.held_micros) == (
                start,
                *self.model.totals(budget, start),
            )
            told = {(c.kind, c.limit_micros, c.percent) for c in status.crossings}
            assert told == {
                (kind, limit, percent)
                for budget_id, begun, kind, limit, percent in self.model.crossings
                if (budget_id, begun) == (budget.budget_id, start) and (kind, limit) in budget.limits()
            }


@pytest.mark.parametrize("kind", STORES)
def test_money_is_as_the_model_says(kind: str, database: Callable[[str], str]) -> None:
    with asyncio.Runner() as runner:
        opened = open_stores(kind, database)
        stores = runner.run(opened.__aenter__())
        try:
            machine = type("Money", (Money,), {"stores": stores, "run": staticmethod(runner.run)})
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=60 if kind == "memory" else 8,
                    stateful_step_count=30,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(opened.__aexit__(None, None, None))
