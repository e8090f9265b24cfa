"""Settlements of holds: each open hold is closed by its record, in the transaction that locks the holds.

One statement, and one JSON value for all records: a statement costs Python more than it costs Postgres, and an array
for each column still more.
"""

import json
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from services.ledger.adapters.postgres_rows import statement
from services.ledger.domain.values import UsageRecord

# An id goes first into the table that keeps ids, and holds, unique in all months. Holds are locked by id and ids
# inserted by event id, so that two groups cannot wait for each other. The lock reads a row as it is then, whatever the
# statement saw when it began.
_SETTLE = statement("""
    WITH asked AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(records)s::json) AS e (
            event_id uuid, hold_id uuid, model text, sent bigint, received bigint, operation text, document text,
            request_id text, occurred timestamptz, tags jsonb, cost bigint, version integer, actor text,
            recorded timestamptz, project text, job text)
    ), locked AS MATERIALIZED (
        SELECT hold_id, state FROM ledger.holds
        WHERE tenant = %(tenant)s AND hold_id = ANY(ARRAY(SELECT hold_id FROM asked)) ORDER BY hold_id FOR UPDATE
    ), e AS MATERIALIZED (
        SELECT asked.* FROM asked JOIN locked USING (hold_id) WHERE state IN ('HELD', 'UNKNOWN')
    ), fresh AS (
        INSERT INTO ledger.usage_ids (tenant, event_id, occur_time, hold_id)
        SELECT %(tenant)s::text, event_id, occurred, hold_id FROM e ORDER BY event_id
        ON CONFLICT DO NOTHING RETURNING event_id
    ), kept AS (
        INSERT INTO ledger.usage_records ({usage}, user_name)
        SELECT %(tenant)s::text, event_id, model, sent, received, operation, document, request_id, occurred, tags, cost,
               version, hold_id, actor, recorded, project, job, ledger.user_of(%(tenant)s::text, actor)
        FROM e JOIN fresh USING (event_id) RETURNING hold_id
    ), closed AS (
        UPDATE ledger.holds h SET state = 'SETTLED' FROM kept WHERE h.tenant = %(tenant)s AND h.hold_id = kept.hold_id
    )
    SELECT locked.hold_id, locked.state, kept.hold_id IS NOT NULL FROM locked LEFT JOIN kept USING (hold_id)
""")


async def settle_holds(
    connection: AsyncConnection[tuple[Any, ...]], tenant: str, records: Sequence[UsageRecord]
) -> AsyncCursor[tuple[Any, ...]]:
    """Sends the records. The cursor answers each of their holds with the state it was in, and whether it is settled by
    its record now: it is not where it was closed before, or where the event's id is another record's."""
    return await connection.execute(
        _SETTLE, {"tenant": tenant, "records": json.dumps([_columns(record) for record in records])}
    )


def _columns(record: UsageRecord) -> dict[str, object]:
    event = record.event
    return {
        "event_id": str(event.event_id),
        "hold_id": str(record.hold_id),
        "model": event.model,
        "sent": event.tokens.sent,
        "received": event.tokens.received,
        "operation": event.operation,
        "document": event.document,
        "request_id": event.request_id,
        "occurred": event.occur_time.isoformat(),
        "tags": dict(event.tags),
        "cost": record.cost_micros,
        "version": record.price_book_version,
        "actor": record.actor,
        "recorded": record.record_time.isoformat(),
        "project": record.project,
        "job": event.job,
    }
