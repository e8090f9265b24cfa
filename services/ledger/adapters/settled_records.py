"""Usage records of settlements: kept only where their hold is open, in the transaction that has locked the holds."""

import json
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.types.numeric import Int8

from services.ledger.adapters.postgres_rows import statement
from services.ledger.domain.values import UsageRecord

# The id goes first, into the table that keeps ids, and holds, unique in all months.
_INSERT = statement("""
    WITH e AS MATERIALIZED (
    SELECT * FROM unnest(%(event_id)s::uuid[], %(model)s::text[], %(sent)s::bigint[], %(received)s::bigint[],
                %(operation)s::text[], %(document)s::text[], %(request_id)s::text[], %(occur_time)s::timestamptz[],
                %(tags)s::jsonb[], %(cost)s::bigint[], %(version)s::integer[], %(hold_id)s::uuid[], %(actor)s::text[],
                %(record_time)s::timestamptz[], %(project)s::text[], %(job)s::text[])
         AS e (event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time,
               tags, cost_micros, version, hold_id, actor, record_time, project, job)
    WHERE EXISTS (SELECT FROM ledger.holds h WHERE h.tenant = %(tenant)s::text AND h.hold_id = e.hold_id
                  AND h.state IN ('HELD', 'UNKNOWN'))
    ), fresh AS (
    INSERT INTO ledger.usage_ids (tenant, event_id, occur_time, hold_id)
    SELECT %(tenant)s::text, event_id, occur_time, hold_id FROM e ON CONFLICT DO NOTHING RETURNING event_id
    )
    INSERT INTO ledger.usage_records ({usage}, user_name)
    SELECT %(tenant)s::text, event_id, model, input_tokens, output_tokens, operation, document, request_id, occur_time,
           tags, cost_micros, version, hold_id, actor, record_time, project, job,
           ledger.user_of(%(tenant)s::text, actor)
    FROM e JOIN fresh USING (event_id) RETURNING hold_id
""")


async def insert_records(
    connection: AsyncConnection[tuple[Any, ...]], tenant: str, records: Sequence[UsageRecord]
) -> AsyncCursor[tuple[Any, ...]]:
    """Sends the records; the cursor answers the holds whose record was kept. In the order of the event ids, so that two
    groups with common events cannot wait for each other."""
    ordered = sorted(records, key=lambda r: r.event.event_id)
    events = [r.event for r in ordered]
    return await connection.execute(
        _INSERT,
        {
            "tenant": tenant,
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
            "version": [r.price_book_version for r in ordered],
            "hold_id": [r.hold_id for r in ordered],
            "actor": [r.actor for r in ordered],
            "record_time": [r.record_time for r in ordered],
            "project": [r.project for r in ordered],
            "job": [e.job for e in events],
        },
    )
