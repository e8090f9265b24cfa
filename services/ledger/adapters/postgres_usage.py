"""Usage records in Postgres."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, sql
from psycopg.types.numeric import Int8

from services.database.pool import Pool, translate
from services.ledger.adapters.budget_sheet import charge
from services.ledger.adapters.postgres_rows import (
    BIND_TENANT,
    SHARE_TENANT,
    TENANT_LOCK,
    USAGE_COLUMNS,
    record_of,
    statement,
)
from services.ledger.domain import refusals
from services.ledger.domain.values import Cursor, Recorded, Selection, UsageRecord, UsageReport

# One array for each column: one statement, whatever the size of the batch.
_INSERT_RECORDS = statement("""
    INSERT INTO ledger.usage_records ({usage})
    SELECT %(tenant)s, event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time,
           tags, cost_micros, %(version)s, NULL, %(actor)s, %(record_time)s, %(project)s, job
    FROM unnest(%(event_id)s::uuid[], %(model)s::text[], %(sent)s::bigint[], %(received)s::bigint[],
                %(operation)s::text[], %(document)s::text[], %(request_id)s::text[], %(occur_time)s::timestamptz[],
                %(tags)s::jsonb[], %(cost)s::bigint[], %(job)s::text[])
         AS e (event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time,
               tags, cost_micros, job)
    WHERE EXISTS (SELECT FROM ledger.tenants WHERE id = %(tenant)s)
    ON CONFLICT DO NOTHING RETURNING event_id
""")
_KNOWN_RECORDS = statement("SELECT {usage} FROM ledger.usage_records WHERE tenant = %s AND event_id = ANY(%s)")

_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
HELD = """
    SELECT coalesce(sum(amount_micros), 0)::bigint FROM ledger.holds
    WHERE tenant = %s AND state IN ('HELD', 'UNKNOWN')
"""

_LIST = sql.SQL("""
    SELECT {usage} FROM ledger.usage_records WHERE {chosen}
    ORDER BY occur_time DESC, event_id DESC LIMIT %(limit)s
""")
_TOTAL = sql.SQL("""
    SELECT coalesce(sum(cost_micros), 0)::bigint, count(*) FROM ledger.usage_records WHERE {chosen}
""")


class PostgresUsage:
    """UsageStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record(self, records: Sequence[UsageRecord]) -> Recorded:
        tenant = records[0].tenant
        with translate("record_usage"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(SHARE_TENANT, (TENANT_LOCK, tenant))
                cursor = await connection.execute(_INSERT_RECORDS, _columns(records))
                new = {event_id for (event_id,) in await cursor.fetchall()}
                known = [r for r in records if r.event.event_id not in new]
                if known:
                    await _check_known(connection, tenant, known)
                await charge(connection, tenant, [r for r in records if r.event.event_id in new])
        return Recorded(len(new), len(known))

    async def report(self, selection: Selection, after: Cursor | None, limit: int) -> UsageReport:
        rows_of, sums_of = list_statements(selection, after)
        values = list_values(selection, after, limit)
        with translate("report_usage"):
            async with (
                self._pool.connection() as connection,
                connection.pipeline(),
                connection.transaction(),
            ):
                await connection.execute(_SNAPSHOT)
                await connection.execute(BIND_TENANT, (selection.tenant,))
                page = await connection.execute(rows_of, values)
                total = await connection.execute(sums_of, values)
                held = await connection.execute(HELD, (selection.tenant,))
                rows = await page.fetchall()
                ((cost, count),) = await total.fetchall()
                ((held_micros,),) = await held.fetchall()
        return UsageReport(tuple(record_of(row) for row in rows), cost, count, held_micros)


async def _check_known(connection: AsyncConnection[tuple[Any, ...]], tenant: str, known: Sequence[UsageRecord]) -> None:
    """Raises where what was not inserted is not in the books as it is: the transaction is then undone."""
    cursor = await connection.execute(_KNOWN_RECORDS, (tenant, [r.event.event_id for r in known]))
    books: dict[UUID, UsageRecord] = {r.event.event_id: r for r in map(record_of, await cursor.fetchall())}
    if not books:
        raise refusals.tenant_unknown()
    if any(books[r.event.event_id].event != r.event for r in known):
        raise refusals.event_id_reused()


def _columns(records: Sequence[UsageRecord]) -> dict[str, Any]:
    # Always in the order of the ids, so that two batches with common events cannot wait for each other.
    ordered = sorted(records, key=lambda r: r.event.event_id)
    events = [r.event for r in ordered]
    return {
        "tenant": ordered[0].tenant,
        "version": ordered[0].price_book_version,
        "actor": ordered[0].actor,
        "record_time": ordered[0].record_time,
        "project": ordered[0].project,
        "event_id": [e.event_id for e in events],
        "model": [e.model for e in events],
        "sent": [Int8(e.tokens.sent) for e in events],
        "received": [Int8(e.tokens.received) for e in events],
        "operation": [e.operation for e in events],
        "document": [e.document for e in events],
        "request_id": [e.request_id for e in events],
        "occur_time": [e.occur_time for e in events],
        "tags": [json.dumps(dict(e.tags)) for e in events],
        "cost": [Int8(r.cost_micros) for r in ordered],
        "job": [e.job for e in events],
    }


def list_statements(selection: Selection, after: Cursor | None) -> tuple[sql.Composed, sql.Composed]:
    """The statements for one part of the records and for the sums over all; both take `list_values`."""
    rows = _LIST.format(usage=USAGE_COLUMNS, chosen=_conditions(selection, after))
    return rows, _TOTAL.format(chosen=_conditions(selection, None))


def list_values(selection: Selection, after: Cursor | None, limit: int) -> dict[str, Any]:
    """What the placeholders of `list_statements` stand for."""
    return {
        "tenant": selection.tenant,
        "start": selection.start,
        "end": selection.end,
        "request_id": selection.request_id,
        "document": selection.document,
        "after_time": after.occur_time if after else None,
        "after_id": after.event_id if after else None,
        "limit": limit,
    }


def _conditions(selection: Selection, after: Cursor | None) -> sql.Composable:
    """The selection as conditions that fit the indexes; what is not asked for is not in the statement."""
    parts = ["tenant = %(tenant)s"]
    if selection.start is not None:
        parts.append("occur_time >= %(start)s")
    if selection.end is not None:
        parts.append("occur_time < %(end)s")
    if selection.request_id:
        parts.append("request_id = %(request_id)s AND request_id <> ''")
    if selection.document:
        parts.append("document = %(document)s AND document <> ''")
    if after is not None:
        parts.append("(occur_time, event_id) < (%(after_time)s, %(after_id)s)")
    return sql.SQL(" AND ").join(sql.SQL(part) for part in parts)
