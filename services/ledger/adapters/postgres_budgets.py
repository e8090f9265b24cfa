"""Budgets in Postgres. Whoever makes or changes one is alone with the tenant's money for that moment."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation

from services.database.pool import Pool, translate
from services.ledger.adapters.budget_alerts import tell_of
from services.ledger.adapters.budget_sheet import Line
from services.ledger.adapters.postgres_rows import BIND_TENANT, OWN_TENANT, TENANT_LOCK
from services.ledger.domain import refusals
from services.ledger.domain.budget_ports import MOST_BUDGETS, NewLimits
from services.ledger.domain.budgets import (
    OPERATOR_BUDGET,
    Budget,
    BudgetStatus,
    Crossing,
    Limit,
    Period,
)

Connection = AsyncConnection[tuple[Any, ...]]

_COLUMNS = """b.tenant, b.id, b.subject, b.period, b.hard_micros, b.soft_micros, b.create_time, b.update_time,
    b.operator, b.delete_time, b.made_hard_micros, b.made_soft_micros"""
_INSERT = """
    INSERT INTO ledger.budgets (tenant, id, subject, period, hard_micros, soft_micros, create_time, update_time,
                                operator, made_hard_micros, made_soft_micros)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_COUNT = "SELECT count(*) FROM ledger.budgets WHERE tenant = %s AND delete_time IS NULL"
_STATUS = f"""
    SELECT {_COLUMNS}, s.start, coalesce(p.settled_micros, 0), coalesce(p.held_micros, 0),
           coalesce(p.hard_reached, 0), coalesce(p.soft_reached, 0)
    FROM ledger.budgets b
    CROSS JOIN LATERAL (SELECT CASE b.period WHEN 'DAY' THEN %(day)s::timestamptz WHEN 'MONTH' THEN %(month)s
                                             ELSE '1970-01-01T00:00:00Z' END AS start) s
    LEFT JOIN ledger.budget_periods p ON p.tenant = b.tenant AND p.budget = b.id AND p.period_start = s.start
"""  # noqa: S608 - put together of constants
_FIND = _STATUS + " WHERE b.tenant = %(tenant)s AND b.id = %(id)s"
LIST = (
    _STATUS
    + """
    WHERE b.tenant = %(tenant)s AND b.delete_time IS NULL AND b.id > %(after)s
"""
)
LIST_END = " ORDER BY b.id LIMIT %(limit)s"
OF_SUBJECT = " AND b.subject = %(subject)s"
_CROSSINGS = """
    SELECT budget, kind, percent, limit_micros, reach_time FROM ledger.budget_alerts a
    JOIN unnest(%s::text[], %s::timestamptz[]) AS w (budget, start) USING (budget)
    WHERE a.tenant = %s AND a.period_start = w.start
"""
_CHANGE = """
    UPDATE ledger.budgets SET hard_micros = %(hard)s, soft_micros = %(soft)s, update_time = %(now)s
    WHERE tenant = %(tenant)s AND id = %(id)s
"""
_DELETE = """
    UPDATE ledger.budgets SET delete_time = %(now)s, update_time = %(now)s
    WHERE tenant = %(tenant)s AND id = %(id)s AND delete_time IS NULL
"""
_REACHED = """
    UPDATE ledger.budget_periods SET hard_reached = %(hard)s, soft_reached = %(soft)s
    WHERE tenant = %(tenant)s AND budget = %(id)s AND period_start = %(start)s
"""

