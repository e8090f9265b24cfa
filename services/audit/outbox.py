"""Events in the service's own schema, until the ledger has acknowledged them.

The table is `{schema}.audit_outbox`, made by the service's migrations.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pagemesh.ledger.v1 import audit_pb2
from services.audit.event import Event
from services.database.pool import Pool, translate

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_LOCK_SPACE = 7110
"""Key space among the database's advisory locks: one replica feeds at a time, so that the order is kept."""
MAX_REASON_CHARS = 200

# Everything in one statement, which is one round trip and a transaction by itself.
_KEEP = """
    INSERT INTO {table} (tenant, event_id, event)
    SELECT tenant, event_id, event
    FROM (SELECT set_config('pagemesh.across', 'audit_outbox', true) OFFSET 0) AS across
    CROSS JOIN unnest(%(tenant)b::text[], %(event_id)b::uuid[], %(event)b::bytea[])
         WITH ORDINALITY AS e (tenant, event_id, event, place)
    ORDER BY place
"""
_ADD = "INSERT INTO {table} (tenant, event_id, event) VALUES (%s, %s, %b)"
_ACROSS = "SELECT set_config('pagemesh.across', 'audit_outbox', true)"
_LOCK = "SELECT pg_try_advisory_xact_lock(%s, hashtext({name}))"
_TAKE = "SELECT position, event FROM {table} WHERE parked_reason IS NULL ORDER BY position LIMIT %s"
_DONE = "DELETE FROM {table} WHERE position = ANY(%s)"
_PARK = "UPDATE {table} SET parked_reason = %s WHERE position = %s"
_BACKLOG = """
    SELECT count(*) FILTER (WHERE parked_reason IS NULL), count(*) FILTER (WHERE parked_reason IS NOT NULL),
           coalesce(extract(epoch FROM now() - min(create_time) FILTER (WHERE parked_reason IS NULL)), 0)
    FROM {table}
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A row of the outbox."""

    position: int
    event: audit_pb2.AuditEvent


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is in the outbox."""

    waiting: int
    parked: int
    oldest_age_s: float


class AuditOutbox:
    """The outbox of one service."""

    def __init__(self, pool: Pool, *, schema: str) -> None:
        self._pool = pool
        self._schema = schema
        self._keep = _statement(_KEEP, schema)

    async def keep(self, events: Sequence[Event]) -> None:
        """Makes the events durable, in their order; all or none."""
        messages = [event.to_message() for event in events]
        values = {
            "tenant": [event.tenant for event in events],
            "event_id": [event.event_id for event in events],
            "event": [message.SerializeToString() for message in messages],
        }
        with translate("keep_audit_events"):
            async with self._pool.connection() as connection:
                await connection.execute(self._keep, values)

    @contextlib.asynccontextmanager
    async def feeding(self) -> AsyncIterator["Feeding | None"]:
        """A transaction in which this replica alone feeds; None where another one does."""
        with translate("feed_audit_events"):
            async with self._pool.connection() as connection, connection.transaction():
                cursor = await connection.execute(_statement(_LOCK, self._schema), (_LOCK_SPACE,))
                row = await cursor.fetchone()
                if row is None or not row[0]:
                    yield None
                    return
                await connection.execute(_ACROSS)
                yield Feeding(connection, self._schema)


class Feeding:
    """What a feeder does in its transaction."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def take(self, limit: int) -> list[Told]:
        """The oldest rows, at most `limit`."""
        cursor = await self._connection.execute(_statement(_TAKE, self._schema), (limit,))
        return [Told(position, audit_pb2.AuditEvent.FromString(data)) for position, data in await cursor.fetchall()]

    async def done(self, rows: Sequence[Told]) -> None:
        """The ledger has them."""
        await self._connection.execute(_statement(_DONE, self._schema), ([row.position for row in rows],))

    async def park(self, row: Told, reason: str) -> None:
        """The ledger will never take it as it is."""
        await self._connection.execute(_statement(_PARK, self._schema), (reason[:MAX_REASON_CHARS], row.position))

    async def backlog(self) -> Backlog:
        """What is left."""
        cursor = await self._connection.execute(_statement(_BACKLOG, self._schema))
        row = await cursor.fetchone()
        assert row is not None
        return Backlog(row[0], row[1], float(row[2]))


async def add(connection: Connection, schema: str, event: Event) -> None:
    """Writes an event in the transaction of what it tells of, which is bound to its tenant."""
    values = (event.tenant, event.event_id, event.to_message().SerializeToString())
    await connection.execute(_statement(_ADD, schema), values)


def event_id_of(text: str) -> uuid.UUID:
    """The id of an event that tells of something which has an id of 32 hexadecimal digits itself: the same for ever."""
    return uuid.UUID(hex=text)


def _statement(text: LiteralString, schema: str) -> sql.Composed:
    return sql.SQL(text).format(
        table=sql.Identifier(schema, "audit_outbox"), name=sql.Literal(f"{schema}.audit_outbox")
    )
