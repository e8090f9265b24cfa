"""How one usage record is written and found. Its id goes first, into the table that keeps ids unique in all months."""

from typing import Any

from psycopg.types.json import Jsonb

from services.ledger.adapters.postgres_rows import statement
from services.ledger.domain.values import UsageRecord

INSERT_RECORD = statement("""
    WITH fresh AS (
        INSERT INTO ledger.usage_ids (tenant, event_id, occur_time, hold_id)
        VALUES (%(tenant)s::text, %(event_id)s, %(occur_time)s, %(hold_id)s::uuid)
        ON CONFLICT DO NOTHING RETURNING event_id
    )
    INSERT INTO ledger.usage_records ({usage}, user_name)
    SELECT %(tenant)s::text, event_id, %(model)s::text, %(sent)s, %(received)s, %(operation)s::text, %(document)s::text,
           %(request_id)s::text, %(occur_time)s, %(tags)s, %(cost)s, %(version)s, %(hold_id)s::uuid, %(actor)s::text,
           %(record_time)s, %(project)s::text, %(job)s::text, ledger.user_of(%(tenant)s::text, %(actor)s::text)
    FROM fresh RETURNING event_id
""")
"""Answers no row where the id, or another record of the hold, is in the books. Takes `record_values`."""

RECORD_OF_HOLD = statement("""
    SELECT {usage} FROM ledger.usage_records WHERE tenant = %(tenant)s AND (occur_time, event_id) IN
        (SELECT occur_time, event_id FROM ledger.usage_ids WHERE tenant = %(tenant)s AND hold_id = %(hold_id)s)
""")
RECORDS_OF_EVENTS = statement("""
    SELECT {usage} FROM ledger.usage_records WHERE tenant = %(tenant)s AND (occur_time, event_id) IN
        (SELECT occur_time, event_id FROM ledger.usage_ids WHERE tenant = %(tenant)s AND event_id = ANY(%(ids)s))
""")


def record_values(record: UsageRecord) -> dict[str, Any]:
    """What the placeholders of INSERT_RECORD stand for."""
    event = record.event
    return {
        "tenant": record.tenant,
        "event_id": event.event_id,
        "model": event.model,
        "sent": event.tokens.sent,
        "received": event.tokens.received,
        "operation": event.operation,
        "document": event.document,
        "request_id": event.request_id,
        "occur_time": event.occur_time,
        "tags": Jsonb(dict(event.tags)),
        "cost": record.cost_micros,
        "version": record.price_book_version,
        "hold_id": record.hold_id,
        "actor": record.actor,
        "record_time": record.record_time,
        "project": record.project,
        "job": event.job,
    }
