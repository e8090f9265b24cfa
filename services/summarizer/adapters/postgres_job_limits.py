"""How many jobs of each tenant may run, and how many wait, in Postgres."""

from collections.abc import Sequence

from services.database.pool import Pool, single, translate
from services.summarizer.adapters.postgres_job_rows import RING
from services.summarizer.domain.job_limits import TenantQueue

# A turn that a claim holds is left to the next look.
_STALE = """
    UPDATE summarizer.job_turns AS t SET limit_time = now()
    FROM (
        SELECT tenant FROM summarizer.job_turns AS c
        WHERE (limit_time IS NULL OR limit_time < now() - make_interval(secs => %(older_s)s))
          AND EXISTS (SELECT FROM summarizer.job_queue AS q WHERE q.tenant = c.tenant AND q.worker IS NULL)
        ORDER BY limit_time NULLS FIRST LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) AS old
    WHERE t.tenant = old.tenant RETURNING t.tenant
"""
_SET = """
    UPDATE summarizer.job_turns SET most_running = %(most)s
    WHERE tenant = %(tenant)s AND most_running IS DISTINCT FROM %(most)s
"""
_TOP = """
    SELECT q.tenant, q.queued, q.due, q.running, q.age_s, t.most_running
    FROM (
        SELECT tenant, count(*) FILTER (WHERE worker IS NULL) AS queued,
               count(*) FILTER (WHERE worker IS NULL AND due_time <= now()) AS due,
               count(*) FILTER (WHERE worker IS NOT NULL) AS running,
               coalesce(extract(epoch FROM now() - min(due_time)
                                FILTER (WHERE worker IS NULL AND due_time <= now())), 0) AS age_s
        FROM summarizer.job_queue GROUP BY tenant ORDER BY count(*) DESC, tenant LIMIT %(limit)s
    ) AS q LEFT JOIN summarizer.job_turns AS t USING (tenant)
    ORDER BY q.queued + q.running DESC, q.tenant
"""


class PostgresLimits:
    """LimitBook. It reads ids, times and numbers of all tenants, as workers do."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def stale(self, *, older_s: float, limit: int) -> Sequence[str]:
        """Those that were never asked for first."""
        with translate("job_limits.stale"):
            async with single(self._pool) as connection:
                cursor = await connection.execute(_STALE, {"older_s": older_s, "limit": limit})
                return [tenant for (tenant,) in await cursor.fetchall()]

    async def set(self, tenant: str, most_running: int | None) -> None:
        """Workers hear of a change: there may be room now."""
        with translate("job_limits.set"):
            async with self._pool.connection() as connection, connection.transaction():
                changed = await connection.execute(_SET, {"tenant": tenant, "most": most_running})
                if changed.rowcount:
                    await connection.execute(RING.encode())

    async def top(self, limit: int) -> Sequence[TenantQueue]:
        """Reads the whole queue, ids and times."""
        with translate("job_limits.top"):
            async with single(self._pool) as connection:
                rows = await (await connection.execute(_TOP, {"limit": limit})).fetchall()
        return [
            TenantQueue(tenant, queued, due, running, float(age_s), most)
            for tenant, queued, due, running, age_s, most in rows
        ]
