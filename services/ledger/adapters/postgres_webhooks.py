"""Webhooks and their outbox in Postgres."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, LiteralString

from psycopg.errors import ForeignKeyViolation

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_rows import BIND_TENANT, OWN_TENANT, TENANT_LOCK, WORK_ACROSS
from services.ledger.domain import refusals
from services.ledger.domain.webhooks import MOST_WEBHOOKS, Webhook, WebhookSecrets
from services.webhooks.courier import Message

_COUNT = "SELECT count(*) FROM ledger.webhooks WHERE tenant = %s AND delete_time IS NULL"
_INSERT = "INSERT INTO ledger.webhooks (tenant, id, url, create_time, event_types) VALUES (%s, %s, %s, %s, %s)"
_LIST = """
    SELECT tenant, id, url, create_time, event_types FROM ledger.webhooks
    WHERE tenant = %s AND delete_time IS NULL AND id > %s ORDER BY id LIMIT %s
"""
_DELETE = """
    UPDATE ledger.webhooks SET delete_time = coalesce(delete_time, %s) WHERE tenant = %s AND id = %s
"""
_GIVE_UP = """
    UPDATE ledger.webhook_deliveries SET state = 'DEAD', end_time = %s, last_failure = 'the webhook was deleted'
    WHERE tenant = %s AND webhook = %s AND state = 'PENDING'
"""

# From tenant to tenant along the index, and of each the oldest few: whoever has many messages stands before nobody.
# Materialised: a plan that looked again for each row would take others each time.
TAKE = """
    WITH RECURSIVE waiting AS (
        (SELECT tenant FROM ledger.webhook_deliveries WHERE state = 'PENDING' ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT d.tenant FROM ledger.webhook_deliveries d WHERE d.state = 'PENDING' AND d.tenant > w.tenant
                ORDER BY d.tenant LIMIT 1)
        FROM waiting w WHERE w.tenant IS NOT NULL
    ), due AS MATERIALIZED (
        SELECT own.tenant, own.id FROM waiting w CROSS JOIN LATERAL (
            SELECT tenant, id, due_time FROM ledger.webhook_deliveries
            WHERE tenant = w.tenant AND state = 'PENDING' AND due_time <= %(now)s
            ORDER BY due_time LIMIT %(each)s FOR UPDATE SKIP LOCKED
        ) own
        WHERE NOT w.tenant = ANY(%(busy)s::text[]) ORDER BY own.due_time LIMIT %(limit)s
    )
    UPDATE ledger.webhook_deliveries d SET attempts = attempts + 1, due_time = %(until)s
    FROM due WHERE d.tenant = due.tenant AND d.id = due.id AND d.state = 'PENDING'
    RETURNING d.tenant, d.id::text, d.webhook, d.body, d.attempts,
        (SELECT url FROM ledger.webhooks w WHERE w.tenant = d.tenant AND w.id = d.webhook AND w.delete_time IS NULL)
"""
_END = """
    UPDATE ledger.webhook_deliveries SET state = %s, end_time = %s, last_failure = %s
    WHERE tenant = %s AND id = %s::uuid AND state = 'PENDING'
"""
_AGAIN = """
    UPDATE ledger.webhook_deliveries SET due_time = %s, last_failure = %s
    WHERE tenant = %s AND id = %s::uuid AND state = 'PENDING'
"""
FORGET = """
    WITH old AS MATERIALIZED (
        SELECT tenant, id FROM ledger.webhook_deliveries WHERE state <> 'PENDING' AND end_time < %s
        ORDER BY end_time LIMIT %s
    )
    DELETE FROM ledger.webhook_deliveries d USING old WHERE d.tenant = old.tenant AND d.id = old.id
"""
_WORK = "webhooks"
_LONGEST_FAILURE = 200


class PostgresWebhooks:
    """WebhookStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, webhook: Webhook) -> bool:
        with translate("add_webhook"):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(OWN_TENANT, (TENANT_LOCK, webhook.tenant))
                    ((count,),) = await (await connection.execute(_COUNT, (webhook.tenant,))).fetchall()
                    if count >= MOST_WEBHOOKS:
                        return False
                    values = (webhook.tenant, webhook.webhook_id, webhook.url, webhook.create_time)
                    await connection.execute(_INSERT, (*values, list(webhook.event_types)))
            except ForeignKeyViolation as exc:
                raise refusals.tenant_unknown() from exc
        return True

    async def list(self, tenant: str, *, after: str, limit: int) -> Sequence[Webhook]:
        with translate("list_webhooks"):
            async with self._pool.connection() as connection:
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(_LIST, (tenant, after, limit))
                return [
                    Webhook(owner, webhook_id, url, created, tuple(types))
                    for owner, webhook_id, url, created, types in await cursor.fetchall()
                ]

    async def delete(self, tenant: str, webhook_id: str, now: datetime) -> bool:
        with translate("delete_webhook"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                deleted = await connection.execute(_DELETE, (now, tenant, webhook_id))
                await connection.execute(_GIVE_UP, (now, tenant, webhook_id))
                return deleted.rowcount == 1


class PostgresOutbox:
    """Outbox, over all tenants."""

    def __init__(self, pool: Pool, hooks: WebhookSecrets) -> None:
        self._pool = pool
        self._secrets = hooks

    async def take(
        self, now: datetime, until: datetime, limit: int, *, each: int, busy: Collection[str] = ()
    ) -> Sequence[Message]:
        values = {"now": now, "until": until, "limit": limit, "each": each, "busy": list(busy)}
        with translate("take_webhooks"):
            async with self._pool.connection() as connection:
                await connection.execute(WORK_ACROSS, (_WORK,))
                cursor = await connection.execute(TAKE, values)
                return [self._message(row) for row in await cursor.fetchall()]

    async def delivered(self, message: Message, now: datetime) -> None:
        await self._write(_END, ("DELIVERED", now, "", message.tenant, message.message_id))

    async def failed(self, message: Message, failure: str, *, again: datetime) -> None:
        await self._write(_AGAIN, (again, failure[:_LONGEST_FAILURE], message.tenant, message.message_id))

    async def dead(self, message: Message, failure: str, now: datetime) -> None:
        await self._write(_END, ("DEAD", now, failure[:_LONGEST_FAILURE], message.tenant, message.message_id))

    async def forget(self, before: datetime, limit: int) -> int:
        return await self._write(FORGET, (before, limit))

    async def _write(self, query: LiteralString, values: tuple[Any, ...]) -> int:
        with translate("webhooks"):
            async with self._pool.connection() as connection:
                await connection.execute(WORK_ACROSS, (_WORK,))
                return (await connection.execute(query, values)).rowcount

    def _message(self, row: Sequence[Any]) -> Message:
        tenant, message_id, webhook_id, body, attempts, url = row
        secret = self._secrets.of(tenant, webhook_id)
        return Message(tenant, message_id, url or "", secret, body.encode(), attempts)
