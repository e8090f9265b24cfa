"""Quotas in Postgres: one row for each tenant and kind, which replicas take parts of."""

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_acting import acting_for
from services.ledger.domain.identity_ports import Lease
from services.ledger.domain.plans import Kind

# The hour is the database's: replicas with wrong clocks still count together. The row is locked by the update, so what
# is left is given out once. `old` and `new` are what was used before and after (RETURNING of Postgres 18). What is
# returned was taken in the hour of the row: of another one it counts for nothing.
_TAKE = """
    INSERT INTO ledger.quota_use AS q (tenant, kind, hour, used)
    VALUES (%(tenant)s, %(kind)s, date_trunc('hour', clock_timestamp(), 'UTC'), least(%(wanted)s, %(quota)s))
    ON CONFLICT (tenant, kind) DO UPDATE SET
        hour = greatest(q.hour, excluded.hour),
        used = CASE WHEN q.hour < excluded.hour THEN excluded.used
                    ELSE greatest(q.used - %(returned)s, 0, least(greatest(q.used - %(returned)s, 0) + %(wanted)s,
                                                                  %(quota)s)) END
    RETURNING
        new.used - CASE WHEN old.hour IS NULL OR old.hour < new.hour THEN 0
                        ELSE greatest(old.used - %(returned)s, 0) END,
        extract(epoch FROM new.hour + interval '1 hour' - clock_timestamp())::float8
"""


class PostgresQuotas:
    """QuotaStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lease(self, tenant: str, kind: Kind, *, quota: int, wanted: int, returned: int = 0) -> Lease:
        values = {"tenant": tenant, "kind": kind.value, "wanted": wanted, "quota": quota, "returned": returned}
        with translate("lease_quota"):
            async with acting_for(self._pool, tenant) as connection:
                cursor = await connection.execute(_TAKE, values)
                ((granted, lasts_s),) = await cursor.fetchall()
        return Lease(int(granted), max(0.0, lasts_s))
