"""The monthly partitions of usage records: made where they are needed, and removed when their time is over."""

from collections.abc import Iterable
from datetime import datetime

from psycopg import sql

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_rows import WORK_ACROSS
from services.ledger.domain.usage_window import month_of

_MAKE = "SELECT ledger.make_usage_partition(%s)"
DUE = "SELECT name FROM ledger.usage_partitions WHERE end_time <= %s ORDER BY end_time LIMIT 1"
_FORGET_IDS = sql.SQL("""
    DELETE FROM ledger.usage_ids i USING (
        SELECT tenant, event_id FROM ledger.{partition} r
        WHERE EXISTS (SELECT FROM ledger.usage_ids k WHERE (k.tenant, k.event_id) = (r.tenant, r.event_id)
                      AND k.occur_time = r.occur_time)
        LIMIT %s
    ) gone WHERE (i.tenant, i.event_id) = (gone.tenant, gone.event_id)
""")
_DROP = sql.SQL("DROP TABLE ledger.{partition}")
_FORGET_PARTITION = "DELETE FROM ledger.usage_partitions WHERE name = %s"
_REMOVAL_LOCK = "SELECT pg_try_advisory_xact_lock(7102, 1)"

_IDS_AT_ONCE = 10_000


class PostgresPartitions:
    """Partitions. Several replicas may make and remove them at once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: set[datetime] = set()

    async def ensure(self, times: Iterable[datetime]) -> int:
        """Sees to it that each time has its partition; answers how many were made.

        Months that were seen once cost nothing: a partition goes only when records of its month are refused.
        """
        missing = {month_of(time) for time in times} - self._known
        made = 0
        for month in sorted(missing):
            with translate("make_partition"):
                async with self._pool.connection() as connection:
                    cursor = await connection.execute(_MAKE, (month,))
                    made += bool((await cursor.fetchall())[0][0])
            self._known.add(month)
        return made

    async def drop_one(self, before: datetime) -> bool | None:
        """Removes some ids of the oldest partition that ends at or before that time, and with the last of them the
        partition. True where it is gone, False where ids are left, None where there is nothing to do.
        """
        with translate("drop_partition"):
            async with self._pool.connection() as connection:
                ((alone,),) = await (await connection.execute(_REMOVAL_LOCK)).fetchall()
                due = await (await connection.execute(DUE, (before,))).fetchone() if alone else None
                if due is None:
                    return None
                name = str(due[0])
                await connection.execute(WORK_ACROSS, ("usage_retention",))
                removed = await connection.execute(_FORGET_IDS.format(partition=sql.Identifier(name)), (_IDS_AT_ONCE,))
                if removed.rowcount == _IDS_AT_ONCE:
                    return False
                # Waits at most lock_timeout for whoever reads it; then the next round tries again.
                await connection.execute(_DROP.format(partition=sql.Identifier(name)))
                await connection.execute(_FORGET_PARTITION, (name,))
        self._known.clear()
        return True
