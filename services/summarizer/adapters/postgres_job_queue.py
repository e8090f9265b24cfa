"""The queue of jobs in Postgres as workers see it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.database.pool import Pool, single, translate
from services.summarizer.adapters.encoding import Undecodable
from services.summarizer.adapters.job_encoding import decode_work, encode_result
from services.summarizer.adapters.postgres_job_event_months import PostgresEventMonths
from services.summarizer.adapters.postgres_job_rows import (
    ACROSS,
    RING,
    Connection,
    bind,
    move,
    moved_to,
    moving,
    to_bound,
)
from services.summarizer.domain.events import Progress
from services.summarizer.domain.jobs import (
    Claim,
    EventKind,
    Fault,
    Forgotten,
    JobState,
    Priority,
    Result,
    Waiting,
)
from services.summarizer.domain.values import Caller

# A claim holds the row of the tenant's turn until it is done: so each tenant's claims follow each other, and its
# running jobs are counted right.
_TENANT = """
    SELECT turn.tenant, class.priority, coalesce(turn.most_running, %(most)s)
    FROM unnest(%(order)s::smallint[]) WITH ORDINALITY AS class (priority, place), summarizer.job_turns AS turn
    WHERE EXISTS (
        SELECT FROM summarizer.job_queue AS q
        WHERE q.tenant = turn.tenant AND q.priority = class.priority AND q.worker IS NULL AND q.due_time <= now()
    ) AND (
        SELECT count(*) FROM summarizer.job_queue AS r WHERE r.tenant = turn.tenant AND r.worker IS NOT NULL
    ) < coalesce(turn.most_running, %(most)s)
    ORDER BY class.place, turn.serve_time
    LIMIT 1
    FOR UPDATE OF turn
