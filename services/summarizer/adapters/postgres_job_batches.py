"""Whole batches in Postgres: some hundreds of jobs are moved by one statement."""

from collections.abc import Sequence
from typing import Any, LiteralString

from services.database.pool import Pool, translate
from services.summarizer.adapters.job_encoding import decode_work
from services.summarizer.adapters.postgres_job_rows import EVENT_CHANNEL, RING, bind
from services.summarizer.adapters.postgres_jobs import LOCK_TENANT, TAKE_TURNS, PostgresJobs, check_room
from services.summarizer.domain.job_batches import Moved
from services.summarizer.domain.jobs import Batch, JobState, Work
from services.summarizer.domain.values import Caller

_WORK = """
    SELECT work FROM summarizer.jobs WHERE tenant = %(tenant)s AND batch = %(batch)s AND batch <> '' LIMIT 1
"""
_CHOSEN = """
    SELECT id FROM summarizer.job_batches
    WHERE tenant = %(tenant)s AND id >= %(first)s AND id < %(before)s ORDER BY id DESC LIMIT %(limit)s
"""
# From batch to batch along the index of jobs that have not ended: batches that have are not looked at.
_OPEN = """
    WITH RECURSIVE open (batch, place) AS (
        (SELECT batch, 1 FROM summarizer.jobs
         WHERE tenant = %(tenant)s AND batch <> '' AND state IN ('QUEUED', 'RUNNING')
           AND batch >= %(first)s AND batch < %(before)s ORDER BY batch DESC LIMIT 1)
        UNION ALL
        SELECT next.batch, open.place + 1 FROM open CROSS JOIN LATERAL (
            SELECT batch FROM summarizer.jobs
            WHERE tenant = %(tenant)s AND batch <> '' AND state IN ('QUEUED', 'RUNNING')
              AND batch >= %(first)s AND batch < open.batch ORDER BY batch DESC LIMIT 1
        ) next WHERE open.place < %(limit)s
    )
    SELECT batch AS id FROM open
"""
_LIST = """
    SELECT b.id, b.last_sequence, b.create_time, coalesce(counted.states, '{{}}'), coalesce(counted.spent, 0)
    FROM ({chosen}) AS chosen JOIN summarizer.job_batches AS b ON b.tenant = %(tenant)s AND b.id = chosen.id
    CROSS JOIN LATERAL (
        SELECT jsonb_object_agg(state, n) AS states, sum(spent)::bigint AS spent FROM (
            SELECT state, count(*) AS n, sum(spent_micros) AS spent FROM summarizer.jobs AS j
            WHERE j.tenant = b.tenant AND j.batch = b.id AND j.batch <> '' GROUP BY state
        ) AS counts
    ) AS counted
    ORDER BY b.id DESC
"""
# As everywhere: rows of the queue first, then those of jobs, then that of the batch.
SOME_OPEN = """
    SELECT id FROM summarizer.jobs
    WHERE tenant = %(tenant)s AND batch = %(batch)s AND batch <> '' AND state IN ('QUEUED', 'RUNNING')
      AND id > %(after)s ORDER BY id LIMIT %(limit)s
"""
SOME_ENDED = """
    SELECT id FROM summarizer.jobs
    WHERE tenant = %(tenant)s AND batch = %(batch)s AND batch <> '' AND state = ANY(%(states)s)
      AND id > %(after)s ORDER BY id LIMIT %(limit)s
"""
_TAKEN_OUT = """
    DELETE FROM summarizer.job_queue AS q
    USING (SELECT job FROM summarizer.job_queue WHERE tenant = %(tenant)s AND job = ANY(%(ids)s)
           ORDER BY job FOR UPDATE) AS held
    WHERE q.job = held.job RETURNING q.job
"""
_QUEUED_AGAIN = """
    INSERT INTO summarizer.job_queue (job, tenant, priority, due_time, attempt, max_attempts)
    SELECT id, tenant, priority, now(), attempts, max_attempts FROM summarizer.jobs
    WHERE tenant = %(tenant)s AND id = ANY(%(ids)s) AND state = ANY(%(states)s)
    ORDER BY id ON CONFLICT (job) DO NOTHING RETURNING job
"""
_MOVE = """
    WITH right_to AS ({right}), moved AS (
        UPDATE summarizer.jobs AS j SET {changes}, last_sequence = last_sequence + 1,
               fault_kind = '', fault_reason = '', fault_message = '', result = NULL
        FROM right_to WHERE j.tenant = %(tenant)s AND j.id = right_to.job
        RETURNING j.*
    ), counted AS (
        UPDATE summarizer.job_batches SET last_sequence = last_sequence + (SELECT count(*) FROM moved)
        WHERE tenant = %(tenant)s AND id = %(batch)s
        RETURNING last_sequence - (SELECT count(*) FROM moved) AS before
    ), told AS (
        INSERT INTO summarizer.job_events
            (tenant, job, sequence, batch, batch_sequence, kind, state, attempt, pages_read, page_count, chunks_done,
             chunk_count, fault_kind, fault_reason, fault_message)
        SELECT tenant, id, last_sequence, batch, counted.before + row_number() OVER (ORDER BY id), {kind}, state,
               attempts, pages_read, page_count, chunks_done, chunk_count, '', '', ''
        FROM moved, counted
        RETURNING job
    ), noticed AS (
        INSERT INTO summarizer.job_notices
            (tenant, job, sequence, batch, document, state, reason, attempts, pages_read, page_count, accept_time,
             end_time)
        SELECT tenant, id, last_sequence, batch, document, state, '', attempts, pages_read, page_count, create_time,
               end_time
        FROM moved WHERE {kind} = 'ENDED' ORDER BY id
    )
    SELECT pg_notify({channel}, job) FROM told UNION ALL SELECT pg_notify({channel}, %(batch)s) FROM counted
"""
_CANCELLED = "state = 'CANCELLED', end_time = now(), expire_time = now() + make_interval(secs => %(keep_s)s)"
_QUEUED = (
    "state = 'QUEUED', end_time = NULL, expire_time = NULL, actor = %(actor)s, project = %(project)s,"
    " call_id = %(call_id)s, trace = %(trace)s"
)


