"""Recording usage in Postgres, a batch in one statement."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.numeric import Int8

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_partitions import PostgresPartitions
from services.ledger.adapters.postgres_rows import SHARE_TENANT, TENANT_LOCK, record_of, statement
from services.ledger.adapters.postgres_usage_rows import RECORDS_OF_EVENTS
from services.ledger.domain import refusals
from services.ledger.domain.values import Recorded, UsageRecord

# One array for each column: one statement, whatever the size of the batch. An id that is known, or that another
# transaction has just brought, goes no further than the table of ids.
_INSERT_RECORDS = statement("""
    WITH e AS MATERIALIZED (
        SELECT * FROM unnest(
            %(event_id)b::uuid[], %(model)b::text[], %(sent)b::bigint[], %(received)b::bigint[], %(operation)b::text[],
            %(document)b::text[], %(request_id)b::text[], %(occur_time)b::timestamptz[], %(tags)b::text[],
            %(cost)b::bigint[], %(job)b::text[]
        ) AS e (event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time, tags,
                cost_micros, job)
    ), fresh AS (
        INSERT INTO ledger.usage_ids (tenant, event_id, occur_time)
        SELECT %(tenant)s::text, event_id, occur_time FROM e
        WHERE EXISTS (SELECT FROM ledger.tenants WHERE id = %(tenant)s::text)
        ON CONFLICT DO NOTHING RETURNING event_id
    ), kept AS (
        INSERT INTO ledger.usage_records ({usage}, user_name)
        SELECT %(tenant)s::text, event_id, model, input_tokens, output_tokens, operation, document, request_id,
               occur_time, tags::jsonb, cost_micros, %(version)s, NULL, %(actor)s::text, %(record_time)s,
               %(project)s::text, job, (SELECT ledger.user_of(%(tenant)s::text, %(actor)s::text))
        FROM e JOIN fresh USING (event_id) RETURNING cost_micros
    )
    SELECT count(*), coalesce(sum(cost_micros), 0)::bigint FROM kept
""")
_SPEND = "UPDATE ledger.budgets SET settled_micros = settled_micros + %s WHERE tenant = %s"

Connection = AsyncConnection[tuple[Any, ...]]


class PostgresUsage:
    """UsageStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._partitions = PostgresPartitions(pool)

    async def prepare(self, times: Iterable[datetime]) -> None:
        await self._partitions.ensure(times)

    async def record(self, records: Sequence[UsageRecord]) -> Recorded:
        tenant = records[0].tenant
        await self.prepare(r.event.occur_time for r in records)
        with translate("record_usage"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(SHARE_TENANT, (TENANT_LOCK, tenant))
                inserted = await connection.execute(_INSERT_RECORDS, _columns(records))
                ((count, spent),) = await inserted.fetchall()
                if count < len(records):
                    await _check_known(connection, tenant, records)
                if spent:  # answers from a cache cost nothing: they lock no budget
                    await _spend(connection, tenant, spent)
        return Recorded(count, len(records) - count)


async def _spend(connection: Connection, tenant: str, spent: int) -> None:
    """Moves the tenant's budgets; sent together with the commit."""
    await connection.execute(_SPEND, (spent, tenant))


async def _check_known(connection: Connection, tenant: str, records: Sequence[UsageRecord]) -> None:
    """Raises where what was not inserted is not in the books as it is: the transaction is then undone."""
    ids = [r.event.event_id for r in records]
    cursor = await connection.execute(RECORDS_OF_EVENTS, {"tenant": tenant, "ids": ids})
    books: dict[UUID, UsageRecord] = {r.event.event_id: r for r in map(record_of, await cursor.fetchall())}
    if not books:
        raise refusals.tenant_unknown()
    if any(books[r.event.event_id].event != r.event for r in records):
        raise refusals.event_id_reused()


def _columns(records: Sequence[UsageRecord]) -> dict[str, Any]:
    # Always in the order of the ids, so that two batches with common events cannot wait for each other.
    ordered = sorted(records, key=lambda r: r.event.event_id)
    events = [r.event for r in ordered]
    first = ordered[0]
    return {
        "tenant": first.tenant,
        "version": first.price_book_version,
        "actor": first.actor,
        "record_time": first.record_time,
        "project": first.project,
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
