"""Recording usage in Postgres, a batch in one statement."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from services.database.pool import Pool, translate
from services.ledger.adapters.binary_arrays import BigintArray, TextArray, TimeArray, UuidArray
from services.ledger.adapters.budget_sheet import charge
from services.ledger.adapters.postgres_partitions import PostgresPartitions
from services.ledger.adapters.postgres_rows import SHARE_TENANT, TENANT_LOCK, record_of, statement
from services.ledger.adapters.postgres_usage_rows import RECORDS_OF_EVENTS
from services.ledger.domain import refusals
from services.ledger.domain.values import Recorded, UsageRecord

# One array for each column: one statement, whatever the size of the batch.
_EVENTS: LiteralString = """
    WITH e AS MATERIALIZED (
        SELECT * FROM unnest(
            %(event_id)b::uuid[], %(model)b::text[], %(sent)b::bigint[], %(received)b::bigint[], %(operation)b::text[],
            %(document)b::text[], %(request_id)b::text[], %(occur_time)b::timestamptz[], %(tags)b::text[],
            %(cost)b::bigint[], %(job)b::text[]
        ) AS e (event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time, tags,
                cost_micros, job)
        WHERE EXISTS (SELECT FROM ledger.tenants WHERE id = %(tenant)s::text)
    )
"""
_RECORD: LiteralString = """
    INSERT INTO ledger.usage_records ({usage}, user_name)
    SELECT %(tenant)s::text, event_id, model, input_tokens, output_tokens, operation, document, request_id,
           occur_time, tags::jsonb, cost_micros, %(version)s, NULL, %(actor)s::text, %(record_time)s,
           %(project)s::text, job, (SELECT ledger.user_of(%(tenant)s::text, %(actor)s::text))
"""
_IDS: LiteralString = """
    INSERT INTO ledger.usage_ids (tenant, event_id, occur_time) SELECT %(tenant)s::text, event_id, occur_time FROM e
"""
# As a rule every id is new, and this fails where one is not; looking first would take a third longer.
_INSERT_NEW = statement(f"{_EVENTS}, ids AS ({_IDS}) {_RECORD} FROM e")
# An id that is known, or that another transaction has just brought, goes no further than the table of ids.
_INSERT_UNKNOWN = statement(f"""
    {_EVENTS}, fresh AS ({_IDS} ON CONFLICT DO NOTHING RETURNING event_id),
    kept AS ({_RECORD} FROM e JOIN fresh USING (event_id) RETURNING event_id)
    SELECT event_id FROM kept
""")  # noqa: S608  # of the constants above

Connection = AsyncConnection[tuple[Any, ...]]


class PostgresUsage:
    """UsageStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._partitions = PostgresPartitions(pool)

    async def record(self, records: Sequence[UsageRecord]) -> Recorded:
        await self._partitions.ensure(r.event.occur_time for r in records)
        values = _columns(records)
        with translate("record_usage"):
            async with self._pool.connection() as connection:
                try:
                    count = await _record_new(connection, records, values)
                except UniqueViolation:
                    count = await _record_unknown(connection, records, values)
        return Recorded(count, len(records) - count)


async def _record_new(connection: Connection, records: Sequence[UsageRecord], values: dict[str, Any]) -> int:
    """One transaction, for records whose ids are all new. Raises UniqueViolation where they are not."""
    async with connection.pipeline(), connection.transaction():
        await connection.execute(SHARE_TENANT, (TENANT_LOCK, values["tenant"]))
        inserted = await connection.execute(_INSERT_NEW, values)
        await charge(connection, values["tenant"], records)
    if inserted.rowcount < len(records):
        raise refusals.tenant_unknown()
    return len(records)


async def _record_unknown(connection: Connection, records: Sequence[UsageRecord], values: dict[str, Any]) -> int:
    """One transaction, for records of which some are known; answers how many were not."""
    async with connection.pipeline(), connection.transaction():
        await connection.execute(SHARE_TENANT, (TENANT_LOCK, values["tenant"]))
        inserted = await connection.execute(_INSERT_UNKNOWN, values)
        new = {event_id for (event_id,) in await inserted.fetchall()}
        if len(new) < len(records):
            await _check_known(connection, values["tenant"], records)
        await charge(connection, values["tenant"], [r for r in records if r.event.event_id in new])
    return len(new)


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
    ordered = sorted(records, key=lambda r: r.event.event_id.int)
    events = [r.event for r in ordered]
    first = ordered[0]
    return {
        "tenant": first.tenant,
        "version": first.price_book_version,
        "actor": first.actor,
        "record_time": first.record_time,
        "project": first.project,
        "event_id": UuidArray.of([e.event_id for e in events]),
        "model": TextArray.of([e.model for e in events]),
        "sent": BigintArray.of([e.tokens.sent for e in events]),
        "received": BigintArray.of([e.tokens.received for e in events]),
        "operation": TextArray.of([e.operation for e in events]),
        "document": TextArray.of([e.document for e in events]),
        "request_id": TextArray.of([e.request_id for e in events]),
        "occur_time": TimeArray.of([e.occur_time for e in events]),
        "tags": TextArray.of([_json(e.tags) for e in events]),
        "cost": BigintArray.of([r.cost_micros for r in ordered]),
        "job": TextArray.of([e.job for e in events]),
    }


def _json(tags: Mapping[str, str]) -> str:
    return json.dumps(dict(tags)) if tags else "{}"
