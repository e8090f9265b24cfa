"""Ends of jobs in Postgres, until the ledger has acknowledged them."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from services.database.pool import Pool, translate
from services.summarizer.adapters.postgres_job_rows import Connection, bind
from services.summarizer.domain.job_notices import BatchNotice, JobNotice, NoticeBacklog
from services.summarizer.domain.jobs import JobState

_ACROSS = "SELECT set_config('pagemesh.across', 'job_notices', true)"
# What a job owes is in the outbox until the ledger has it. What was refused for good is not waited for.
_TAKE = """
    SELECT position, tenant, job, sequence, batch, document, state, reason, attempts, pages_read, page_count,
           accept_time, end_time
    FROM summarizer.job_notices
    WHERE parked_reason IS NULL AND (
        end_time < now() - make_interval(secs => %(cost_wait_s)s)
        OR 'jobs/' || job NOT IN (
            SELECT coalesce(event ->> 'job', '') FROM summarizer.outbox WHERE due_time < 'infinity')
    )
    ORDER BY position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
ENDED = """
    SELECT b.tenant, b.id, b.last_sequence, count(*) FILTER (WHERE j.state = 'SUCCEEDED'),
           count(*) FILTER (WHERE j.state = 'FAILED'), count(*) FILTER (WHERE j.state = 'CANCELLED'), b.create_time,
           max(j.end_time), sum(j.spent_micros)::bigint
    FROM summarizer.job_batches AS b JOIN summarizer.jobs AS j
      ON j.tenant = b.tenant AND j.batch = b.id AND j.batch <> ''
    WHERE b.tenant = %(tenant)s AND b.id = ANY(%(batches)s) AND NOT EXISTS (
        SELECT FROM summarizer.jobs AS o
        WHERE o.tenant = b.tenant AND o.batch = b.id AND o.batch <> '' AND o.state IN ('QUEUED', 'RUNNING'))
    GROUP BY b.tenant, b.id, b.last_sequence, b.create_time
"""
# Batches of which a job is kept back until the ledger knows its cost, and that nobody tells of at this moment: whoever
# takes it waits for this transaction, and tells of the batch then.
_KEPT_BACK = """
    SELECT batch FROM summarizer.job_notices
    WHERE tenant = %(tenant)s AND batch = ANY(%(batches)s) AND NOT position = ANY(%(taken)s) AND parked_reason IS NULL
      AND end_time >= now() - make_interval(secs => %(cost_wait_s)s)
      AND 'jobs/' || job IN (SELECT event ->> 'job' FROM summarizer.outbox WHERE due_time < 'infinity')
    ORDER BY position FOR UPDATE SKIP LOCKED
"""
_DONE = "DELETE FROM summarizer.job_notices WHERE position = ANY(%s)"
_PARK = "UPDATE summarizer.job_notices SET parked_reason = %s WHERE position = %s"
_BACKLOG = """
    SELECT count(*) FILTER (WHERE parked_reason IS NULL),
           coalesce(extract(epoch FROM now() - min(end_time) FILTER (WHERE parked_reason IS NULL)), 0),
           count(*) FILTER (WHERE parked_reason IS NOT NULL)
    FROM summarizer.job_notices
"""
_MAX_REASON_CHARS = 200


class PostgresNoticeBook:
    """NoticeBook."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @contextlib.asynccontextmanager
    async def feeding(self) -> AsyncIterator["PostgresFeeding"]:
        """What was taken is locked until the block ends."""
        with translate("feed_job_notices"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_ACROSS)
                yield PostgresFeeding(connection)


class PostgresFeeding:
    """Feeding."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cost_wait_s = 0.0

    async def take(self, limit: int, *, cost_wait_s: float) -> Sequence[JobNotice]:
        """In their order, but for those that are kept back."""
        self._cost_wait_s = cost_wait_s
        cursor = await self._connection.execute(_TAKE, {"limit": limit, "cost_wait_s": cost_wait_s})
        return [_notice(row) for row in await cursor.fetchall()]

    async def ended(self, notices: Sequence[JobNotice]) -> Sequence[BatchNotice]:
        """One look for each tenant, as that tenant."""
        found: list[BatchNotice] = []
        for tenant in sorted({notice.tenant for notice in notices if notice.batch}):
            batches = sorted({notice.batch for notice in notices if notice.batch and notice.tenant == tenant})
            taken = [notice.position for notice in notices]
            row = {"tenant": tenant, "batches": batches, "taken": taken, "cost_wait_s": self._cost_wait_s}
            await bind(self._connection, tenant)
            kept_back = {batch for (batch,) in await (await self._connection.execute(_KEPT_BACK, row)).fetchall()}
            row["batches"] = [batch for batch in batches if batch not in kept_back]
            cursor = await self._connection.execute(ENDED, row)
            found += [BatchNotice(*ended) for ended in await cursor.fetchall()]
        return found

    async def done(self, notices: Sequence[JobNotice]) -> None:
        """Struck out."""
        await self._connection.execute(_DONE, ([notice.position for notice in notices],))

    async def park(self, notice: JobNotice, reason: str) -> None:
        """Left for an operator."""
        await self._connection.execute(_PARK, (reason[:_MAX_REASON_CHARS], notice.position))

    async def backlog(self) -> NoticeBacklog:
        """Of all tenants."""
        row = await (await self._connection.execute(_BACKLOG)).fetchone()
        assert row is not None
        return NoticeBacklog(row[0], float(row[1]), row[2])


def _notice(row: tuple[Any, ...]) -> JobNotice:
    position, tenant, job_id, sequence, batch, document, state, *rest = row
    return JobNotice(position, tenant, job_id, sequence, batch, document, JobState(state), *rest)