"""
# Asks for the count once more: what another claim did before the lock was given is seen only by a new statement.
_CLAIM = """
    UPDATE summarizer.job_queue AS q
    SET worker = %(worker)s, lease_time = clock_timestamp() + make_interval(secs => %(lease_s)s),
        attempt = q.attempt + 1, tries = q.tries + 1
    FROM (
        SELECT job FROM summarizer.job_queue
        WHERE tenant = %(tenant)s AND priority = %(priority)s AND worker IS NULL AND due_time <= now()
          AND (SELECT count(*) FROM summarizer.job_queue WHERE tenant = %(tenant)s AND worker IS NOT NULL) < %(most)s
        ORDER BY due_time, job
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS next
    WHERE q.job = next.job
    RETURNING q.job, q.attempt, q.tries
"""
_SERVED = "UPDATE summarizer.job_turns SET serve_time = clock_timestamp() WHERE tenant = %(tenant)s"
_BEGIN = moving(_CLAIM).replace(b"SELECT moved.*, ", b"SELECT moved.*, (SELECT tries FROM held), ")
NEWER_S = 10.0
"""How long a job that this version cannot read is left to others."""
_RACES = 3
"""How often a claim looks again where another one was faster."""
_BEAT = """
    UPDATE summarizer.job_queue SET lease_time = clock_timestamp() + make_interval(secs => %(lease_s)s)
    WHERE job = %(job)s AND attempt = %(attempt)s AND worker IS NOT NULL
    RETURNING job, attempt
"""
_TELL = moving(_BEAT)
_END = """
    DELETE FROM summarizer.job_queue WHERE job = %(job)s AND attempt = %(attempt)s AND worker IS NOT NULL
    RETURNING job, attempt
"""
# Another job of the tenant may have waited for the place.
_FINISH = moving(_END, ring=True)
_BACK = """
    UPDATE summarizer.job_queue
    SET worker = NULL, lease_time = NULL, due_time = now() + make_interval(secs => %(delay_s)s),
        tries = tries - %(untried)s
    WHERE job = %(job)s AND attempt = %(attempt)s AND worker IS NOT NULL
    RETURNING job, attempt
"""
_GIVE_BACK = moving(_BACK, ring=True)
_LOST = """
    SELECT job, tenant, attempt, tries, max_attempts FROM summarizer.job_queue
    WHERE lease_time < clock_timestamp() AND worker IS NOT NULL
    ORDER BY lease_time LIMIT 1
    FOR UPDATE SKIP LOCKED
"""
_WAITING = """
    SELECT priority, count(*) FILTER (WHERE worker IS NULL), count(*) FILTER (WHERE worker IS NOT NULL),
           coalesce(extract(epoch FROM now() - min(due_time) FILTER (WHERE worker IS NULL AND due_time <= now())), 0)
    FROM summarizer.job_queue GROUP BY priority
"""
# SKIP LOCKED: several workers clean up, and none waits.
_EXPIRED = """
    SELECT tenant, id FROM summarizer.jobs WHERE expire_time <= %(now)s
    ORDER BY expire_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
_FORGET = (
    """
    DELETE FROM summarizer.job_events AS e USING unnest(%(tenants)s::text[], %(ids)s::text[]) AS old (tenant, id)
    WHERE e.tenant = old.tenant AND e.job = old.id AND e.job = ANY(%(ids)s)
    """,
    """
    DELETE FROM summarizer.job_calls AS c USING unnest(%(tenants)s::text[], %(ids)s::text[]) AS old (tenant, id)
    WHERE c.tenant = old.tenant AND c.job = old.id
    """,
    """
    DELETE FROM summarizer.job_requests AS r USING unnest(%(tenants)s::text[], %(ids)s::text[]) AS old (tenant, id)
    WHERE r.tenant = old.tenant AND r.job = old.id
    """,
    """
    DELETE FROM summarizer.jobs AS j USING unnest(%(tenants)s::text[], %(ids)s::text[]) AS old (tenant, id)
    WHERE j.tenant = old.tenant AND j.id = old.id
    RETURNING j.tenant, j.batch
    """,
)
_FORGET_BATCHES = """
    DELETE FROM summarizer.job_batches AS b USING unnest(%(tenants)s::text[], %(batches)s::text[]) AS old (tenant, id)
    WHERE b.tenant = old.tenant AND b.id = old.id
      AND NOT EXISTS (SELECT FROM summarizer.jobs AS j WHERE j.tenant = b.tenant AND j.batch = b.id AND j.batch <> '')
"""


class PostgresJobQueue:
    """JobQueue. It reads job_queue for all tenants, and a tenant's rows as that tenant."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._months = PostgresEventMonths(pool)

    async def claim(
        self, order: Sequence[Priority], *, worker: str, lease_s: float, most_of_tenant: int
    ) -> Claim | None:
        """The next job, if there is one."""
        row: dict[str, Any] = {
            "order": [int(priority) for priority in order],
            "worker": worker,
            "lease_s": lease_s,
            "most": most_of_tenant,
        }
        with translate("jobs.claim"):
            for _ in range(_RACES):
                async with self._pool.connection() as connection, connection.pipeline():
                    found = await (await connection.execute(_TENANT, row)).fetchone()
                    if found is None:
                        return None
                    claim = await _claim(
                        connection, {**row, "tenant": found[0], "priority": found[1], "most": found[2]}
                    )
                if claim is not None:
                    return claim
        return None

    async def beat(self, claim: Claim, *, lease_s: float, progress: Progress | None) -> bool:
        """The row in the queue is locked meanwhile: nobody can end the job between the two."""
        if progress is None:
            with translate("jobs.beat"):
                async with single(self._pool) as connection:
                    row = {"job": claim.job_id, "attempt": claim.attempt, "lease_s": lease_s}
                    return (await connection.execute(_BEAT, row)).rowcount == 1
        moved = moved_to(claim.caller.tenant, EventKind.PROGRESS, JobState.RUNNING, progress=progress)
        return await self._move(claim, "jobs.beat", _TELL, {**moved, "lease_s": lease_s})

    async def finish(
        self,
        claim: Claim,
        state: JobState,
        *,
        result: Result | None,
        fault: Fault | None,
        keep_s: float,
        progress: Progress | None = None,
    ) -> bool:
        """Whoever deletes the row in the queue ends the job."""
        tenant = claim.caller.tenant
        encoded = None if result is None else encode_result(tenant, result)
        moved = moved_to(tenant, EventKind.ENDED, state, fault=fault, result=encoded, keep_s=keep_s)
        last = None
        if progress is not None:
            # The lease is over with the next statement.
            last = {**moved_to(tenant, EventKind.PROGRESS, JobState.RUNNING, progress=progress), "lease_s": 1.0}
        return await self._move(claim, "jobs.finish", _FINISH, moved, before=last)

    async def postpone(self, claim: Claim, *, delay_s: float, fault: Fault) -> bool:
        """Queued again, to be due later."""
        return await self._give_back(claim, EventKind.POSTPONED, delay_s, untried=0, fault=fault)

    async def hand_back(self, claim: Claim) -> bool:
        """Queued again, and due at once."""
        return await self._give_back(claim, EventKind.HANDED_BACK, 0.0, untried=1, fault=None)

    async def recover(self, fault: Fault, *, limit: int, keep_s: float) -> int:
        """A transaction for each: whoever holds the row of a batch waits for no other, so workers that recover jobs of
        the same batches do not wait for each other in a ring."""
        with translate("jobs.recover"):
            async with self._pool.connection() as connection:
                for count in range(limit):
                    async with connection.transaction():
                        if not await _recover_one(connection, fault, keep_s):
                            return count
        return limit

    async def waiting(self) -> Sequence[Waiting]:
        """One for each priority, empty ones too."""
        with translate("jobs.waiting"):
            async with single(self._pool) as connection:
                rows = await (await connection.execute(_WAITING)).fetchall()
        found = {row[0]: Waiting(Priority(row[0]), row[1], row[2], float(row[3])) for row in rows}
        return [found.get(int(priority), Waiting(priority, 0, 0, 0.0)) for priority in Priority]

    async def forget(self, now: datetime, *, limit: int) -> Forgotten:
        """Rows of all tenants; and the months of events are made and removed."""
        await self._months.keep(now)
        with translate("jobs.forget"):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(ACROSS)
                old = await (await connection.execute(_EXPIRED, {"now": now, "limit": limit})).fetchall()
                if not old:
                    return Forgotten()
                row = {"tenants": [tenant for tenant, _ in old], "ids": [job_id for _, job_id in old]}
                events, _, _, jobs = [await connection.execute(statement, row) for statement in _FORGET]
                batches = sorted({(tenant, batch) for tenant, batch in await jobs.fetchall() if batch})
                gone = {"tenants": [tenant for tenant, _ in batches], "batches": [batch for _, batch in batches]}
                removed = await connection.execute(_FORGET_BATCHES, gone)
                return Forgotten(jobs.rowcount, events.rowcount, removed.rowcount)

    async def _give_back(
        self, claim: Claim, kind: EventKind, delay_s: float, *, untried: int, fault: Fault | None
    ) -> bool:
        moved = moved_to(claim.caller.tenant, kind, JobState.QUEUED, fault=fault)
        return await self._move(claim, "jobs.give_back", _GIVE_BACK, {**moved, "delay_s": delay_s, "untried": untried})

    async def _move(
        self,
        claim: Claim,
        operation: str,
        statement: bytes,
        row: dict[str, Any],
        *,
        before: dict[str, Any] | None = None,
    ) -> bool:
        """One round trip, and one transaction: what is sent between two syncs of a pipeline. `before` is progress that
        is told first."""
        held = {"job": claim.job_id, "attempt": claim.attempt}
        with translate(operation):
            async with single(self._pool) as connection:
                async with connection.pipeline():
                    await bind(connection, claim.caller.tenant)
                    if before is not None:
                        await connection.execute(_TELL, {**before, **held})
                    cursor = await connection.execute(statement, {**row, **held})
                return await cursor.fetchone() is not None


async def _recover_one(connection: Connection, fault: Fault, keep_s: float) -> bool:
    found = await (await connection.execute(_LOST)).fetchone()
    if found is None:
        return False
    job_id, tenant, attempt, tries, most = found
    await bind(connection, tenant)
    row = {"job": job_id, "attempt": attempt, "delay_s": 0.0, "untried": 0}
    if tries >= most:
        await connection.execute(_END, row)
        await move(connection, tenant, job_id, EventKind.ENDED, JobState.FAILED, fault=fault, keep_s=keep_s)
    else:
        await connection.execute(_BACK, row)
        await move(connection, tenant, job_id, EventKind.WORKER_LOST, JobState.QUEUED, fault=fault)
    await connection.execute(RING.encode())
    return True


async def _claim(connection: Connection, row: dict[str, Any]) -> Claim | None:
    tenant = row["tenant"]
    await bind(connection, tenant)
    cursor = await connection.execute(_BEGIN, {**row, **moved_to(tenant, EventKind.STARTED, JobState.RUNNING)})
    await connection.execute(_SERVED, row)
    moved = await cursor.fetchone()
    if moved is None:
        return None
    job_id, attempt, tries = moved[1], moved[28], moved[29]
    try:
        work = decode_work(bytes(moved[3]))
    except Undecodable:
        # A newer version has accepted it, and a newer worker can do it.
        await connection.execute(_BACK, {"job": job_id, "attempt": attempt, "delay_s": NEWER_S, "untried": 1})
        await move(connection, tenant, job_id, EventKind.HANDED_BACK, JobState.QUEUED)
        return None
    # The ledger's internal methods ask for no scopes.
    caller = Caller(
        tenant, moved[7], moved[25], frozenset(), moved[26], f"jobs/{job_id}", trace=moved[27], rank=moved[4]
    )
    return Claim(
        caller=caller,
        job_id=job_id,
        document=moved[2],
        work=work,
        priority=Priority(moved[4]),
        attempt=attempt,
        tries=tries,
        max_attempts=moved[9],
        max_cost=to_bound(moved[23]),
        spent_micros=moved[24],
    )
