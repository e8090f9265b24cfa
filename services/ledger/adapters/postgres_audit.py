"""The audit chains in Postgres."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.numeric import Int2, Int8

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_rows import BIND_TENANT
from services.ledger.domain.audit import (
    MAX_AHEAD,
    Appended,
    AuditCursor,
    AuditEvent,
    AuditRecord,
    AuditSelection,
    ChainHead,
)
from services.ledger.domain.audit_chain import extend, genesis

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_LOCK_SPACE = 7108
"""Key space of these locks among the database's advisory locks."""
# One chain is extended by one transaction at a time; those of other tenants do not wait.
_LOCK = "SELECT pg_advisory_xact_lock(%s, hashtext(%s))"
_HEAD = "SELECT sequence, hash, record_time FROM ledger.audit_heads WHERE tenant = %s"
# An event is chained less than MAX_AHEAD before its own time, and later as a rule: older partitions are not looked at.
# One by one in the index of ids: of a month that is new the planner knows nothing, and would read all of a tenant.
_KNOWN = """
    SELECT asked.id FROM unnest(%(ids)b::uuid[]) AS asked (id) CROSS JOIN LATERAL (
        SELECT FROM ledger.audit_events
        WHERE tenant = %(tenant)s AND event_id = asked.id AND record_time >= %(since)s LIMIT 1
    ) AS known
"""
_COLUMNS = sql.SQL(
    "tenant, sequence, record_time, event_id, occur_time, request_id, actor, client, action, resource, code, reason,"
    " duration_micros, details, previous_hash, hash"
)
# One array for each column: one statement, whatever the size of the batch.
_INSERT = sql.SQL("""
    INSERT INTO ledger.audit_events ({columns})
    SELECT %(tenant)s, sequence, %(record_time)s, event_id, occur_time, request_id, actor, client, action, resource,
           code, reason, duration_micros, details, previous_hash, hash
    FROM unnest(%(sequence)b::bigint[], %(event_id)b::uuid[], %(occur_time)b::timestamptz[], %(request_id)b::text[],
                %(actor)b::text[], %(client)b::text[], %(action)b::text[], %(resource)b::text[],
                %(code)b::smallint[], %(reason)b::text[], %(duration)b::bigint[], %(details)s::jsonb[],
                %(previous_hash)b::bytea[], %(hash)b::bytea[])
         AS e (sequence, event_id, occur_time, request_id, actor, client, action, resource, code, reason,
               duration_micros, details, previous_hash, hash)
""").format(columns=_COLUMNS)
_MOVE_HEAD = """
    INSERT INTO ledger.audit_heads (tenant, sequence, hash, record_time) VALUES (%s, %s, %s, %s)
    ON CONFLICT (tenant) DO UPDATE
    SET sequence = excluded.sequence, hash = excluded.hash, record_time = excluded.record_time
"""
_ADD_PARTITION = "SELECT ledger.add_audit_partition(%s)"
_LIST = sql.SQL("""
    SELECT {columns} FROM ledger.audit_events WHERE {chosen}
    ORDER BY occur_time DESC, sequence DESC LIMIT %(limit)s
""")
_READ = sql.SQL("""
    SELECT {columns} FROM ledger.audit_events
    WHERE tenant = %(tenant)s AND sequence > %(after)s AND sequence <= %(until)s
    ORDER BY sequence, record_time LIMIT %(limit)s
""").format(columns=_COLUMNS)
# What the first record follows is written down where it is not the first of all. Where nothing fits, the newest place
# that is written down is told: the proof then says what is missing.
_BEGINNING = """
    WITH first AS (
        SELECT sequence FROM ledger.audit_events WHERE tenant = %(tenant)s ORDER BY sequence LIMIT 1
    )
    SELECT c.sequence, c.hash, c.record_time FROM ledger.audit_checkpoints AS c
    WHERE c.tenant = %(tenant)s AND (SELECT sequence FROM first) IS DISTINCT FROM 1
    ORDER BY c.sequence = (SELECT sequence FROM first) - 1 DESC NULLS LAST, c.sequence DESC LIMIT 1
"""


