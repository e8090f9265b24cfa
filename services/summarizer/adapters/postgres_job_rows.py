"""What the two sides of jobs in Postgres share: rows, and the one statement that moves a job on."""

from typing import Any

import psycopg

from services.summarizer.adapters.job_encoding import decode_result, decode_work
from services.summarizer.domain.events import Progress
from services.summarizer.domain.jobs import EventKind, Fault, Job, JobEvent, JobState, Priority
from services.summarizer.domain.purse import CURRENCY
from services.summarizer.domain.values import Money

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

QUEUE_CHANNEL = "summarizer_job_queue"
EVENT_CHANNEL = "summarizer_job_events"

COLUMNS = """
    tenant, id, document, work, priority, state, batch, actor, attempts, max_attempts, last_sequence, create_time,
    schedule_time, pages_read, page_count, chunks_done, chunk_count, start_time, end_time, expire_time,
    fault_kind, fault_reason, fault_message, max_cost_micros, spent_micros
"""
EVENT_COLUMNS = """
    job, sequence, batch_sequence, kind, state, attempt, create_time, pages_read, page_count, chunks_done, chunk_count,
    fault_kind, fault_reason, fault_message
"""
_BIND = "SELECT set_config('pagemesh.tenant', %s, true)"
ACROSS = "SELECT set_config('pagemesh.across', 'jobs', true)"
RING = f"SELECT pg_notify('{QUEUE_CHANNEL}', '')"

# The row in the queue is locked first, then that of the job, then that of its batch, by everybody who needs several: so
# numbers have no gaps, and nobody waits for somebody who waits for him. Progress is no event of the batch.
_MOVE = f"""
    WITH held AS ({{right}}), moved AS (
        UPDATE summarizer.jobs SET
            state = %(state)s,
            last_sequence = last_sequence + 1,
            attempts = coalesce(held.attempt, attempts),
            pages_read = coalesce(%(pages_read)s, pages_read),
            page_count = coalesce(%(page_count)s, page_count),
            chunks_done = coalesce(%(chunks_done)s, chunks_done),
            chunk_count = coalesce(%(chunk_count)s, chunk_count),
            start_time = CASE WHEN %(state)s = 'RUNNING' THEN coalesce(start_time, now()) ELSE start_time END,
            end_time = CASE WHEN %(ended)s THEN now() END,
            expire_time = CASE WHEN %(ended)s THEN now() + make_interval(secs => %(keep_s)s) END,
            fault_kind = %(fault_kind)s, fault_reason = %(fault_reason)s, fault_message = %(fault_message)s,
            result = %(result)s
        FROM held
        WHERE tenant = %(tenant)s AND id = held.job
        RETURNING {COLUMNS}, project, call_id, trace, held.attempt AS held_attempt
    ), counted AS (
        UPDATE summarizer.job_batches AS b SET last_sequence = b.last_sequence + 1
        FROM moved
        WHERE %(kind)s <> 'PROGRESS' AND b.tenant = moved.tenant AND b.id = moved.batch
        RETURNING b.last_sequence
    ), told AS (
        INSERT INTO summarizer.job_events
            (tenant, job, sequence, batch, batch_sequence, kind, state, attempt, pages_read, page_count, chunks_done,
             chunk_count, fault_kind, fault_reason, fault_message)
        SELECT tenant, id, last_sequence, batch, coalesce((SELECT last_sequence FROM counted), 0), %(kind)s, state,
               attempts, pages_read, page_count, chunks_done, chunk_count, fault_kind, fault_reason, fault_message
        FROM moved
        RETURNING job
    ), noticed AS (
        INSERT INTO summarizer.job_notices
            (tenant, job, sequence, batch, document, state, reason, attempts, pages_read, page_count, accept_time,
             end_time)
        SELECT tenant, id, last_sequence, batch, document, state, fault_reason, attempts, pages_read, page_count,
               create_time, end_time
        FROM moved WHERE %(ended)s
    )
    SELECT moved.*, {{told}} pg_notify('{EVENT_CHANNEL}', told.job),
           CASE WHEN moved.batch <> '' AND %(kind)s <> 'PROGRESS' THEN pg_notify('{EVENT_CHANNEL}', moved.batch) END
    FROM moved, told
"""  # noqa: S608 - names of columns
_NO_FAULT = Fault("", "", "")


