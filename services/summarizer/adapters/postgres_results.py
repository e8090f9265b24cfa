"""Paid answers and the outbox in Postgres: what was bought and what is owed are one transaction."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from services.database.pool import Pool, translate
from services.summarizer.adapters import encoding
from services.summarizer.domain.ports import Backlog, Committed, DueDelivery
from services.summarizer.domain.values import Answer, Caller, Delivery, TokenCount, UsageEvent

DIRECT_GRACE_S = 5.0
"""A new delivery is due after this time: until then the one who made it is delivering it himself."""
MAX_REASON_CHARS = 200

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_FIND = """
    SELECT content_key, answer, event_id::text, use_time < now() - interval '1 day'
    FROM summarizer.results
    WHERE tenant = %(tenant)s AND content_key = ANY(%(keys)s)
"""
# Whoever has a row already writes the same: nobody waits for another one.
TOUCH = """
    UPDATE summarizer.results SET use_time = now()
    FROM (
        SELECT content_key FROM summarizer.results WHERE tenant = %(tenant)s AND content_key = ANY(%(keys)s)
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS used
    WHERE results.tenant = %(tenant)s AND results.content_key = used.content_key
"""
_ACROSS = "SELECT set_config('pagemesh.across', 'answers', true)"
# What somebody is at is passed over. A day more: so late may the last use have been written.
FORGET_UNUSED = """
    DELETE FROM summarizer.results USING (
        SELECT tenant, content_key FROM summarizer.results
        WHERE use_time < now() - make_interval(secs => %(unused_s)s) - interval '1 day'
        ORDER BY use_time LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS unused
    WHERE results.tenant = unused.tenant AND results.content_key = unused.content_key
"""
# An answer that was committed first stays: what others already read must not change.
# One for a document that was purged since the work began is not kept.
_COMMIT = """
    WITH others AS (
        SELECT name, number FROM unnest(%(others)s::text[], %(generations)s::int[]) AS given (name, number)
    ), kept AS (
        INSERT INTO summarizer.results (tenant, content_key, answer, event_id, document)
        SELECT %(tenant)s, %(key)s, %(answer)s, %(event_id)s, %(document)s
        WHERE NOT EXISTS (
            SELECT 1 FROM (SELECT name, number FROM others UNION ALL SELECT %(document)s, %(generation)s) AS own
            LEFT JOIN summarizer.purges ON purges.tenant = %(tenant)s AND purges.document = own.name
            WHERE own.number <> coalesce(purges.generation, 0))
        ON CONFLICT (tenant, content_key) DO NOTHING
        RETURNING content_key
    )
    INSERT INTO summarizer.result_documents (tenant, document, content_key)
    SELECT %(tenant)s, name, content_key FROM kept CROSS JOIN others
"""
# Commits of one document go together; a purge waits for them, and they for it. Released with the transaction.
_LOCK_SHARED = """
    SELECT pg_advisory_xact_lock_shared(hashtextextended(%(tenant)s || '/' || name, 0))
    FROM unnest(%(others)s::text[] || %(document)s::text) AS name
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%(tenant)s || '/' || %(document)s, 0))"
_GENERATION = "SELECT generation FROM summarizer.purges WHERE tenant = %(tenant)s AND document = %(document)s"
_NEXT_GENERATION = """
    INSERT INTO summarizer.purges (tenant, document, generation) VALUES (%(tenant)s, %(document)s, 1)
    ON CONFLICT (tenant, document) DO UPDATE SET generation = purges.generation + 1, purge_time = now()
"""
_PURGE = """
    DELETE FROM summarizer.results WHERE tenant = %(tenant)s AND content_key IN (
        SELECT content_key FROM summarizer.results WHERE tenant = %(tenant)s AND document = %(document)s
        UNION ALL
        SELECT content_key FROM summarizer.result_documents WHERE tenant = %(tenant)s AND document = %(document)s)
"""
# No run is that old, so none is left that knows an earlier number.
_FORGET_PURGES = "DELETE FROM summarizer.purges WHERE tenant = %(tenant)s AND purge_time < now() - interval '1 day'"
_ADD = """
    INSERT INTO summarizer.outbox (hold_id, tenant, actor, project, request_id, event, due_time)
    VALUES (%(hold_id)s, %(tenant)s, %(actor)s, %(project)s, %(request_id)s, %(event)s,
            now() + make_interval(secs => %(grace_s)s))
    ON CONFLICT (hold_id) DO NOTHING
"""
# SKIP LOCKED lets several replicas take different rows; the new due time is the lease.
_TAKE = """
    UPDATE summarizer.outbox AS o
    SET due_time = now() + make_interval(secs => %(lease_s)s), attempts = o.attempts + 1
    FROM (
        SELECT hold_id FROM summarizer.outbox
        WHERE due_time <= now()
        ORDER BY due_time
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ) AS due
    WHERE o.hold_id = due.hold_id
    RETURNING o.hold_id::text, o.tenant, o.actor, o.project, o.request_id, o.event, o.attempts - 1, o.create_time
"""
_DONE = "DELETE FROM summarizer.outbox WHERE hold_id = %(hold_id)s"
_POSTPONE = """
    UPDATE summarizer.outbox
    SET due_time = now() + make_interval(secs => %(delay_s)s), last_error = %(reason)s
    WHERE hold_id = %(hold_id)s
"""
# Never due, until an operator sets another time.
_PARK = """
    UPDATE summarizer.outbox
    SET due_time = 'infinity', last_error = %(reason)s
    WHERE hold_id = %(hold_id)s
"""
_BACKLOG = """
    SELECT count(*) FILTER (WHERE due_time < 'infinity'),
           coalesce(extract(epoch FROM now() - min(create_time) FILTER (WHERE due_time < 'infinity')), 0),
           count(*) FILTER (WHERE due_time = 'infinity')
    FROM summarizer.outbox
"""