def _moving(right: LiteralString, changes: LiteralString, kind: LiteralString) -> bytes:
    return _MOVE.format(right=right, changes=changes, kind=f"'{kind}'", channel=f"'{EVENT_CHANNEL}'").encode()


_CANCEL = _moving(_TAKEN_OUT, _CANCELLED, "ENDED")
_RETRY = _moving(_QUEUED_AGAIN, _QUEUED, "QUEUED")


class PostgresBatches:
    """BatchStore. Row-level security shows each transaction its own tenant's rows only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._jobs = PostgresJobs(pool)

    async def batch(self, tenant: str, batch_id: str) -> Batch | None:
        """The batch with its counts."""
        return await self._jobs.batch(tenant, batch_id)

    async def work(self, tenant: str, batch_id: str) -> Work | None:
        """That of any of its jobs."""
        with translate("batches.work"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                row = await (await connection.execute(_WORK, {"tenant": tenant, "batch": batch_id})).fetchone()
        return None if row is None else decode_work(bytes(row[0]))

    async def list(self, tenant: str, *, open_only: bool, first: str, before: str, limit: int) -> Sequence[Batch]:
        """Newest first."""
        row = {"tenant": tenant, "first": first, "before": before, "limit": limit}
        with translate("batches.list"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                found = await (await connection.execute(listing(open_only=open_only), row)).fetchall()
        return [
            Batch(batch_id, sequence, created, {JobState(state): count for state, count in counts.items()}, spent)
            for batch_id, sequence, created, counts, spent in found
        ]

    async def cancel_some(self, tenant: str, batch_id: str, *, after: str, limit: int, keep_s: float) -> Moved:
        """Whoever deletes the rows in the queue ends the jobs."""
        row = {"tenant": tenant, "batch": batch_id, "after": after, "limit": limit, "keep_s": keep_s}
        with translate("batches.cancel"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                ids = [job for (job,) in await (await connection.execute(SOME_OPEN, row)).fetchall()]
                moved = 0
                if ids:
                    moved = await _count(await connection.execute(_CANCEL, {**row, "ids": ids}))
                    await connection.execute(RING.encode())
        return Moved(moved, ids[-1] if len(ids) == limit else "")

    async def retry_some(
        self, caller: Caller, batch_id: str, states: Sequence[JobState], *, after: str, limit: int, most_waiting: int
    ) -> Moved:
        """All that were chosen, or none where they have no room."""
        row: dict[str, Any] = {
            "tenant": caller.tenant,
            "batch": batch_id,
            "states": [state.value for state in states],
            "after": after,
            "limit": limit,
            "actor": caller.actor,
            "project": caller.project,
            "call_id": caller.request_id,
            "trace": caller.trace,
        }
        with translate("batches.retry"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, caller.tenant)
                await connection.execute(LOCK_TENANT, (caller.tenant,))
                ids = [job for (job,) in await (await connection.execute(SOME_ENDED, row)).fetchall()]
                moved = 0
                if ids:
                    await check_room(connection, {"tenant": caller.tenant, "limit": most_waiting}, len(ids))
                    await connection.execute(TAKE_TURNS, row)
                    moved = await _count(await connection.execute(_RETRY, {**row, "ids": ids}))
                    await connection.execute(RING.encode())
        return Moved(moved, ids[-1] if len(ids) == limit else "")


def listing(*, open_only: bool) -> bytes:
    """The statement that lists batches."""
    return _LIST.format(chosen=_OPEN if open_only else _CHOSEN).encode()


async def _count(cursor: Any) -> int:
    """One row for each job, and one for the batch."""
    return max(0, len(await cursor.fetchall()) - 1)