async def bind(connection: Connection, tenant: str) -> None:
    """From here on the transaction sees this tenant's rows alone."""
    await connection.execute(_BIND, (tenant,))


_GIVEN = "SELECT %(job)s::text AS job, NULL::integer AS attempt"


def moving(right: str, *, ring: bool = False) -> bytes:
    """The statement that moves a job on and tells it. `right` answers job and attempt where the job may be moved, and
    nothing else; with `ring` workers hear of it. It answers COLUMNS, project, call_id, trace and the attempt."""
    told = f"pg_notify('{QUEUE_CHANNEL}', '')," if ring else ""
    return _MOVE.format(right=right, told=told).encode()


_MOVE_GIVEN = moving(_GIVEN)


def moved_to(
    tenant: str,
    kind: EventKind,
    state: JobState,
    *,
    progress: Progress | None = None,
    fault: Fault | None = None,
    result: bytes | None = None,
    keep_s: float = 0.0,
) -> dict[str, object]:
    """The parameters of `moving` but for those of its right."""
    told = fault or _NO_FAULT
    return {
        "tenant": tenant,
        "kind": kind.value,
        "state": state.value,
        "ended": state.ended,
        "pages_read": None if progress is None else progress.pages_read,
        "page_count": None if progress is None else progress.page_count,
        "chunks_done": None if progress is None else progress.chunks_done,
        "chunk_count": None if progress is None else progress.chunk_count,
        "fault_kind": told.kind,
        "fault_reason": told.reason,
        "fault_message": told.message.replace("\0", ""),
        "result": result,
        "keep_s": keep_s,
    }


async def move(
    connection: Connection,
    tenant: str,
    job_id: str,
    kind: EventKind,
    state: JobState,
    *,
    fault: Fault | None = None,
    keep_s: float = 0.0,
) -> None:
    """Brings a job into a state and tells it, within the tenant's transaction, which holds what gives it the right."""
    row = {**moved_to(tenant, kind, state, fault=fault, keep_s=keep_s), "job": job_id}
    cursor = await connection.execute(_MOVE_GIVEN, row)
    assert await cursor.fetchone() is not None, "a job in the queue has no row"


def to_job(row: tuple[Any, ...], result: bytes | None = None) -> Job:
    """The job of a row of COLUMNS."""
    (tenant, job_id, document, work, priority, state, batch, actor, attempts, most, sequence, created, scheduled) = row[
        :13
    ]
    return Job(
        tenant=tenant,
        job_id=job_id,
        document=document,
        work=decode_work(bytes(work)),
        priority=Priority(priority),
        state=JobState(state),
        batch=batch,
        actor=actor,
        attempts=attempts,
        max_attempts=most,
        last_sequence=sequence,
        create_time=created,
        schedule_time=scheduled,
        progress=Progress(*row[13:17]),
        start_time=row[17],
        end_time=row[18],
        expire_time=row[19],
        fault=_fault(*row[20:23]),
        result=None if result is None else decode_result(tenant, bytes(result)),
        max_cost=to_bound(row[23]),
        spent_micros=row[24],
    )


def to_bound(micros: int | None) -> Money | None:
    """What a job may spend, where it has a bound."""
    return None if micros is None else Money(CURRENCY, micros)


def to_event(row: tuple[Any, ...]) -> JobEvent:
    """The event of a row of EVENT_COLUMNS."""
    return JobEvent(
        job_id=row[0],
        sequence=row[1],
        batch_sequence=row[2],
        kind=EventKind(row[3]),
        state=JobState(row[4]),
        attempt=row[5],
        create_time=row[6],
        progress=Progress(*row[7:11]),
        fault=_fault(*row[11:14]),
    )


def _fault(kind: str, reason: str, message: str) -> Fault | None:
    return Fault(kind, reason, message) if kind else None
