"""The totals of budgets within one transaction: locked, asked for room, moved, written, with the alerts they cause."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from services.ledger.adapters.budget_alerts import Alert, tell_of
from services.ledger.domain import refusals
from services.ledger.domain.budgets import Budget, Limit, Period, crossed, reached
from services.ledger.domain.values import Hold

Connection = AsyncConnection[tuple[Any, ...]]
Wanted = Iterable[tuple[tuple[str, ...], datetime]]
"""Subjects, and a time: the periods of their budgets that the time is in are meant."""

_REMEMBERED_PERIODS = 20_000
# Whatever two transactions want, they lock it in one order, which is in this function alone.
_LOCK = "SELECT ledger.lock_totals(%s, %s, %s)"
_WRITE = "SELECT ledger.write_totals(%s, %s)"


@dataclass(slots=True)
class Line:
    """The totals of one budget in one period."""

    budget: Budget
    start: datetime
    settled_micros: int
    held_micros: int
    reached: dict[Limit, int]
    moved: bool = False

    def move(self, *, held: int = 0, settled: int = 0) -> None:
        """Changes the totals."""
        self.held_micros += held
        self.settled_micros += settled
        self.moved = True

    def cross(self, time: datetime) -> list[Alert]:
        """The thresholds that the totals have reached now and not before, which are remembered."""
        alerts = []
        for kind, limit in self.budget.limits():
            now = reached(limit, self.settled_micros + self.held_micros)
            for percent in crossed(self.reached[kind], now):
                alerts.append(
                    Alert(self.budget, self.start, kind, percent, limit, self.settled_micros, self.held_micros, time)
                )
            self.reached[kind] = max(now, self.reached[kind])
        return alerts


class OpenedPeriods:
    """The subjects whose budgets have their totals of a day, as this process remembers: they need not be begun again.

    That stays true. A budget that was there then has its row, and one that is made begins its current period and the
    next one itself.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, datetime], None] = OrderedDict()

    def has(self, tenant: str, subjects: tuple[str, ...], time: datetime) -> bool:
        """Whether all of them are known."""
        day = Period.DAY.start(time)
        return all((tenant, subject, day) in self._known for subject in subjects)

    def add(self, tenant: str, subjects: tuple[str, ...], time: datetime) -> None:
        """Remembers them, once their transaction is committed."""
        day = Period.DAY.start(time)
        for subject in subjects:
            self._known[tenant, subject, day] = None
        while len(self._known) > _REMEMBERED_PERIODS:
            self._known.popitem(last=False)