# What was spent and held before the budget was made, from its current period on, and the next period with nothing: a
# replica whose clock is ahead may have remembered that it is there for all budgets of that time. A hold and its record
# count in the period in which the hold was made and for the key that made it, any other record in the one in which it
# was recorded.
_OF_SUBJECT = {
    "tenants": ("true", "true"),
    "projects": ("h.project = %(subject)s", "r.project = %(subject)s"),
    "apiKeys": ("h.actor = %(subject)s", "coalesce(h.actor, r.actor) = %(subject)s"),
    "jobs": ("h.job = %(subject)s", "r.job = %(subject)s"),
}
_UNIT = {Period.DAY: "date_trunc('day', {}, 'UTC')", Period.MONTH: "date_trunc('month', {}, 'UTC')"}
_COUNT_BEFORE = """
    INSERT INTO ledger.budget_periods (tenant, budget, period_start, settled_micros, held_micros)
    SELECT %(tenant)s, %(id)s, start, sum(settled), sum(held) FROM (
        SELECT {unit_of_hold} AS start, 0 AS settled, amount_micros AS held FROM ledger.holds h
        WHERE tenant = %(tenant)s AND state IN ('HELD', 'UNKNOWN') AND create_time >= %(start)s AND {of_hold}
        UNION ALL
        {spent}
        UNION ALL
        SELECT %(start)s::timestamptz, 0, 0
        UNION ALL
        SELECT %(next)s::timestamptz, 0, 0
    ) AS before GROUP BY start
"""
_SPENT_BY_RECORDS = """
        SELECT {unit_of_record}, cost_micros, 0 FROM (
            SELECT r.cost_micros, coalesce(h.create_time, r.record_time) AS time
            FROM ledger.usage_records r
            LEFT JOIN ledger.holds h ON h.tenant = r.tenant AND h.hold_id = r.hold_id
            WHERE r.tenant = %(tenant)s AND r.cost_micros > 0 AND {of_record} AND r.record_time >= {since}
        ) AS spent WHERE time >= %(start)s
"""
# A call is recorded after its hold was made, and after its key was, but for what the clocks of replicas differ by: the
# index by that time shows the records of the period, or of the life of a key. Of a key that is not there, all.
_SINCE_START = "%(start)s::timestamptz - interval '1 day'"
_SINCE_KEY = """
    (SELECT coalesce(min(k.create_time), '-infinity') - interval '1 day' FROM ledger.api_keys k
     WHERE k.tenant = %(tenant)s AND 'apiKeys/' || k.id = %(subject)s)
"""
# A budget without periods asks for all that its subject ever cost, which the sums of whole days and what is queued for
# them know: exactly, because nobody else records for the tenant now, and one statement sees a sum in one of the tables.
# Nothing else can be asked of them. They go by the time at which a call happened, and a day or a month of a budget by
# the time at which its hold was made or it was recorded; they know the key that settled, and a budget of a key counts
# the key that reserved.
_SPENT_BY_SUMS = """
        SELECT %(start)s::timestamptz, coalesce(sum(cost_micros), 0), 0 FROM (
            SELECT cost_micros FROM ledger.usage_rollups
            WHERE tenant = %(tenant)s AND span_hours = 24 AND {of_sum}
            UNION ALL
            SELECT cost_micros FROM ledger.usage_deltas WHERE tenant = %(tenant)s AND {of_sum}
        ) AS sums
"""
_OF_SUM = {
    "tenants": "facet = ''",
    "projects": "facet = '' AND project = %(subject)s",
    "jobs": "facet = 'job' AND value = %(subject)s",
}


class PostgresBudgets:
    """BudgetStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, budget: Budget) -> BudgetStatus:
        async with _alone(self._pool, budget.tenant, "create_budget") as connection:
            known = await _find(connection, budget.tenant, budget.budget_id, budget.create_time)
            if known is not None:
                return known
            ((count,),) = await (await connection.execute(_COUNT, (budget.tenant,))).fetchall()
            if count >= MOST_BUDGETS:
                raise refusals.too_many_budgets(MOST_BUDGETS)
            return await _keep(connection, budget)

    async def find(self, tenant: str, budget_id: str, now: datetime) -> BudgetStatus | None:
        with translate("find_budget"):
            async with self._pool.connection() as connection:
                await connection.execute(BIND_TENANT, (tenant,))
                return await _find(connection, tenant, budget_id, now)

    async def list(self, tenant: str, *, subject: str, after: str, limit: int, now: datetime) -> Sequence[BudgetStatus]:
        query = LIST + (OF_SUBJECT if subject else "") + LIST_END
        values = {**_times(now), "tenant": tenant, "subject": subject, "after": after, "limit": limit}
        with translate("list_budgets"):
            async with self._pool.connection() as connection:
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(query.encode(), values)
                return await _with_crossings(connection, tenant, [_line(row) for row in await cursor.fetchall()])

    async def change(self, tenant: str, budget_id: str, limits: NewLimits, now: datetime) -> BudgetStatus | None:
        async with _alone(self._pool, tenant, "change_budget") as connection:
            known = await _find(connection, tenant, budget_id, now)
            if known is None or known.budget.delete_time is not None:
                return None
            return await _change(connection, known.budget, limits, now)

    async def delete(self, tenant: str, budget_id: str, now: datetime) -> BudgetStatus | None:
        async with _alone(self._pool, tenant, "delete_budget") as connection:
            await connection.execute(_DELETE, {"tenant": tenant, "id": budget_id, "now": now})
            return await _find(connection, tenant, budget_id, now)


async def set_operator_limit(pool: Pool, tenant: str, hard_micros: int, now: datetime) -> None:
    """Makes or changes the budget that the operator sets. Raises FailedPrecondition TENANT_UNKNOWN."""
    async with _alone(pool, tenant, "set_hard_budget") as connection:
        known = await _find(connection, tenant, OPERATOR_BUDGET, now)
        if known is not None:
            await _change(connection, known.budget, NewLimits({Limit.HARD: hard_micros}), now)
            return
        await _keep(
            connection,
            Budget(
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
            ),
        )


@contextlib.asynccontextmanager
async def _alone(pool: Pool, tenant: str, operation: str) -> AsyncIterator[Connection]:
    """A transaction that is alone with the tenant's books; the sums in it are read after that."""
    with translate(operation):
        try:
            async with pool.connection() as connection, connection.transaction():
                await connection.execute(OWN_TENANT, (TENANT_LOCK, tenant))
                yield connection
        except ForeignKeyViolation as exc:
            raise refusals.tenant_unknown() from exc


