"""Adds the queue of sums to the rollups."""

from services.database.pool import Pool, translate

# One statement: in no snapshot is a sum in both tables, or in neither. The lock keeps other replicas from adding to the
# same rows at the same time; they have nothing to wait for.
_ALONE = """
    SELECT pg_try_advisory_xact_lock(7103, 0), set_config('pagemesh.across', 'usage_rollups', true)
"""
FOLD = """
    WITH gone AS (
        DELETE FROM ledger.usage_deltas WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM ledger.usage_deltas ORDER BY tenant, facet, hour LIMIT %s
        )) RETURNING *
    ), added AS (
        INSERT INTO ledger.usage_rollups AS r (
            span_hours, begin_time, tenant, facet, value, model, project, actor, user_name, operation,
            cost_micros, records, input_tokens, output_tokens
        )
        SELECT s.hours, date_trunc(s.unit, hour, 'UTC'), tenant, facet, value, model, project, actor, user_name,
               operation, sum(cost_micros), sum(records), sum(input_tokens), sum(output_tokens)
        FROM gone CROSS JOIN (VALUES (1, 'hour'), (24, 'day')) AS s (hours, unit)
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
        ON CONFLICT (tenant, facet, span_hours, begin_time, value, model, project, actor, user_name, operation)
        DO UPDATE SET cost_micros = r.cost_micros + excluded.cost_micros, records = r.records + excluded.records,
                      input_tokens = r.input_tokens + excluded.input_tokens,
                      output_tokens = r.output_tokens + excluded.output_tokens
    )
    SELECT count(*) FROM gone
"""


class PostgresRollups:
    """Rollups."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def fold(self, limit: int) -> int:
        with translate("fold_usage"):
            async with self._pool.connection() as connection, connection.transaction():
                ((alone, _),) = await (await connection.execute(_ALONE)).fetchall()
                if not alone:
                    return 0
                ((folded,),) = await (await connection.execute(FOLD, (limit,))).fetchall()
        return int(folded)
