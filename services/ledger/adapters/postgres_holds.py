"""Holds in Postgres. What moves money goes in groups; see GroupCommit and MoneyMoves."""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from services.database.pool import Pool, translate
from services.ledger.adapters import cost_signals
from services.ledger.adapters.group_commit import GroupCommit
from services.ledger.adapters.postgres_moves import Answer, MoneyMoves, Move, Release, Reserve, Settle, ids
from services.ledger.adapters.postgres_partitions import PostgresPartitions
from services.ledger.adapters.postgres_rows import BIND_TENANT, WORK_ACROSS, hold_of, statement
from services.ledger.domain.values import Hold, UsageRecord

Connection = AsyncConnection[tuple[Any, ...]]

_REMEMBERED_HOLDS = 10_000
_FIND_HOLD = statement("SELECT {hold} FROM ledger.holds WHERE tenant = %s AND hold_id = %s")

# Out of the index of open holds, which are few: one that is closed is not in it any more.
_UNKNOWN = statement("""
    SELECT {hold} FROM ledger.holds
    WHERE state = 'UNKNOWN' AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
    ORDER BY create_time, tenant COLLATE "C", hold_id LIMIT %(limit)s
""")

# SKIP LOCKED: replicas share the work instead of waiting for each other, or for a settlement under way. Materialised:
# a plan that looked again for each row would find others each time.
EXPIRE = """
    WITH due AS MATERIALIZED (
        SELECT tenant, hold_id FROM ledger.holds WHERE state = 'HELD' AND expire_time <= %s
        ORDER BY expire_time LIMIT %s FOR UPDATE SKIP LOCKED
    )
    UPDATE ledger.holds h SET state = 'UNKNOWN' FROM due
    WHERE h.tenant = due.tenant AND h.hold_id = due.hold_id AND h.state = 'HELD' RETURNING 1
"""
_HELD = "SELECT coalesce(sum(amount_micros), 0)::bigint FROM ledger.holds WHERE state IN ('HELD', 'UNKNOWN')"
_EXPIRY = "expiry"


class PostgresHolds:
    """HoldStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._partitions = PostgresPartitions(pool)
        self._moves: GroupCommit[Move, Answer] = GroupCommit(MoneyMoves(pool).run, ids=ids)
        self._made: OrderedDict[tuple[str, UUID], Hold] = OrderedDict()

    async def close(self) -> None:
        """Stops what is under way."""
        await self._moves.close()

    async def reserve(self, hold: Hold) -> Hold:
        kept = await self._moves.submit(hold.tenant, Reserve(hold))
        assert isinstance(kept, Hold)
        self._remember(kept)
        return kept

    async def find(self, tenant: str, hold_id: UUID) -> Hold | None:
        with translate("find_hold"):
            async with self._pool.connection() as connection, connection.pipeline():
                await connection.execute(BIND_TENANT, (tenant,))
                cursor = await connection.execute(_FIND_HOLD, (tenant, hold_id))
                row = await cursor.fetchone()
        return None if row is None else hold_of(row)

    async def made(self, tenant: str, hold_id: UUID) -> Hold | None:
        # Whoever reserved here settles here most of the time; what a hold was made as never changes.
        known = self._made.get((tenant, hold_id))
        return await self.find(tenant, hold_id) if known is None else known

    async def settle(self, hold: Hold, record: UsageRecord) -> UsageRecord:
        await self._partitions.ensure([record.event.occur_time])
        kept = await self._moves.submit(hold.tenant, Settle(hold, record))
        assert isinstance(kept, UsageRecord)
        cost_signals.settled(record, kept)
        return kept

    async def release(self, tenant: str, hold_id: UUID) -> Hold | None:
        hold = await self.made(tenant, hold_id)
        if hold is None:
            return None
        released = await self._moves.submit(tenant, Release(hold))
        assert isinstance(released, Hold)
        return released

    async def expire(self, now: datetime, limit: int) -> int:
        with translate("expire_holds"):
            async with self._pool.connection() as connection:
                await connection.execute(WORK_ACROSS, (_EXPIRY,))
                cursor = await connection.execute(EXPIRE, (now, limit))
                return len(await cursor.fetchall())

    async def unknown(self, tenant: str | None, limit: int) -> Sequence[Hold]:
        with translate("unknown_holds"):
            async with self._pool.connection() as connection:
                await connection.execute(WORK_ACROSS, (_EXPIRY,))
                cursor = await connection.execute(_UNKNOWN, {"tenant": tenant, "limit": limit})
                return [hold_of(row) for row in await cursor.fetchall()]

    async def held_micros(self) -> int:
        with translate("held"):
            async with self._pool.connection() as connection:
                await connection.execute(WORK_ACROSS, (_EXPIRY,))
                row = await (await connection.execute(_HELD)).fetchone()
        return 0 if row is None else int(row[0])

    def _remember(self, hold: Hold) -> None:
        self._made[hold.tenant, hold.hold_id] = hold
        if len(self._made) > _REMEMBERED_HOLDS:
            self._made.popitem(last=False)
