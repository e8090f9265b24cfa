"""The months of the audit chains: partitions that are made ahead, and dropped when their time is over."""

import calendar
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from psycopg import sql

from services.database.pool import Pool, single, translate
from services.ledger.adapters.postgres_rows import BIND_TENANT, WORK_ACROSS
from services.ledger.domain.audit import ChainHead

_ADD = "SELECT ledger.add_audit_partition(%s)"
_NAMES = """
    SELECT relname FROM pg_class WHERE relnamespace = 'ledger'::regnamespace AND relkind = 'r'
      AND relname ~ '^audit_events_[0-9]{4}_[0-9]{2}$'
    ORDER BY relname
"""
_NAME = re.compile(r"^audit_events_(\d{4})_(\d{2})$")
_LAST = """
    SELECT h.tenant, e.sequence, e.hash, e.record_time
    FROM ledger.audit_heads AS h CROSS JOIN LATERAL (
        SELECT sequence, hash, record_time FROM ledger.audit_events
        WHERE tenant = h.tenant AND record_time >= %(start)s AND record_time < %(finish)s
        ORDER BY sequence DESC LIMIT 1
    ) AS e
    WHERE h.tenant > %(after)s ORDER BY h.tenant LIMIT %(limit)s
"""
_KEEP = """
    INSERT INTO ledger.audit_checkpoints (tenant, sequence, hash, record_time) VALUES (%s, %s, %s, %s)
    ON CONFLICT DO NOTHING
"""
_ATTACHED = """
    SELECT inhdetachpending FROM pg_inherits
    WHERE inhparent = 'ledger.audit_events'::regclass AND inhrelid = to_regclass(%s)
"""


class PostgresAuditMonths:
    """AuditPartitions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def prepare(self, at: datetime) -> None:
        with translate("prepare_audit_months"):
            for _ in range(3):
                async with self._pool.connection() as connection:
                    await connection.execute(_ADD, (at,))
                at = _month_after(at)

    async def expired(self, before: datetime) -> Sequence[datetime]:
        with translate("find_audit_months"):
            async with self._pool.connection() as connection:
                names = [name for (name,) in await (await connection.execute(_NAMES)).fetchall()]
        months = [datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC) for match in map(_NAME.match, names) if match]
        return [month for month in months if _month_after(month) <= before]

    async def last_records(self, month: datetime, after_tenant: str, limit: int) -> Sequence[tuple[str, ChainHead]]:
        values = {"start": month, "finish": _month_after(month), "after": after_tenant, "limit": limit}
        with translate("read_audit_months"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(WORK_ACROSS, ("audit_retention",))
                rows = await (await connection.execute(_LAST, values)).fetchall()
        return [(tenant, ChainHead(sequence, digest, time)) for tenant, sequence, digest, time in rows]

    async def keep_beginning(self, tenant: str, beginning: ChainHead) -> None:
        with translate("keep_audit_beginning"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(BIND_TENANT, (tenant,))
                values = (tenant, beginning.sequence, beginning.hash, beginning.record_time)
                await connection.execute(_KEEP, values)

    async def drop(self, month: datetime) -> None:
        name = f"audit_events_{month:%Y_%m}"
        table = sql.Identifier("ledger", name)
        # Each in a transaction of its own, as detaching without locking readers and writers out demands.
        with translate("drop_audit_month"):
            async with single(self._pool) as connection:
                row = await (await connection.execute(_ATTACHED, (f"ledger.{name}",))).fetchone()
                if row is not None:
                    how = sql.SQL("FINALIZE" if row[0] else "CONCURRENTLY")
                    detach = sql.SQL("ALTER TABLE ledger.audit_events DETACH PARTITION {} {}").format(table, how)
                    await connection.execute(detach)
                await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))


def _month_after(time: datetime) -> datetime:
    first = time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first + timedelta(days=calendar.monthrange(first.year, first.month)[1])
