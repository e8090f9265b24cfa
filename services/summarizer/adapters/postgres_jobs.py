"""Jobs in Postgres as their owners see them: a job and its place in the queue are one transaction."""

from collections.abc import Sequence
from typing import Any

from services.database.pool import Pool, translate
from services.runtime.errors import AlreadyExists, QuotaViolation, ResourceExhausted
from services.summarizer.adapters.job_encoding import encode_work, fingerprint
from services.summarizer.adapters.postgres_job_rows import (
    COLUMNS,
    EVENT_COLUMNS,
    RING,
    Connection,
    bind,
    move,
    to_event,
    to_job,
)
from services.summarizer.domain.jobs import Batch, EventKind, Fault, Job, JobEvent, JobState, Order, Selection
from services.summarizer.domain.values import Caller, Money

_Rows = list[tuple[Any, ...]]

RETRY_FULL_S = 10.0
"""When to ask again where the queue is full."""
_ERASED_AT_ONCE = 500

# Whoever submits for a tenant does it alone, so that the limit and the request ids hold.
LOCK_TENANT = "SELECT pg_advisory_xact_lock(hashtextextended('summarizer-jobs/' || %s, 0))"
_KNOWN = """
    SELECT fingerprint, job, batch FROM summarizer.job_requests
    WHERE tenant = %(tenant)s AND actor = %(actor)s AND request_id = %(request_id)s
"""
_REMEMBER = """
    INSERT INTO summarizer.job_requests (tenant, actor, request_id, fingerprint, job, batch)
    VALUES (%(tenant)s, %(actor)s, %(request_id)s, %(fingerprint)s, %(first)s, %(batch)s)
"""
_QUEUED = """
    SELECT count(*) FROM (
        SELECT 1 FROM summarizer.job_queue WHERE tenant = %(tenant)s AND worker IS NULL LIMIT %(limit)s
    ) AS queued
"""
TAKE_TURNS = "INSERT INTO summarizer.job_turns (tenant) VALUES (%(tenant)s) ON CONFLICT DO NOTHING"
_BATCH = """
    INSERT INTO summarizer.job_batches (tenant, id, last_sequence) VALUES (%(tenant)s, %(batch)s, %(count)s)
"""
_JOBS = """
    INSERT INTO summarizer.jobs
        (tenant, id, batch, document, work, priority, state, actor, project, call_id, trace, max_attempts,
         last_sequence, schedule_time, max_cost_micros)
    SELECT %(tenant)s, new.id, %(batch)s, new.document, %(work)s, %(priority)s, 'QUEUED', %(actor)s, %(project)s,
           %(call_id)s, %(trace)s, %(max_attempts)s, 1, coalesce(%(schedule_time)s, now()),
           %(max_cost)s
    FROM unnest(%(ids)s::text[], %(documents)s::text[]) AS new (id, document)
"""
_QUEUE = """
    INSERT INTO summarizer.job_queue (job, tenant, priority, due_time, attempt, max_attempts)
    SELECT id, %(tenant)s, %(priority)s, coalesce(%(schedule_time)s, now()), 0, %(max_attempts)s
    FROM unnest(%(ids)s::text[]) AS id
"""
_EVENTS = """
    INSERT INTO summarizer.job_events
        (tenant, job, sequence, batch, batch_sequence, kind, state, attempt, pages_read, page_count, chunks_done,
         chunk_count, fault_kind, fault_reason, fault_message)
    SELECT %(tenant)s, new.id, 1, %(batch)s, CASE WHEN %(batch)s = '' THEN 0 ELSE new.place END, 'QUEUED', 'QUEUED',
           0, 0, 0, 0, 0, '', '', ''
    FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS new (id, place)
"""
_GET = f"SELECT {COLUMNS}, result FROM summarizer.jobs WHERE tenant = %(tenant)s AND id = %(job)s"  # noqa: S608
_LIST = f"""
    SELECT {COLUMNS} FROM summarizer.jobs
    WHERE tenant = %(tenant)s AND id < %(before)s {{}}
    ORDER BY id DESC LIMIT %(limit)s
"""  # noqa: S608
_ONLY = {
    "state": "AND state = %(state)s",
    # As the index says it, so that it is taken whatever the parameter is.
    "batch": "AND batch = %(batch)s AND batch <> ''",
    "document": "AND document = %(document)s",
}
_FIRST = "g"
"""After every id."""
_GET_BATCH = """
    SELECT id, last_sequence, create_time FROM summarizer.job_batches WHERE tenant = %(tenant)s AND id = %(batch)s
"""
_COUNTS = """
    SELECT state, count(*), sum(spent_micros)::bigint FROM summarizer.jobs
    WHERE tenant = %(tenant)s AND batch = %(batch)s AND batch <> ''
    GROUP BY state
"""
# Rows of the queue are locked before those of jobs, by everybody.
_TAKE_OUT = "DELETE FROM summarizer.job_queue WHERE tenant = %(tenant)s AND job = %(job)s"
_AGAIN = """
    INSERT INTO summarizer.job_queue (job, tenant, priority, due_time, attempt, max_attempts)
    SELECT id, tenant, priority, now(), attempts, max_attempts FROM summarizer.jobs
    WHERE tenant = %(tenant)s AND id = %(job)s AND state IN ('FAILED', 'CANCELLED')
    ON CONFLICT (job) DO NOTHING
"""
_OWNED = """
    UPDATE summarizer.jobs SET actor = %(actor)s, project = %(project)s, call_id = %(call_id)s, trace = %(trace)s,
        max_cost_micros = coalesce(%(max_cost)s, max_cost_micros)
    WHERE tenant = %(tenant)s AND id = %(job)s
"""
_EVENTS_OF_JOB = f"""
    SELECT {EVENT_COLUMNS} FROM summarizer.job_events
    WHERE tenant = %(tenant)s AND job = %(id)s AND sequence > %(after)s ORDER BY sequence LIMIT %(limit)s
"""  # noqa: S608
_EVENTS_OF_BATCH = f"""
    SELECT {EVENT_COLUMNS} FROM summarizer.job_events
    WHERE tenant = %(tenant)s AND batch = %(id)s AND batch_sequence > greatest(%(after)s, 0)
    ORDER BY batch_sequence LIMIT %(limit)s
"""  # noqa: S608
_OPEN_OF_DOCUMENT = """
    SELECT batch, id FROM summarizer.jobs
    WHERE tenant = %(tenant)s AND document = %(document)s AND state IN ('QUEUED', 'RUNNING') LIMIT %(limit)s
"""
# All of them before the first job is moved on: a worker that ends one of them holds its row, and may want a batch's.
_TAKE_ALL_OUT = """
    DELETE FROM summarizer.job_queue AS q
    USING (SELECT job FROM summarizer.job_queue WHERE tenant = %(tenant)s AND job = ANY(%(ids)s)
           ORDER BY job FOR UPDATE) AS held
    WHERE q.job = held.job RETURNING q.job
"""
_FORGET_RESULTS = """
    UPDATE summarizer.jobs SET result = NULL
    WHERE tenant = %(tenant)s AND document = %(document)s AND result IS NOT NULL
"""


