"""Recording usage in Postgres, a batch in one statement."""

import contextlib
import json
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.errors import PipelineAborted, UniqueViolation

from services.database.pool import Pool, translate
from services.ledger.adapters import cost_signals
from services.ledger.adapters.binary_arrays import BigintArray, TextArray, TimeArray, UuidArray
from services.ledger.adapters.budget_sheet import OpenedPeriods, charge
from services.ledger.adapters.postgres_partitions import PostgresPartitions
from services.ledger.adapters.postgres_rows import SHARE_TENANT, TENANT_LOCK, record_of, statement
from services.ledger.adapters.postgres_usage_rows import RECORDS_OF_EVENTS
from services.ledger.domain import refusals
from services.ledger.domain.budgets import subjects
from services.ledger.domain.usage_batch import RecordBatch, time_of
from services.ledger.domain.usage_window import month_of
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
# In the order of the ids, so that two batches with common events cannot wait for each other.
_IDS: LiteralString = """
    INSERT INTO ledger.usage_ids (tenant, event_id, occur_time) SELECT %(tenant)s::text, event_id, occur_time FROM e
    ORDER BY event_id
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
        self._opened = OpenedPeriods()

    async def record(self, records: Collection[UsageRecord]) -> Recorded:
        batch = RecordBatch.of(records)
        await self._partitions.ensure(_months(batch.events.occur_micros))
        values, spent = _columns(batch), _spent(batch)
        with translate("record_usage"):
            async with self._pool.connection() as connection:
                try:
                    count = await _record_new(connection, batch, values, spent, self._opened)
                except UniqueViolation:
                    await connection.rollback()
                    count = await _record_unknown(connection, batch, values)
        if count == len(batch):
            cost_signals.recorded(batch.events.models, batch.costs_micros)
            for whose in spent:
                self._opened.add(batch.tenant, whose, batch.record_time)
        return Recorded(count, len(batch) - count)


async def _record_new(
    connection: Connection,
    batch: RecordBatch,
    values: dict[str, Any],
    spent: Mapping[tuple[str, ...], int],
    opened: OpenedPeriods,
) -> int:
    """One transaction, for records whose ids are all new. Raises UniqueViolation where they are not."""
    # Begun by its first statement and ended by its last: transaction() in a pipeline makes a round trip of its
    # beginning, of its writes and of its end. What breaks it off is undone by the pool.
    async with connection.pipeline() as pipeline:
        try:
            await connection.execute(SHARE_TENANT, (TENANT_LOCK, batch.tenant))
            inserted = await connection.execute(_INSERT_NEW, values)
            await charge(connection, batch.tenant, spent, batch.record_time, opened=opened)
            await connection.execute("COMMIT", prepare=False)
        except UniqueViolation:
            # What was sent behind it has failed too, and would be told at the end of the pipeline.
            with contextlib.suppress(PipelineAborted):
                await pipeline.sync()
            raise
    if inserted.rowcount < len(batch):  # a tenant that is not there has no budgets either: nothing was written
        raise refusals.tenant_unknown()
    return len(batch)


async def _record_unknown(connection: Connection, batch: RecordBatch, values: dict[str, Any]) -> int:
    """One transaction, for records of which some are known; answers how many were not."""
    async with connection.pipeline(), connection.transaction():
        await connection.execute(SHARE_TENANT, (TENANT_LOCK, batch.tenant))
        inserted = await connection.execute(_INSERT_UNKNOWN, values)
        new = {event_id.bytes for (event_id,) in await inserted.fetchall()}
        if len(new) < len(batch):
            await _check_known(connection, batch)
        await charge(connection, batch.tenant, _spent(batch, new), batch.record_time)
    return len(new)


async def _check_known(connection: Connection, batch: RecordBatch) -> None:
    """Raises where what was not inserted is not in the books as it is: the transaction is then undone."""
    ids = [event.event_id for event in batch.events]
    cursor = await connection.execute(RECORDS_OF_EVENTS, {"tenant": batch.tenant, "ids": ids})
    books: dict[UUID, UsageRecord] = {r.event.event_id: r for r in map(record_of, await cursor.fetchall())}
    if not books:
        raise refusals.tenant_unknown()
    if any(books[event.event_id].event != event for event in batch.events):
        raise refusals.event_id_reused()


def _months(occur_micros: Sequence[int]) -> Iterable[datetime]:
    """A time in each month that has one of them."""
    ends = [time_of(min(occur_micros)), time_of(max(occur_micros))]
    return ends if month_of(ends[0]) == month_of(ends[1]) else map(time_of, occur_micros)


def _spent(batch: RecordBatch, new: Container[bytes] | None = None) -> dict[tuple[str, ...], int]:
    """What the records cost, or those with new ids, by the subjects whose budgets they count against."""
    by_job: dict[str, int] = {}
    events = batch.events
    for event_id, job, cost in zip(events.event_ids, events.jobs, batch.costs_micros, strict=True):
        if new is None or event_id in new:
            by_job[job] = by_job.get(job, 0) + cost
    return {
        subjects(batch.tenant, project=batch.project, actor=batch.actor, job=job): cost for job, cost in by_job.items()
    }


def _columns(batch: RecordBatch) -> dict[str, Any]:
    events = batch.events
    return {
        "tenant": batch.tenant,
        "version": batch.price_book_version,
        "actor": batch.actor,
        "record_time": batch.record_time,
        "project": batch.project,
        "event_id": UuidArray.of(events.event_ids),
        "model": TextArray.of(events.models),
        "sent": BigintArray.of(events.sent),
        "received": BigintArray.of(events.received),
        "operation": TextArray.of(events.operations),
        "document": TextArray.of(events.documents),
        "request_id": TextArray.of(events.request_ids),
        "occur_time": TimeArray.of(events.occur_micros),
        "tags": TextArray.of(_json(events.tags)),
        "cost": BigintArray.of(batch.costs_micros),
        "job": TextArray.of(events.jobs),
    }


def _json(tags: Sequence[Mapping[str, str]]) -> list[str]:
    """Mappings that are shared are written once."""
    texts = {id(each): json.dumps(dict(each)) for each in {id(each): each for each in tags}.values()}
    return [texts[id(each)] for each in tags]