@dataclass(slots=True)
class BudgetSheet:
    """The locked totals of a tenant's budgets that a transaction is about."""

    tenant: str
    _lines: dict[str, list[Line]] = field(default_factory=dict)
    _alerts: list[Alert] = field(default_factory=list)

    def periods(
        self, *, spending: Wanted, closing: Wanted = (), opened: "OpenedPeriods | None" = None
    ) -> tuple[str | None, str]:
        """What `ledger.lock_totals` is asked for: the totals of `spending`, which begin where they are not there; of
        `closing`, which count only where they are, because what a budget does not know of it need not forget.

        The tenant is shared or owned by the transaction. `opened` are the periods that need not be begun.
        """
        spending = list(spending)
        new = [one for one in spending if opened is None or not opened.has(self.tenant, *one)]
        return _wanted(new) if new else None, _wanted([*spending, *closing])

    async def lock(self, connection: Connection, *, spending: Wanted, opened: "OpenedPeriods | None" = None) -> None:
        """Locks the totals of `spending` and reads them."""
        cursor = await connection.execute(_LOCK, (self.tenant, *self.periods(spending=spending, opened=opened)))
        ((rows,),) = await cursor.fetchall()
        self.read(rows)

    def take(self, hold: Hold, of: tuple[str, ...]) -> None:
        """Sets the hold's amount aside in every budget. Raises ResourceExhausted BUDGET_EXCEEDED, and nothing moves."""
        lines = self._of(of, hold.create_time)
        for line in lines:
            hard = line.budget.hard_micros
            if hard is not None and line.settled_micros + line.held_micros + hold.amount_micros > hard:
                raise refusals.budget_exceeded(
                    hold, line.budget, settled_micros=line.settled_micros, held_micros=line.held_micros
                )
        for line in lines:
            line.move(held=hold.amount_micros)
            self._alerts += line.cross(hold.create_time)

    def close(self, hold: Hold, of: tuple[str, ...], *, spent_micros: int, time: datetime) -> None:
        """Frees the hold's amount, and counts what its call cost in the same periods."""
        for line in self._of(of, hold.create_time):
            line.move(held=-hold.amount_micros, settled=spent_micros)
            self._alerts += line.cross(time)

    def spend(self, of: tuple[str, ...], spent_micros: int, time: datetime) -> None:
        """Counts what calls without holds cost, in the periods in which they are recorded."""
        for line in self._of(of, time):
            line.move(settled=spent_micros)
            self._alerts += line.cross(time)

    def lines(self) -> str | None:
        """The totals that were moved, as `ledger.write_totals` takes them; None where there are none."""
        moved = [line for lines in self._lines.values() for line in lines if line.moved]
        return json.dumps([_columns(line) for line in moved]) if moved else None

    async def tell(self, connection: Connection) -> None:
        """Sends the alerts."""
        if self._alerts:
            await tell_of(connection, self.tenant, self._alerts)

    async def write(self, connection: Connection) -> None:
        """Sends the totals that were moved, and the alerts."""
        lines = self.lines()
        if lines is not None:
            await connection.execute(_WRITE, (self.tenant, lines))
        await self.tell(connection)

    def read(self, rows: Sequence[Sequence[Any]] | None) -> None:
        """Takes in what `ledger.lock_totals` answered."""
        for row in rows or ():
            self._add(row)

    def _add(self, row: Sequence[Any]) -> None:
        """One total; a period that several calls want comes once for each of them."""
        budget_id, subject, period, hard, soft, created, updated, operator = row[:8]
        first, settled, held, hard_reached, soft_reached = row[8:]
        start = datetime.fromisoformat(first)
        lines = self._lines.setdefault(subject, [])
        if any(line.budget.budget_id == budget_id and line.start == start for line in lines):
            return
        budget = Budget(
            tenant=self.tenant,
            budget_id=budget_id,
            subject=subject,
            period=Period(period),
            hard_micros=hard,
            soft_micros=soft,
            create_time=datetime.fromisoformat(created),
            update_time=datetime.fromisoformat(updated),
            operator=operator,
        )
        before = {Limit.HARD: hard_reached, Limit.SOFT: soft_reached}
        lines.append(Line(budget, start, settled, held, before))

    def _of(self, subjects: tuple[str, ...], time: datetime) -> list[Line]:
        return [
            line
            for subject in subjects
            for line in self._lines.get(subject, ())
            if line.start == line.budget.period.start(time)
        ]


async def charge(
    connection: Connection,
    tenant: str,
    spent: Mapping[tuple[str, ...], int],
    time: datetime,
    *,
    opened: OpenedPeriods | None = None,
) -> None:
    """Counts what calls without holds cost against the tenant's budgets, by the subjects of the calls, in the
    transaction that keeps their records.

    `opened` are the periods that need not be begun; what is charged here may be added to it after the commit.
    """
    # In a fixed order, and without answers from a cache, which cost nothing: they lock no budget.
    priced = {subjects: spent[subjects] for subjects in sorted(spent) if spent[subjects]}
    if not priced:
        return
    sheet = BudgetSheet(tenant)
    await sheet.lock(connection, spending=[(subjects, time) for subjects in priced], opened=opened)
    for subjects, micros in priced.items():
        sheet.spend(subjects, micros, time)
    await sheet.write(connection)


def _wanted(wanted: Sequence[tuple[tuple[str, ...], datetime]]) -> str:
    places = {(subject, Period.DAY.start(time)) for subjects, time in wanted for subject in subjects}
    rows = [
        {"subject": subject, "day": day.isoformat(), "month": Period.MONTH.start(day).isoformat()}
        for subject, day in places
    ]
    return json.dumps(rows)


def _columns(line: Line) -> dict[str, object]:
    return {
        "budget": line.budget.budget_id,
        "start": line.start.isoformat(),
        "settled": line.settled_micros,
        "held": line.held_micros,
        "hard": line.reached[Limit.HARD],
        "soft": line.reached[Limit.SOFT],
    }