class PostgresResults:
    """Results on Postgres. Row-level security shows each transaction its own tenant's answers only."""

    def __init__(self, pool: Pool, *, grace_s: float = DIRECT_GRACE_S) -> None:
        self._pool = pool
        self._grace_s = grace_s

    async def find(self, tenant: str, keys: Sequence[bytes]) -> Mapping[bytes, Committed]:
        """Those of the keys that have an answer of this tenant, written as this version reads it."""
        asked = {stored_key(key): key for key in keys}
        with translate("results.find"):
            async with self._pool.connection() as connection, connection.transaction():
                await _as_tenant(connection, tenant)
                cursor = await connection.execute(_FIND, {"tenant": tenant, "keys": list(asked)})
                rows = await cursor.fetchall()
                if old := [stored for stored, _, _, is_old in rows if is_old]:
                    await connection.execute(TOUCH, {"tenant": tenant, "keys": old})
        return {
            asked[bytes(stored)]: Committed(encoding.decode_answer(answer), event_id)
            for stored, answer, event_id, _ in rows
        }

    async def commit(
        self,
        key: bytes,
        answer: Answer,
        delivery: Delivery,
        *,
        generation: int = 0,
        others: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Both rows or none; the delivery alone where a document was purged meanwhile."""
        assert delivery.event is not None
        row = {
            "tenant": delivery.caller.tenant,
            "key": stored_key(key),
            "answer": encoding.encode_answer(answer),
            "event_id": delivery.event.event_id,
            "document": delivery.event.document,
            "generation": generation,
            "others": [name for name, _ in others],
            "generations": [number for _, number in others],
        }
        with translate("results.commit"):
            async with self._pool.connection() as connection, connection.transaction():
                await _as_tenant(connection, delivery.caller.tenant)
                await connection.execute(_LOCK_SHARED, row)
                await connection.execute(_COMMIT, row)
                await connection.execute(_ADD, _row(delivery, self._grace_s))

    async def forget_unused(self, *, unused_s: float, limit: int) -> int:
        """Of all tenants, with what hangs on them."""
        with translate("results.forget_unused"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_ACROSS)
                return (await connection.execute(FORGET_UNUSED, {"unused_s": unused_s, "limit": limit})).rowcount

    async def generation(self, tenant: str, document: str) -> int:
        """How often the document was purged."""
        with translate("results.generation"):
            async with self._pool.connection() as connection, connection.transaction():
                await _as_tenant(connection, tenant)
                cursor = await connection.execute(_GENERATION, {"tenant": tenant, "document": document})
                row = await cursor.fetchone()
        return 0 if row is None else int(row[0])

    async def purge(self, tenant: str, document: str) -> int:
        """Forgets the answers that were bought for the document."""
        row = {"tenant": tenant, "document": document}
        with translate("results.purge"):
            async with self._pool.connection() as connection, connection.transaction():
                await _as_tenant(connection, tenant)
                await connection.execute(_FORGET_PURGES, row)
                await connection.execute(_LOCK, row)
                await connection.execute(_NEXT_GENERATION, row)
                return (await connection.execute(_PURGE, row)).rowcount


class PostgresOutbox:
    """Outbox on Postgres."""

    def __init__(self, pool: Pool, *, grace_s: float = DIRECT_GRACE_S) -> None:
        self._pool = pool
        self._grace_s = grace_s

    async def add(self, delivery: Delivery) -> None:
        """Keeps it; one that is there already stays as it is."""
        await self._execute("outbox.add", _ADD, _row(delivery, self._grace_s))

    async def take(self, limit: int, lease_s: float) -> tuple[DueDelivery, ...]:
        """Up to `limit` deliveries that are due, oldest first."""
        with translate("outbox.take"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_TAKE, {"limit": limit, "lease_s": lease_s})
                rows = await cursor.fetchall()
        return tuple(_due(row) for row in sorted(rows, key=lambda row: row[7]))

    async def done(self, hold_id: str) -> None:
        """Forgets it."""
        await self._execute("outbox.done", _DONE, {"hold_id": hold_id})

    async def postpone(self, hold_id: str, delay_s: float, reason: str) -> None:
        """Tries again after `delay_s`."""
        row = {"hold_id": hold_id, "delay_s": delay_s, "reason": reason[:MAX_REASON_CHARS]}
        await self._execute("outbox.postpone", _POSTPONE, row)

    async def park(self, hold_id: str, reason: str) -> None:
        """Is never due."""
        await self._execute("outbox.park", _PARK, {"hold_id": hold_id, "reason": reason[:MAX_REASON_CHARS]})

    async def backlog(self) -> Backlog:
        """How much is waiting, and for how long."""
        with translate("outbox.backlog"):
            async with self._pool.connection() as connection:
                row = await (await connection.execute(_BACKLOG)).fetchone()
        assert row is not None
        return Backlog(depth=row[0], oldest_age_s=float(row[1]), parked=row[2])

    async def _execute(self, operation: str, query: str, row: Mapping[str, object]) -> None:
        with translate(operation):
            async with self._pool.connection() as connection:
                await connection.execute(query, row)


def stored_key(key: bytes) -> bytes:
    """The key of the row: answers that another version has written are not found, instead of found unreadable."""
    return hashlib.sha256(b"%d:%b" % (encoding.VERSION, key)).digest()


async def _as_tenant(connection: Connection, tenant: str) -> None:
    await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))


def _row(delivery: Delivery, grace_s: float) -> dict[str, object]:
    caller = delivery.caller
    return {
        "hold_id": delivery.hold_id,
        "tenant": caller.tenant,
        "actor": caller.actor,
        "project": caller.project,
        "request_id": caller.request_id,
        "event": _encode_event(delivery.event),
        "grace_s": grace_s,
    }


def _due(row: tuple[Any, ...]) -> DueDelivery:
    hold_id, tenant, actor, project, request_id, event, attempts, _ = row
    # The ledger's internal methods ask for no scopes.
    caller = Caller(tenant, actor, project, frozenset(), request_id)
    return DueDelivery(Delivery(hold_id, caller, _decode_event(event, request_id)), attempts)


def _encode_event(event: UsageEvent | None) -> str | None:
    if event is None:
        return None
    return json.dumps(
        {
            "event_id": event.event_id,
            "model": event.model,
            "input_tokens": event.tokens.sent,
            "output_tokens": event.tokens.output_tokens,
            "operation": event.operation,
            "document": event.document,
            "occurred_at_s": event.occurred_at_s,
            "job": event.job,
            "tags": dict(event.tags),
        }
    )


def _decode_event(event: dict[str, Any] | None, request_id: str) -> UsageEvent | None:
    if event is None:
        return None
    return UsageEvent(
        event_id=event["event_id"],
        model=event["model"],
        tokens=TokenCount(event["input_tokens"], event["output_tokens"]),
        operation=event["operation"],
        document=event["document"],
        request_id=request_id,
        occurred_at_s=event["occurred_at_s"],
        job=event.get("job", ""),
        tags=event["tags"],
    )