class PostgresJobs:
    """JobStore. Row-level security shows each transaction its own tenant's rows only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def submit(self, order: Order, *, ids: Sequence[str], batch: str, limit: int) -> tuple[Job, str]:
        """All rows or none."""
        caller = order.caller
        row: dict[str, Any] = {
            "tenant": caller.tenant,
            "actor": caller.actor,
            "project": caller.project,
            "call_id": caller.request_id,
            "trace": caller.trace,
            "request_id": order.request_id,
            "ids": list(ids),
            "first": ids[0],
            "documents": list(order.documents),
            "count": len(ids),
            "batch": batch,
            "work": encode_work(order.work),
            "fingerprint": fingerprint(order),
            "priority": int(order.priority),
            "max_attempts": order.max_attempts,
            "schedule_time": order.schedule_time,
            "max_cost": None if order.max_cost is None else order.max_cost.micros,
            "limit": limit,
        }
        with translate("jobs.submit"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, caller.tenant)
                await connection.execute(LOCK_TENANT, (caller.tenant,))
                if order.request_id and (known := await _known(connection, row)) is not None:
                    return known
                await check_room(connection, row, len(ids))
                await connection.execute(TAKE_TURNS, row)
                if order.request_id:
                    await connection.execute(_REMEMBER, row)
                if batch:
                    await connection.execute(_BATCH, row)
                for statement in (_JOBS, _QUEUE, _EVENTS, RING):
                    await connection.execute(statement.encode(), row)
                return await _job(connection, row, ids[0]), batch

    async def get(self, tenant: str, job_id: str) -> Job | None:
        """The job with its result."""
        row = await self._one(tenant, "jobs.get", _GET, {"job": job_id})
        return None if row is None else to_job(row, row[-1])

    async def list(self, tenant: str, selection: Selection, *, before: str, limit: int) -> Sequence[Job]:
        """Newest first."""
        state = selection.state.value if selection.state else ""
        wanted = {"state": state, "batch": selection.batch, "document": selection.document}
        conditions = " ".join(_ONLY[name] for name, value in wanted.items() if value)
        row = {**wanted, "before": before or _FIRST, "limit": limit}
        rows = await self._all(tenant, "jobs.list", _LIST.format(conditions), row)
        return [to_job(found) for found in rows]

    async def batch(self, tenant: str, batch_id: str) -> Batch | None:
        """The batch with its counts."""
        row = {"tenant": tenant, "batch": batch_id}
        with translate("jobs.batch"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                found = await (await connection.execute(_GET_BATCH, row)).fetchone()
                if found is None:
                    return None
                counts = await (await connection.execute(_COUNTS, row)).fetchall()
        by_state = {JobState(state): count for state, count, _ in counts}
        return Batch(found[0], found[1], found[2], by_state, sum(spent for *_, spent in counts))

    async def cancel(self, tenant: str, job_id: str, *, keep_s: float) -> Job | None:
        """Whoever deletes the row in the queue ends the job."""
        row = {"tenant": tenant, "job": job_id}
        with translate("jobs.cancel"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                cursor = await connection.execute(_TAKE_OUT, row)
                if cursor.rowcount:
                    await move(connection, tenant, job_id, EventKind.ENDED, JobState.CANCELLED, keep_s=keep_s)
                found = await (await connection.execute(_GET.encode(), row)).fetchone()
        return None if found is None else to_job(found, found[-1])

    async def retry(
        self, caller: Caller, job_id: str, *, limit: int, max_cost: Money | None = None
    ) -> tuple[Job, bool] | None:
        """Queues it once more; its next attempt has a number that no worker before it knew."""
        tenant = caller.tenant
        most = None if max_cost is None else max_cost.micros
        row = {"tenant": tenant, "job": job_id, "limit": limit, "max_cost": most}
        with translate("jobs.retry"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                await connection.execute(LOCK_TENANT, (tenant,))
                cursor = await connection.execute(_AGAIN, row)
                queued = cursor.rowcount == 1
                if queued:
                    await check_room(connection, row, 0)
                    await connection.execute(TAKE_TURNS, row)
                    owner = {"actor": caller.actor, "project": caller.project, "call_id": caller.request_id}
                    await connection.execute(_OWNED, {**row, **owner, "trace": caller.trace})
                    await move(connection, tenant, job_id, EventKind.QUEUED, JobState.QUEUED)
                    await connection.execute(RING.encode())
                found = await (await connection.execute(_GET.encode(), row)).fetchone()
        return None if found is None else (to_job(found, found[-1]), queued)

    async def events(self, tenant: str, job_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
        """Of one job."""
        row = {"id": job_id, "after": after, "limit": limit}
        return [to_event(found) for found in await self._all(tenant, "jobs.events", _EVENTS_OF_JOB, row)]

    async def batch_events(self, tenant: str, batch_id: str, *, after: int, limit: int) -> Sequence[JobEvent]:
        """Of one batch."""
        row = {"id": batch_id, "after": after, "limit": limit}
        return [to_event(found) for found in await self._all(tenant, "jobs.batch_events", _EVENTS_OF_BATCH, row)]

    async def erase(self, tenant: str, document: str, fault: Fault, *, keep_s: float) -> int:
        """In parts, for a document may have thousands of jobs; what is done stays done."""
        touched = 0
        while True:
            ended, forgotten = await self._erase_some(tenant, document, fault, keep_s)
            touched += ended + forgotten
            if ended < _ERASED_AT_ONCE:
                return touched

    async def _erase_some(self, tenant: str, document: str, fault: Fault, keep_s: float) -> tuple[int, int]:
        row = {"tenant": tenant, "document": document, "limit": _ERASED_AT_ONCE}
        with translate("jobs.erase"):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                found = await (await connection.execute(_OPEN_OF_DOCUMENT, row)).fetchall()
                out = await connection.execute(_TAKE_ALL_OUT, {"tenant": tenant, "ids": [job for _, job in found]})
                ended = {job for (job,) in await out.fetchall()}
                # By batches, as by everybody who moves jobs of several.
                for _, job_id in sorted(found):
                    if job_id in ended:
                        await move(
                            connection, tenant, job_id, EventKind.ENDED, JobState.FAILED, fault=fault, keep_s=keep_s
                        )
            # In a transaction of its own, which holds no batch; one that was just finished is seen by now.
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                forgotten = (await connection.execute(_FORGET_RESULTS, row)).rowcount
        return len(ended), forgotten

    async def _one(self, tenant: str, operation: str, query: str, row: dict[str, Any]) -> tuple[Any, ...] | None:
        rows = await self._all(tenant, operation, query, row)
        return rows[0] if rows else None

    async def _all(self, tenant: str, operation: str, query: str, row: dict[str, Any]) -> _Rows:
        with translate(operation):
            async with self._pool.connection() as connection, connection.transaction():
                await bind(connection, tenant)
                return await (await connection.execute(query.encode(), {**row, "tenant": tenant})).fetchall()


async def _known(connection: Connection, row: dict[str, Any]) -> tuple[Job, str] | None:
    found = await (await connection.execute(_KNOWN, row)).fetchone()
    if found is None:
        return None
    print_of_it, job_id, batch = found
    if bytes(print_of_it) != row["fingerprint"]:
        raise AlreadyExists(
            "REQUEST_ID_REUSED", "This request id was used for another request. Make a new one for each request."
        )
    return await _job(connection, row, job_id), batch


async def _job(connection: Connection, row: dict[str, Any], job_id: str) -> Job:
    found = await (await connection.execute(_GET.encode(), {**row, "job": job_id})).fetchone()
    assert found is not None
    return to_job(found)


async def check_room(connection: Connection, row: dict[str, Any], more: int) -> None:
    """Raises ResourceExhausted JOB_QUEUE_FULL where `limit` jobs of the tenant wait that `row` names, with `more`."""
    found = await (await connection.execute(_QUEUED, {**row, "limit": row["limit"] + 1})).fetchone()
    assert found is not None
    if found[0] + more > row["limit"]:
        raise full_queue(row["tenant"], row["limit"])


def full_queue(tenant: str, limit: int) -> ResourceExhausted:
    """What a tenant is told that has too many jobs waiting."""
    return ResourceExhausted(
        "JOB_QUEUE_FULL",
        f"More than {limit:,} jobs of this tenant would wait. Send fewer at once, or wait until some are done.",
        retry_after_s=RETRY_FULL_S,
        quota=QuotaViolation(f"tenants/{tenant}", f"at most {limit:,} jobs may wait"),
    )
