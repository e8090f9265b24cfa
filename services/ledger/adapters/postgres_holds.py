"""Holds and the running totals of budgets in Postgres.

The statements of a transaction are sent together (pipeline), so that it takes two round trips: one for the statements,
one for its end. The budget's row, which all calls of a tenant share, is changed last and locked for that end only.
"""

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection, Rollback
from psycopg.types.json import Jsonb

from services.ledger.adapters.postgres_rows import (
    SHARE_TENANT,
    TENANT_LOCK,
    hold_of,
    hold_values,
    record_of,
    statement,
)
from services.ledger.domain import refusals
from services.ledger.domain.values import Hold, HoldState, UsageRecord
from services.runtime.postgres import Pool, translate

Connection = AsyncConnection[tuple[Any, ...]]

_INSERT_HOLD = statement("""
    INSERT INTO ledger.holds ({hold})
    SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM ledger.tenants WHERE id = %s AND active
    ON CONFLICT DO NOTHING RETURNING hold_id
""")
_FIND_HOLD = statement("SELECT {hold} FROM ledger.holds WHERE tenant = %s AND hold_id = %s")

# Re-read under the row's lock, so concurrent reservations cannot both fit into the same room.
_TAKE_FROM_BUDGET = """
    UPDATE ledger.budgets SET held_micros = held_micros + %(amount)s
    WHERE tenant = %(tenant)s AND settled_micros + held_micros + %(amount)s <= hard_micros
    RETURNING hard_micros
"""
_READ_BUDGET = "SELECT hard_micros, settled_micros, held_micros FROM ledger.budgets WHERE tenant = %s"
_MOVE_BUDGET = """
    UPDATE ledger.budgets SET held_micros = held_micros - %(freed)s, settled_micros = settled_micros + %(spent)s
    WHERE tenant = %(tenant)s
"""
_CLOSE_HOLD = statement("""
    UPDATE ledger.holds SET state = %s
    WHERE tenant = %s AND hold_id = %s AND state IN ('HELD', 'UNKNOWN') RETURNING {hold}
""")
_INSERT_RECORD = statement("""
    INSERT INTO ledger.usage_records ({usage})
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING RETURNING event_id
""")
_RECORD_OF_HOLD = statement("SELECT {usage} FROM ledger.usage_records WHERE tenant = %s AND hold_id = %s")

# SKIP LOCKED: replicas share the work instead of waiting for each other, or for a settlement under way.
_EXPIRE = """
    UPDATE ledger.holds SET state = 'UNKNOWN' WHERE (tenant, hold_id) IN (
        SELECT tenant, hold_id FROM ledger.holds WHERE state = 'HELD' AND expire_time <= %s
        ORDER BY expire_time LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
"""
_HELD = "SELECT coalesce(sum(amount_micros), 0)::bigint FROM ledger.holds WHERE state IN ('HELD', 'UNKNOWN')"


class PostgresHolds:
    """HoldStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reserve(self, hold: Hold) -> Hold:
        with translate("reserve"):
            async with self._pool.connection() as connection:
                if await self._insert(connection, hold):
                    return hold
                known = await _one(connection, _FIND_HOLD, (hold.tenant, hold.hold_id))
        if known is None:
            raise refusals.tenant_unknown()
        return hold_of(known)

    async def find(self, tenant: str, hold_id: UUID) -> Hold | None:
        with translate("find_hold"):
            async with self._pool.connection() as connection:
                row = await _one(connection, _FIND_HOLD, (tenant, hold_id))
        return None if row is None else hold_of(row)

    async def settle(self, hold: Hold, record: UsageRecord) -> UsageRecord:
        with translate("settle"):
            async with self._pool.connection() as connection:
                if await self._close_with(connection, hold, record):
                    return record
                row = await _one(connection, _RECORD_OF_HOLD, (hold.tenant, hold.hold_id))
        if row is None:
            raise refusals.hold_released()
        return record_of(row)

    async def release(self, tenant: str, hold_id: UUID) -> Hold | None:
        with translate("release"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(SHARE_TENANT, (TENANT_LOCK, tenant))
                row = await _one(connection, _CLOSE_HOLD, (HoldState.RELEASED.value, tenant, hold_id))
                if row is None:
                    row = await _one(connection, _FIND_HOLD, (tenant, hold_id))
                    return None if row is None else hold_of(row)
                released = hold_of(row)
                await connection.execute(_MOVE_BUDGET, {"tenant": tenant, "freed": released.amount_micros, "spent": 0})
        return released

    async def expire(self, now: datetime, limit: int) -> int:
        with translate("expire_holds"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_EXPIRE, (now, limit))
                return len(await cursor.fetchall())

    async def held_micros(self) -> int:
        with translate("held"):
            async with self._pool.connection() as connection:
                row = await _one(connection, _HELD, ())
        return 0 if row is None else int(row[0])

    @staticmethod
    async def _insert(connection: Connection, hold: Hold) -> bool:
        """One transaction: the hold and the budget's total. False, and nothing done, where the hold was there."""
        amount = {"tenant": hold.tenant, "amount": hold.amount_micros}
        async with connection.pipeline(), connection.transaction():
            await connection.execute(SHARE_TENANT, (TENANT_LOCK, hold.tenant))
            inserted = await connection.execute(_INSERT_HOLD, (*hold_values(hold), hold.tenant))
            taken = await connection.execute(_TAKE_FROM_BUDGET, amount)
            read = await connection.execute(_READ_BUDGET, (hold.tenant,))
            fresh = await inserted.fetchone() is not None
            if not fresh:
                raise Rollback
            fits, budget = await taken.fetchone(), await read.fetchone()
            if budget is not None and fits is None:
                hard, settled, held = budget
                raise refusals.budget_exceeded(hold, hard_micros=hard, settled_micros=settled, held_micros=held)
        return fresh

    @staticmethod
    async def _close_with(connection: Connection, hold: Hold, record: UsageRecord) -> bool:
        """One transaction: hold closed, record kept, totals moved. False, and nothing done, if it was closed before."""
        moved = {"tenant": hold.tenant, "freed": hold.amount_micros, "spent": record.cost_micros}
        async with connection.pipeline(), connection.transaction():
            await connection.execute(SHARE_TENANT, (TENANT_LOCK, hold.tenant))
            closed = await connection.execute(_CLOSE_HOLD, (HoldState.SETTLED.value, hold.tenant, hold.hold_id))
            kept = await connection.execute(_INSERT_RECORD, _record_values(record))
            await connection.execute(_MOVE_BUDGET, moved)
            was_open = await closed.fetchone() is not None
            if not was_open:
                raise Rollback
            if await kept.fetchone() is None:
                raise refusals.event_id_reused()
        return was_open


async def _one(connection: Connection, query: LiteralString | bytes, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return await (await connection.execute(query, values)).fetchone()


def _record_values(record: UsageRecord) -> tuple[Any, ...]:
    event = record.event
    return (
        record.tenant,
        event.event_id,
        event.model,
        event.tokens.sent,
        event.tokens.received,
        event.operation,
        event.document,
        event.request_id,
        event.occur_time,
        Jsonb(dict(event.tags)),
        record.cost_micros,
        record.price_book_version,
        record.hold_id,
        record.actor,
        record.record_time,
    )
