"""Holds and the running totals of budgets in Postgres.

A transaction takes two round trips: one finds out whether the call is new, the other moves the money and commits. The
budget's row, which all calls of a tenant share, is changed in the second one only: it is never locked while the server
waits for us.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection, Rollback

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_partitions import PostgresPartitions
from services.ledger.adapters.postgres_rows import (
    AS_TENANT,
    SHARE_TENANT,
    TENANT_LOCK,
    hold_of,
    hold_values,
    record_of,
    statement,
)
from services.ledger.adapters.postgres_usage_rows import INSERT_RECORD, RECORD_OF_HOLD, record_values
from services.ledger.domain import refusals
from services.ledger.domain.values import Hold, HoldState, UsageRecord

Connection = AsyncConnection[tuple[Any, ...]]
Params = tuple[Any, ...] | dict[str, Any]

_INSERT_HOLD = statement("""
    INSERT INTO ledger.holds ({hold})
    SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM ledger.tenants WHERE id = %s AND active
    ON CONFLICT DO NOTHING RETURNING hold_id
""")
_FIND_HOLD = statement("SELECT {hold} FROM ledger.holds WHERE tenant = %s AND hold_id = %s")

# The update is decided under the row's lock, so concurrent reservations cannot both fit into the same room. Where there
# is no room, the hold that this transaction has just inserted goes again: the commit can be sent in the same breath.
_TAKE_FROM_BUDGET = """
    WITH taken AS (
        UPDATE ledger.budgets SET held_micros = held_micros + %(amount)s
        WHERE tenant = %(tenant)s AND settled_micros + held_micros + %(amount)s <= hard_micros RETURNING 1
    )
    DELETE FROM ledger.holds WHERE tenant = %(tenant)s AND hold_id = %(hold_id)s AND NOT EXISTS (SELECT FROM taken)
    AND EXISTS (SELECT FROM ledger.budgets WHERE tenant = %(tenant)s) RETURNING 1
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
# Out of the index of open holds, which are few: one that is closed is not in it any more.
_UNKNOWN = statement("""
    SELECT {hold} FROM ledger.holds
    WHERE state = 'UNKNOWN' AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
    ORDER BY create_time, tenant COLLATE "C", hold_id LIMIT %(limit)s
""")

# SKIP LOCKED: replicas share the work instead of waiting for each other, or for a settlement under way.
EXPIRE = """
    UPDATE ledger.holds SET state = 'UNKNOWN' WHERE (tenant, hold_id) IN (
        SELECT tenant, hold_id FROM ledger.holds WHERE state = 'HELD' AND expire_time <= %s
        ORDER BY expire_time LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
"""
_HELD = "SELECT coalesce(sum(amount_micros), 0)::bigint FROM ledger.holds WHERE state IN ('HELD', 'UNKNOWN')"


class _Inserted(Enum):
    KEPT = "the hold is in the books"
    NOT_NEW = "its id was there before, or its tenant does not exist"
    NO_ROOM = "the budget has no room for it"


class PostgresHolds:
    """HoldStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._partitions = PostgresPartitions(pool)

    async def reserve(self, hold: Hold) -> Hold:
        with translate("reserve"):
            async with self._pool.connection() as connection:
                match await self._insert(connection, hold):
                    case _Inserted.KEPT:
                        return hold
                    case _Inserted.NO_ROOM:
                        budget = await _one(connection, _READ_BUDGET, (hold.tenant,))
                        hard, settled, held = budget or (0, 0, 0)
                        raise refusals.budget_exceeded(hold, hard_micros=hard, settled_micros=settled, held_micros=held)
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
        await self._partitions.ensure([record.event.occur_time])
        with translate("settle"):
            async with self._pool.connection() as connection:
                if await self._close_with(connection, hold, record):
                    return record
                await connection.execute(AS_TENANT, (hold.tenant,))
                row = await _one(connection, RECORD_OF_HOLD, {"tenant": hold.tenant, "hold_id": hold.hold_id})
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
                cursor = await connection.execute(EXPIRE, (now, limit))
                return len(await cursor.fetchall())

    async def unknown(self, tenant: str | None, limit: int) -> Sequence[Hold]:
        with translate("unknown_holds"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_UNKNOWN, {"tenant": tenant, "limit": limit})
                return [hold_of(row) for row in await cursor.fetchall()]

    async def held_micros(self) -> int:
        with translate("held"):
            async with self._pool.connection() as connection:
                row = await _one(connection, _HELD, ())
        return 0 if row is None else int(row[0])

    @staticmethod
    async def _insert(connection: Connection, hold: Hold) -> "_Inserted":
        """One transaction: the hold and the budget's total, or nothing."""
        taking = {"tenant": hold.tenant, "hold_id": hold.hold_id, "amount": hold.amount_micros}
        async with connection.pipeline(), connection.transaction():
            await connection.execute(SHARE_TENANT, (TENANT_LOCK, hold.tenant))
            inserted = await connection.execute(_INSERT_HOLD, (*hold_values(hold), hold.tenant))
            if await inserted.fetchone() is None:
                return _Inserted.NOT_NEW
            # Sent together with the commit.
            undone = await connection.execute(_TAKE_FROM_BUDGET, taking)
        return _Inserted.KEPT if await undone.fetchone() is None else _Inserted.NO_ROOM

    @staticmethod
    async def _close_with(connection: Connection, hold: Hold, record: UsageRecord) -> bool:
        """One transaction: hold closed, record kept, totals moved. False, and nothing done, if it was closed before."""
        moved = {"tenant": hold.tenant, "freed": hold.amount_micros, "spent": record.cost_micros}
        async with connection.pipeline(), connection.transaction():
            await connection.execute(SHARE_TENANT, (TENANT_LOCK, hold.tenant))
            closed = await connection.execute(_CLOSE_HOLD, (HoldState.SETTLED.value, hold.tenant, hold.hold_id))
            kept = await connection.execute(INSERT_RECORD, record_values(record))
            was_open = await closed.fetchone() is not None
            if not was_open:
                raise Rollback
            if await kept.fetchone() is None:
                raise refusals.event_id_reused()
            # Sent together with the commit.
            await connection.execute(_MOVE_BUDGET, moved)
        return was_open


async def _one(connection: Connection, query: LiteralString | bytes, values: Params) -> tuple[Any, ...] | None:
    return await (await connection.execute(query, values)).fetchone()
