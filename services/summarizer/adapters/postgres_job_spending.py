"""What the calls of jobs cost, in Postgres: under the lock of the job's place in the queue, which is its fence."""

from typing import Any

from services.database.pool import Pool, single, translate
from services.summarizer.adapters.postgres_job_rows import bind
from services.summarizer.domain.jobs import Claim

# The row of the queue is locked first, then that of the job, as by everybody.
_TAKEN = """
    WITH held AS (
        SELECT job FROM summarizer.job_queue
        WHERE job = %(job)s AND attempt = %(attempt)s AND worker IS NOT NULL
        FOR UPDATE
    ), call AS (
        INSERT INTO summarizer.job_calls (tenant, hold_id, job, amount_micros)
        SELECT %(tenant)s, %(hold_id)s::uuid, job, %(amount)s FROM held
        RETURNING job
    )
    UPDATE summarizer.jobs AS j SET spent_micros = j.spent_micros + %(amount)s FROM call
    WHERE j.tenant = %(tenant)s AND j.id = call.job
"""
_ENDED = """
    WITH call AS (
        DELETE FROM summarizer.job_calls WHERE tenant = %(tenant)s AND hold_id = %(hold_id)s::uuid
        RETURNING job, amount_micros
    )
    UPDATE summarizer.jobs AS j SET spent_micros = j.spent_micros - call.amount_micros + %(cost)s FROM call
    WHERE j.tenant = %(tenant)s AND j.id = call.job
"""


class PostgresJobSpending:
    """JobSpending."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def taken(self, claim: Claim, hold_id: str, amount_micros: int) -> bool:
        """One statement: the call is counted, or the claim does not hold."""
        row = {"job": claim.job_id, "attempt": claim.attempt, "hold_id": hold_id, "amount": amount_micros}
        return await self._write("jobs.taken", claim.caller.tenant, _TAKEN, row) == 1

    async def ended(self, tenant: str, hold_id: str, cost_micros: int) -> None:
        """Whoever deletes the row corrects the sum, so it is corrected once."""
        await self._write("jobs.ended", tenant, _ENDED, {"hold_id": hold_id, "cost": cost_micros})

    async def _write(self, operation: str, tenant: str, statement: str, row: dict[str, Any]) -> int:
        """One round trip, and one transaction. Answers how many jobs were touched."""
        with translate(operation):
            async with single(self._pool) as connection:
                async with connection.pipeline():
                    await bind(connection, tenant)
                    cursor = await connection.execute(statement.encode(), {**row, "tenant": tenant})
                return cursor.rowcount
