"""Messages to webhooks in Postgres, as their owners see them and as events are published."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_acting import acting_for
from services.ledger.domain.values import Cursor
from services.ledger.domain.webhook_messages import Delivery, DeliveryState, Told

_COLUMNS = "tenant, id, webhook, event_type, body, state, attempts, last_failure, create_time, due_time, end_time"
_WANTED = """
    SELECT DISTINCT unnest(event_types) FROM ledger.webhooks WHERE tenant = %s AND delete_time IS NULL
"""
# The webhook is held: one that is deleted meanwhile gives up what is written here, too.
_WRITE = """
    WITH hook AS (
        SELECT tenant, id, event_types FROM ledger.webhooks WHERE tenant = %(tenant)s AND delete_time IS NULL FOR SHARE
    )
    INSERT INTO ledger.webhook_deliveries (tenant, id, webhook, event_type, body, state, attempts, due_time,
                                           create_time, last_failure)
    SELECT hook.tenant, md5(hook.id || '/' || told.event_id)::uuid, hook.id, told.event_type, told.body, 'PENDING', 0,
           %(now)s, %(now)s, ''
    FROM hook JOIN unnest(%(ids)s::text[], %(types)s::text[], %(bodies)s::text[]) AS told (event_id, event_type, body)
      ON told.event_type = ANY(hook.event_types)
    ON CONFLICT (tenant, id) DO NOTHING
"""
LIST = f"""
    SELECT {_COLUMNS} FROM ledger.webhook_deliveries WHERE tenant = %(tenant)s {{}} {{}}
    ORDER BY create_time DESC, id DESC LIMIT %(limit)s
"""  # noqa: S608 - names of columns
IN_STATE = "AND state = %(state)s"
BEHIND = "AND (create_time, id) < (%(time)s, %(id)s)"
_GET = f"SELECT {_COLUMNS} FROM ledger.webhook_deliveries WHERE tenant = %(tenant)s AND id = %(id)s"  # noqa: S608
_AGAIN = """
    UPDATE ledger.webhook_deliveries AS d
    SET state = 'PENDING', attempts = 0, due_time = %(now)s, end_time = NULL, last_failure = ''
    WHERE d.tenant = %(tenant)s AND d.id = %(id)s AND d.state <> 'PENDING' AND EXISTS (
        SELECT FROM ledger.webhooks w WHERE w.tenant = d.tenant AND w.id = d.webhook AND w.delete_time IS NULL)
"""


class PostgresDeliveries:
    """DeliveryStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def wanted(self, tenant: str) -> frozenset[str]:
        with translate("wanted_events"):
            async with acting_for(self._pool, tenant) as connection:
                rows = await (await connection.execute(_WANTED, (tenant,))).fetchall()
        return frozenset(name for (name,) in rows)

    async def write(self, tenant: str, told: Sequence[Told], now: datetime) -> int:
        values = {
            "tenant": tenant,
            "ids": [one.event_id for one in told],
            "types": [one.event_type for one in told],
            "bodies": [one.body for one in told],
            "now": now,
        }
        with translate("write_deliveries"):
            async with acting_for(self._pool, tenant) as connection:
                written = await connection.execute(_WRITE, values)
            return written.rowcount

    async def list(
        self, tenant: str, state: DeliveryState | None, *, after: Cursor | None, limit: int
    ) -> Sequence[Delivery]:
        values: dict[str, Any] = {"tenant": tenant, "limit": limit}
        if state is not None:
            values["state"] = state.value
        if after is not None:
            values |= {"time": after.occur_time, "id": after.event_id}
        statement = LIST.format(IN_STATE if state else "", BEHIND if after else "")
        with translate("list_deliveries"):
            async with acting_for(self._pool, tenant) as connection:
                rows = await (await connection.execute(statement.encode(), values)).fetchall()
        return [_delivery(row) for row in rows]

    async def again(self, tenant: str, delivery_id: UUID, now: datetime) -> tuple[Delivery, bool] | None:
        values = {"tenant": tenant, "id": delivery_id, "now": now}
        with translate("retry_delivery"):
            async with acting_for(self._pool, tenant) as connection:
                changed = await connection.execute(_AGAIN, values)
                row = await (await connection.execute(_GET.encode(), values)).fetchone()
            return None if row is None else (_delivery(row), changed.rowcount == 1)


def _delivery(row: Sequence[Any]) -> Delivery:
    tenant, delivery_id, webhook, event_type, body, state, *rest = row
    return Delivery(tenant, delivery_id, webhook, event_type, body, DeliveryState(state), *rest)