async def _keep(connection: Connection, budget: Budget) -> BudgetStatus:
    await connection.execute(
        _INSERT,
        (
            budget.tenant,
            budget.budget_id,
            budget.subject,
            budget.period.value,
            budget.hard_micros,
            budget.soft_micros,
            budget.create_time,
            budget.update_time,
            budget.operator,
            budget.made_hard_micros,
            budget.made_soft_micros,
        ),
    )
    start = budget.period.start(budget.create_time)
    values = {
        "tenant": budget.tenant,
        "id": budget.budget_id,
        "subject": budget.subject,
        "start": start,
        "next": budget.period.end(start) or start,
    }
    await connection.execute(count_before(budget.subject, budget.period).encode(), values)
    return await _reach(connection, budget, budget.create_time)


def count_before(subject: str, period: Period) -> str:
    """The statement that begins a budget's totals with what was spent and held before."""
    kind = subject.partition("/")[0]
    unit = _UNIT.get(period, "%(start)s::timestamptz")
    of_hold, of_record = _OF_SUBJECT[kind]
    if period is Period.TOTAL and kind in _OF_SUM:
        spent = _SPENT_BY_SUMS.format(of_sum=_OF_SUM[kind])
    else:
        spent = _SPENT_BY_RECORDS.format(
            unit_of_record=unit.format("time"),
            of_record=of_record,
            since=_SINCE_KEY if period is Period.TOTAL else _SINCE_START,
        )
    return _COUNT_BEFORE.format(unit_of_hold=unit.format("create_time"), of_hold=of_hold, spent=spent)


async def _change(connection: Connection, budget: Budget, limits: NewLimits, now: datetime) -> BudgetStatus:
    new = {Limit.HARD: budget.hard_micros, Limit.SOFT: budget.soft_micros, **limits.micros}
    if all(micros is None for micros in new.values()):
        raise refusals.budget_without_limit()
    values = {
        "tenant": budget.tenant,
        "id": budget.budget_id,
        "hard": new[Limit.HARD],
        "soft": new[Limit.SOFT],
        "now": now,
    }
    await connection.execute(_CHANGE, values)
    return await _reach(connection, budget, now)


async def _reach(connection: Connection, budget: Budget, now: datetime) -> BudgetStatus:
    """Finds the thresholds that the totals have reached, as if there had been none before: alerts are kept once."""
    line = await _find_line(connection, budget.tenant, budget.budget_id, now)
    assert line is not None
    line.reached = dict.fromkeys(Limit, 0)
    alerts = line.cross(now)
    if alerts:
        await tell_of(connection, budget.tenant, alerts)
    values = {
        "tenant": budget.tenant,
        "id": budget.budget_id,
        "start": line.start,
        "hard": line.reached[Limit.HARD],
        "soft": line.reached[Limit.SOFT],
    }
    await connection.execute(_REACHED, values)
    return (await _with_crossings(connection, budget.tenant, [line]))[0]


async def _find(connection: Connection, tenant: str, budget_id: str, now: datetime) -> BudgetStatus | None:
    line = await _find_line(connection, tenant, budget_id, now)
    return None if line is None else (await _with_crossings(connection, tenant, [line]))[0]


async def _find_line(connection: Connection, tenant: str, budget_id: str, now: datetime) -> Line | None:
    cursor = await connection.execute(_FIND.encode(), {**_times(now), "tenant": tenant, "id": budget_id})
    row = await cursor.fetchone()
    return None if row is None else _line(row)


async def _with_crossings(connection: Connection, tenant: str, lines: Sequence[Line]) -> list[BudgetStatus]:
    """The lines with the thresholds that were reached of the limits as they are now."""
    places = [line.budget.budget_id for line in lines], [line.start for line in lines], tenant
    found: dict[str, list[Crossing]] = {}
    for budget_id, kind, percent, limit, time in await (await connection.execute(_CROSSINGS, places)).fetchall():
        found.setdefault(budget_id, []).append(Crossing(Limit(kind), percent, limit, time))
    return [_status(line, found.get(line.budget.budget_id, ())) for line in lines]


def _status(line: Line, crossings: Sequence[Crossing]) -> BudgetStatus:
    limits = line.budget.limits()
    kept = sorted(
        (crossing for crossing in crossings if (crossing.kind, crossing.limit_micros) in limits),
        key=lambda crossing: (crossing.kind.value, crossing.percent),
    )
    return BudgetStatus(line.budget, line.start, line.settled_micros, line.held_micros, tuple(kept))


def _line(row: Sequence[Any]) -> Line:
    tenant, budget_id, subject, period, hard, soft, created, updated, operator, deleted, made_hard, made_soft = row[:12]
    start, settled, held, hard_reached, soft_reached = row[12:]
    budget = Budget(
        tenant=tenant,
        budget_id=budget_id,
        subject=subject,
        period=Period(period),
        hard_micros=hard,
        soft_micros=soft,
        create_time=created,
        update_time=updated,
        operator=operator,
        delete_time=deleted,
        made_hard_micros=made_hard,
        made_soft_micros=made_soft,
    )
    return Line(budget, start, settled, held, {Limit.HARD: hard_reached, Limit.SOFT: soft_reached})


def _times(now: datetime) -> dict[str, datetime]:
    return {"day": Period.DAY.start(now), "month": Period.MONTH.start(now)}
