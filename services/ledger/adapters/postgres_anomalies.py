"""Cost anomalies in Postgres: sums of days over all tenants, and one row for each day that was told of."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_acting import acting_for
from services.ledger.adapters.postgres_rows import WORK_ACROSS
from services.ledger.domain.cost_anomalies import CostAnomaly, Spending
from services.ledger.domain.forecast import TRAILING_DAYS
from services.ledger.domain.usage_spans import DAY
from services.ledger.domain.values import CURRENCY

EVENT_TYPE = "cost.anomaly_detected"

_WORK = "cost_anomalies"
# As in reports, rollups and queue in one snapshot: exact, however far the rollups are behind.
SPENDING = """
    WITH dear AS MATERIALIZED (
        SELECT tenant FROM (
            SELECT tenant, cost_micros FROM ledger.usage_rollups
            WHERE facet = '' AND span_hours = 24 AND begin_time = %(day)s AND tenant > %(after)s
            UNION ALL
            SELECT tenant, cost_micros FROM ledger.usage_deltas
            WHERE facet = '' AND hour >= %(day)s AND hour < %(end)s AND tenant > %(after)s
        ) s GROUP BY tenant HAVING sum(cost_micros) > %(above)s ORDER BY tenant LIMIT %(limit)s
    )
    SELECT dear.tenant, first.day, costs.day, sum(costs.cost_micros)::bigint
    FROM dear CROSS JOIN LATERAL (
        SELECT least(
            (SELECT begin_time FROM ledger.usage_rollups
             WHERE tenant = dear.tenant AND facet = '' AND span_hours = 24 ORDER BY begin_time LIMIT 1),
            (SELECT date_trunc('day', hour, 'UTC') FROM ledger.usage_deltas
             WHERE tenant = dear.tenant AND facet = '' ORDER BY hour LIMIT 1)
        ) AS day
    ) first CROSS JOIN LATERAL (
        SELECT begin_time AS day, cost_micros FROM ledger.usage_rollups
        WHERE tenant = dear.tenant AND facet = '' AND span_hours = 24
          AND begin_time >= %(begin)s AND begin_time < %(end)s
        UNION ALL
        SELECT date_trunc('day', hour, 'UTC'), cost_micros FROM ledger.usage_deltas
        WHERE tenant = dear.tenant AND facet = '' AND hour >= %(begin)s AND hour < %(end)s
    ) costs
    GROUP BY dear.tenant, first.day, costs.day ORDER BY dear.tenant, costs.day
"""
# A row that is there already was told of before: no second one, and no second webhook.
_TELL = """
    WITH new AS (
        INSERT INTO ledger.cost_anomalies (tenant, day, cost_micros, usual_micros, threshold_micros, detect_time)
        VALUES (%(tenant)s, %(day)s, %(cost)s, %(usual)s, %(threshold)s, %(time)s)
        ON CONFLICT DO NOTHING RETURNING tenant
    ), told AS (
        INSERT INTO ledger.webhook_deliveries (tenant, id, webhook, event_type, body, state, attempts, due_time,
                                               create_time, last_failure)
        SELECT w.tenant, gen_random_uuid(), w.id, %(type)s, %(body)s, 'PENDING', 0, now(), now(), ''
        FROM new JOIN ledger.webhooks w ON w.tenant = new.tenant AND w.delete_time IS NULL
            AND %(type)s = ANY(w.event_types)
    )
    SELECT count(*) FROM new
"""


class PostgresAnomalies:
    """AnomalyStore."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def spending(self, day: datetime, *, above_micros: int, after: str, limit: int) -> Sequence[Spending]:
        values = {
            "begin": day - TRAILING_DAYS * DAY,
            "day": day,
            "end": day + DAY,
            "above": above_micros,
            "after": after,
            "limit": limit,
        }
        with translate("spending_of_day"):
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(WORK_ACROSS, (_WORK,))
                rows = await (await connection.execute(SPENDING, values)).fetchall()
        found: dict[str, tuple[datetime, dict[datetime, int]]] = {}
        for tenant, first_day, on, cost in rows:
            found.setdefault(tenant, (first_day, {}))[1][on] = cost
        return [Spending(tenant, first_day, costs) for tenant, (first_day, costs) in found.items()]

    async def tell(self, anomaly: CostAnomaly) -> bool:
        values: dict[str, Any] = {
            "tenant": anomaly.tenant,
            "day": anomaly.day.date(),
            "cost": anomaly.cost_micros,
            "usual": anomaly.usual_micros,
            "threshold": anomaly.threshold_micros,
            "time": anomaly.detect_time,
            "type": EVENT_TYPE,
            "body": _body(anomaly),
        }
        with translate("tell_of_anomaly"):
            async with acting_for(self._pool, anomaly.tenant) as connection:
                ((new,),) = await (await connection.execute(_TELL, values)).fetchall()
        return bool(new)


def _body(anomaly: CostAnomaly) -> str:
    """What a webhook says of it."""
    data = {
        "tenant": f"tenants/{anomaly.tenant}",
        "day": anomaly.day.date().isoformat(),
        "currency": CURRENCY,
        "cost_micros": anomaly.cost_micros,
        "usual_micros": anomaly.usual_micros,
        "factor_micros": anomaly.factor_micros,
        "threshold_micros": anomaly.threshold_micros,
    }
    return json.dumps({"type": EVENT_TYPE, "timestamp": anomaly.detect_time.isoformat(), "data": data})