class PostgresAudit:
    """AuditStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def append(self, tenant: str, events: Sequence[AuditEvent], now: datetime) -> Appended:
        with translate("append_audit_events"):
            try:
                return await self._append(tenant, events, now)
            except psycopg.errors.CheckViolation as exc:
                if "partition" not in str(exc):
                    raise
                # The month was not made ahead: the clock was set, or nobody served for months.
                await self._add_partition(tenant, now)
                return await self._append(tenant, events, now)

    async def _append(self, tenant: str, events: Sequence[AuditEvent], now: datetime) -> Appended:
        fresh = list({event.event_id: event for event in reversed(events)}.values())[::-1]
        since = min(event.occur_time for event in fresh) - MAX_AHEAD
        async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
            await connection.execute(BIND_TENANT, (tenant,))
            await connection.execute(_LOCK, (_LOCK_SPACE, tenant))
            found = await connection.execute(_HEAD, (tenant,))
            ids = [event.event_id for event in fresh]
            known_rows = await connection.execute(_KNOWN, {"tenant": tenant, "ids": ids, "since": since})
            row = await found.fetchone()
            known = {event_id for (event_id,) in await known_rows.fetchall()}
            records = extend(_place(row, tenant), [e for e in fresh if e.event_id not in known], now)
            if records:
                head = records[-1].head
                await connection.execute(_INSERT, _arrays(records))
                await connection.execute(_MOVE_HEAD, (tenant, head.sequence, head.hash, head.record_time))
        return Appended(len(records), len(events) - len(records))

    async def _add_partition(self, tenant: str, now: datetime) -> None:
        head = await self.head(tenant)
        async with self._pool.connection() as connection:
            await connection.execute(_ADD_PARTITION, (max(now, head.record_time or now),))

    async def head(self, tenant: str) -> ChainHead:
        return await self._one(_HEAD, (tenant,), tenant)

    async def beginning(self, tenant: str) -> ChainHead:
        return await self._one(_BEGINNING, {"tenant": tenant}, tenant)

    async def list(self, selection: AuditSelection, after: AuditCursor | None, limit: int) -> Sequence[AuditRecord]:
        return await self._records(
            selection.tenant, list_statement(selection, after), list_values(selection, after, limit)
        )

    async def read(self, tenant: str, after: int, until: int, limit: int) -> Sequence[AuditRecord]:
        values = {"tenant": tenant, "after": after, "until": until, "limit": limit}
        return await self._records(tenant, _READ, values)

    async def _records(self, tenant: str, statement: sql.Composed, values: dict[str, Any]) -> Sequence[AuditRecord]:
        with translate("read_audit_events"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(statement, values)
                rows = await cursor.fetchall()
        return [_record_of(row) for row in rows]

    async def _one(self, statement: str, values: Any, tenant: str) -> ChainHead:
        with translate("read_audit_head"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(statement, values)
                row = await cursor.fetchone()
        return _place(row, tenant)


def list_statement(selection: AuditSelection, after: AuditCursor | None) -> sql.Composed:
    """The statement for one part of the list; it takes `list_values`."""
    parts = ["tenant = %(tenant)s"]
    if selection.start is not None:
        parts.append("occur_time >= %(start)s AND record_time >= %(oldest)s")
    if selection.end is not None:
        parts.append("occur_time < %(end)s")
    if selection.actor:
        parts.append("actor = %(actor)s")
    if selection.action:
        parts.append("action = %(action)s")
    if selection.resource:
        parts.append("resource = %(resource)s AND resource <> ''")
    if selection.failed is not None:
        parts.append("code <> 0" if selection.failed else "code = 0")
    if selection.code:
        parts.append("code = %(code)s AND code <> 0")
    if after is not None:
        parts.append("(occur_time, sequence) < (%(after_time)s, %(after_sequence)s)")
    return _LIST.format(columns=_COLUMNS, chosen=sql.SQL(" AND ").join(sql.SQL(part) for part in parts))


def list_values(selection: AuditSelection, after: AuditCursor | None, limit: int) -> dict[str, Any]:
    """What the placeholders of `list_statement` stand for."""
    return {
        "tenant": selection.tenant,
        "start": selection.start,
        "oldest": _before(selection.start, MAX_AHEAD) if selection.start else None,
        "end": selection.end,
        "actor": selection.actor,
        "action": selection.action,
        "resource": selection.resource,
        "code": selection.code,
        "after_time": after.occur_time if after else None,
        "after_sequence": after.sequence if after else None,
        "limit": limit,
    }


def _before(time: datetime, by: timedelta) -> datetime:
    return max(time - by, datetime(1970, 1, 1, tzinfo=UTC))


def _place(row: Sequence[Any] | None, tenant: str) -> ChainHead:
    if row is None:
        return genesis(tenant)
    sequence, digest, record_time = row
    return ChainHead(sequence, digest, record_time)


def _arrays(records: Sequence[AuditRecord]) -> dict[str, Any]:
    events = [record.event for record in records]
    return {
        "tenant": events[0].tenant,
        "record_time": records[0].record_time,
        "sequence": [Int8(record.sequence) for record in records],
        "event_id": [event.event_id for event in events],
        "occur_time": [event.occur_time for event in events],
        "request_id": [event.request_id for event in events],
        "actor": [event.actor for event in events],
        "client": [event.client for event in events],
        "action": [event.action for event in events],
        "resource": [event.resource for event in events],
        "code": [Int2(event.code) for event in events],
        "reason": [event.reason for event in events],
        "duration": [Int8(event.duration_micros) for event in events],
        "details": [json.dumps(dict(event.details)) for event in events],
        "previous_hash": [record.previous_hash for record in records],
        "hash": [record.hash for record in records],
    }


def _record_of(row: Sequence[Any]) -> AuditRecord:
    tenant, sequence, recorded, event_id, occurred, request_id, actor, client, action, resource = row[:10]
    code, reason, duration, details, previous_hash, digest = row[10:]
    event = AuditEvent(
        event_id=event_id,
        tenant=tenant,
        occur_time=occurred,
        action=action,
        request_id=request_id,
        actor=actor,
        client=client,
        resource=resource,
        code=code,
        reason=reason,
        duration_micros=duration,
        details=details,
    )
    return AuditRecord(event, sequence, recorded, previous_hash, digest)
