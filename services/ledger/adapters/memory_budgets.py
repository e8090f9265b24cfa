"""Budgets in memory. Totals are summed up from the books each time: slow, and right by itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from services.ledger.domain import refusals
from services.ledger.domain.budget_ports import MOST_BUDGETS, NewLimits
from services.ledger.domain.budgets import (
    OPERATOR_BUDGET,
    Budget,
    BudgetStatus,
    Crossing,
    Limit,
    Period,
    crossed,
    reached,
    subjects_of_hold,
    subjects_of_record,
)
from services.ledger.domain.values import Hold

if TYPE_CHECKING:
    from services.ledger.adapters.memory import MemoryLedger


def check_room(ledger: "MemoryLedger", hold: Hold) -> None:
    """Raises ResourceExhausted BUDGET_EXCEEDED where a budget of the hold has no room for it."""
    for subject in subjects_of_hold(hold):
        for budget in _live(ledger, hold.tenant, subject):
            settled, held = _totals(ledger, budget, budget.period.start(hold.create_time))
            if budget.hard_micros is not None and settled + held + hold.amount_micros > budget.hard_micros:
                raise refusals.budget_exceeded(hold, budget, settled_micros=settled, held_micros=held)


def note_crossings(ledger: "MemoryLedger", tenant: str, moment: datetime, time: datetime) -> None:
    """Keeps the thresholds that the tenant's budgets have reached in the periods that `moment` is in."""
    for budget in _live(ledger, tenant):
        start = budget.period.start(moment)
        used = sum(_totals(ledger, budget, start))
        for kind, limit in budget.limits():
            for percent in crossed(0, reached(limit, used)):
                key = (tenant, budget.budget_id, start, kind, limit, percent)
                ledger.alerts.setdefault(key, Crossing(kind, percent, limit, time))


def set_operator_limit(ledger: "MemoryLedger", tenant: str, hard_micros: int, now: datetime) -> None:
    """Makes or changes the budget that the operator sets."""
    ledger.check_tenant(tenant)
    known = ledger.budgets.get((tenant, OPERATOR_BUDGET))
    if known is not None:
        ledger.budgets[tenant, OPERATOR_BUDGET] = replace(known, hard_micros=hard_micros, update_time=now)
    else:
        ledger.budgets[tenant, OPERATOR_BUDGET] = Budget(
            tenant=tenant,
            budget_id=OPERATOR_BUDGET,
            subject=f"tenants/{tenant}",
            period=Period.TOTAL,
            hard_micros=hard_micros,
            soft_micros=None,
            create_time=now,
            update_time=now,
            operator=True,
            made_hard_micros=hard_micros,
        )
    note_crossings(ledger, tenant, now, now)


class MemoryBudgets:
    """BudgetStore."""

    def __init__(self, ledger: "MemoryLedger") -> None:
        self._ledger = ledger

    async def create(self, budget: Budget) -> BudgetStatus:
        self._ledger.check_tenant(budget.tenant)
        place = (budget.tenant, budget.budget_id)
        if place not in self._ledger.budgets:
            if sum(1 for _ in _live(self._ledger, budget.tenant)) >= MOST_BUDGETS:
                raise refusals.too_many_budgets(MOST_BUDGETS)
            self._ledger.budgets[place] = budget
            note_crossings(self._ledger, budget.tenant, budget.create_time, budget.create_time)
        return self._status(self._ledger.budgets[place], budget.create_time)

    async def find(self, tenant: str, budget_id: str, now: datetime) -> BudgetStatus | None:
        found = self._ledger.budgets.get((tenant, budget_id))
        return None if found is None else self._status(found, now)

    async def list(self, tenant: str, *, subject: str, after: str, limit: int, now: datetime) -> Sequence[BudgetStatus]:
        found = [budget for budget in _live(self._ledger, tenant, subject) if budget.budget_id > after]
        return [self._status(budget, now) for budget in found[:limit]]

    async def change(self, tenant: str, budget_id: str, limits: NewLimits, now: datetime) -> BudgetStatus | None:
        known = self._ledger.budgets.get((tenant, budget_id))
        if known is None or known.delete_time is not None:
            return None
        new = {Limit.HARD: known.hard_micros, Limit.SOFT: known.soft_micros, **limits.micros}
        if all(micros is None for micros in new.values()):
            raise refusals.budget_without_limit()
        changed = replace(known, hard_micros=new[Limit.HARD], soft_micros=new[Limit.SOFT], update_time=now)
        self._ledger.budgets[tenant, budget_id] = changed
        note_crossings(self._ledger, tenant, now, now)
        return self._status(changed, now)

    async def delete(self, tenant: str, budget_id: str, now: datetime) -> BudgetStatus | None:
        known = self._ledger.budgets.get((tenant, budget_id))
        if known is None:
            return None
        if known.delete_time is None:
            known = self._ledger.budgets[tenant, budget_id] = replace(known, delete_time=now, update_time=now)
        return self._status(known, now)

    def _status(self, budget: Budget, now: datetime) -> BudgetStatus:
        start = budget.period.start(now)
        settled, held = _totals(self._ledger, budget, start)
        crossings = [
            crossing
            for (tenant, budget_id, begun, kind, limit, _), crossing in self._ledger.alerts.items()
            if (tenant, budget_id, begun) == (budget.tenant, budget.budget_id, start)
            and (kind, limit) in budget.limits()
        ]
        crossings.sort(key=lambda crossing: (crossing.kind.value, crossing.percent))
        return BudgetStatus(budget, start, settled, held, tuple(crossings))


def _live(ledger: "MemoryLedger", tenant: str, subject: str = "") -> Iterator[Budget]:
    """The budgets that are not deleted, by id; of one subject, or of all."""
    for (owner, _), budget in sorted(ledger.budgets.items()):
        if owner == tenant and budget.delete_time is None and subject in ("", budget.subject):
            yield budget


def _totals(ledger: "MemoryLedger", budget: Budget, start: datetime) -> tuple[int, int]:
    """What was settled and what is held in the period that begins at `start`."""
    held = settled = 0
    for hold in ledger.holds.values():
        if hold.tenant == budget.tenant and hold.state.counts and budget.subject in subjects_of_hold(hold):
            held += hold.amount_micros if budget.period.start(hold.create_time) == start else 0
    for record in ledger.usage.values():
        made = ledger.holds.get((record.tenant, record.hold_id)) if record.hold_id is not None else None
        whose = subjects_of_record(record) if made is None else subjects_of_hold(made)
        time = record.record_time if made is None else made.create_time
        if record.tenant == budget.tenant and budget.subject in whose and budget.period.start(time) == start:
            settled += record.cost_micros
    return settled, held
