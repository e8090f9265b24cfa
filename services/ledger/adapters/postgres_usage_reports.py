"""Reports of usage out of Postgres, or out of a replica of it."""

from datetime import datetime

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_rows import BIND_TENANT, record_of
from services.ledger.adapters.usage_statements import Question
from services.ledger.domain.usage_values import (
    UNGROUPED,
    ExportedRecord,
    ExportPart,
    Grouping,
    UsageGroup,
    UsageReport,
)
from services.ledger.domain.values import Cursor, Selection

_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
HELD = """
    SELECT coalesce(sum(amount_micros), 0)::bigint FROM ledger.holds
    WHERE tenant = %s AND state IN ('HELD', 'UNKNOWN')
"""
FIRST_HOUR = """
    SELECT least(
        (SELECT begin_time FROM ledger.usage_rollups WHERE tenant = %(tenant)s AND facet = '' AND span_hours = 1
         ORDER BY begin_time LIMIT 1),
        (SELECT hour FROM ledger.usage_deltas WHERE tenant = %(tenant)s AND facet = '' ORDER BY hour LIMIT 1)
    )
"""


class PostgresUsageReports:
    """UsageReports."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def report(
        self, selection: Selection, after: Cursor | None, limit: int, grouping: Grouping = UNGROUPED
    ) -> UsageReport:
        question = Question(selection, grouping)
        rows_of, totals_of = question.records(after, limit), question.totals()
        groups_of = question.groups() if grouping.by else None
        with translate("report_usage"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(_SNAPSHOT)
                await connection.execute(BIND_TENANT, (selection.tenant,))
                page = await connection.execute(rows_of, question.values)
                total = await connection.execute(totals_of, question.values)
                held = await connection.execute(HELD, (selection.tenant,))
                grouped = None if groups_of is None else await connection.execute(groups_of, question.values)
                rows = await page.fetchall()
                ((cost, count),) = await total.fetchall()
                ((held_micros,),) = await held.fetchall()
                groups = [] if grouped is None else await grouped.fetchall()
        found = tuple(UsageGroup(row[:-4], *row[-4:]) for row in groups[: grouping.limit])
        more = len(groups) > grouping.limit
        return UsageReport(tuple(record_of(row) for row in rows), cost, count, held_micros, found, more)

    async def groups(self, selection: Selection, grouping: Grouping) -> tuple[UsageGroup, ...]:
        question = Question(selection, grouping)
        statement = question.groups()
        with translate("group_usage"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(BIND_TENANT, (selection.tenant,))
                rows = await (await connection.execute(statement, question.values)).fetchall()
        return tuple(UsageGroup(row[:-4], *row[-4:]) for row in rows[: grouping.limit])

    async def first_hour(self, tenant: str) -> datetime | None:
        with translate("first_usage"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                ((hour,),) = await (await connection.execute(FIRST_HOUR, {"tenant": tenant})).fetchall()
        return hour if isinstance(hour, datetime) else None

    async def export(self, selection: Selection, after: Cursor | None, limit: int) -> ExportPart:
        question = Question(selection)
        statement = question.export(after, limit)
        with translate("export_usage"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(BIND_TENANT, (selection.tenant,))
                rows = await (await connection.execute(statement, question.values)).fetchall()
        records = [(record_of(row[:-2]), row[-2], row[-1]) for row in rows]
        chosen = tuple(ExportedRecord(record, user) for record, user, fits in records if fits)
        last = records[-1][0].event if len(rows) == limit else None
        return ExportPart(chosen, None if last is None else Cursor(last.occur_time, last.event_id))
