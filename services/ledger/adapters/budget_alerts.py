"""Thresholds that a transaction reached: their rows, and the webhooks that are to hear of them, in that transaction."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from prometheus_client import Counter
from psycopg import AsyncConnection
from psycopg.types.numeric import Int8

from services.ledger.domain.budgets import Budget, Limit
from services.ledger.domain.values import CURRENCY

CROSSINGS = Counter(
    "pagemesh_ledger_budget_crossings", "Thresholds of budgets that were reached.", ["limit", "percent"]
)
EVENT_TYPE = "budget.threshold_reached"

log = structlog.get_logger()

# A row that is there already was told of before: no second one, and no second webhook.
_INSERT = """
    WITH new AS (
        INSERT INTO ledger.budget_alerts (tenant, budget, period_start, kind, percent, limit_micros, settled_micros,
                                          held_micros, reach_time)
        SELECT %(tenant)s, * FROM unnest(
            %(budget)s::text[], %(start)s::timestamptz[], %(kind)s::text[], %(percent)s::smallint[],
            %(limit)s::bigint[], %(settled)s::bigint[], %(held)s::bigint[], %(time)s::timestamptz[])
        ON CONFLICT DO NOTHING RETURNING budget, period_start, kind, percent, limit_micros
    )
    INSERT INTO ledger.webhook_deliveries (tenant, id, webhook, event_type, body, state, attempts, due_time,
                                           create_time, last_failure)
    SELECT %(tenant)s, gen_random_uuid(), w.id, %(type)s, b.body, 'PENDING', 0, now(), now(), ''
    FROM new JOIN unnest(%(budget)s::text[], %(start)s::timestamptz[], %(kind)s::text[], %(percent)s::smallint[],
                         %(limit)s::bigint[], %(body)s::text[]) AS b (budget, start, kind, percent, cap, body)
      ON b.budget = new.budget AND b.start = new.period_start AND b.kind = new.kind AND b.percent = new.percent
         AND b.cap = new.limit_micros
    CROSS JOIN ledger.webhooks w WHERE w.tenant = %(tenant)s AND w.delete_time IS NULL
      AND %(type)s = ANY(w.event_types)
"""


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold that a budget's totals have reached."""

    budget: Budget
    start: datetime
    kind: Limit
    percent: int
    limit_micros: int
    settled_micros: int
    held_micros: int
    time: datetime

    def body(self) -> str:
        """What a webhook says of it."""
        end = self.budget.period.end(self.start)
        data = {
            "tenant": f"tenants/{self.budget.tenant}",
            "budget": self.budget.name,
            "subject": self.budget.subject,
            "period": self.budget.period.value,
            "period_start": None if end is None else self.start.isoformat(),
            "period_end": None if end is None else end.isoformat(),
            "limit_type": self.kind.value,
            "percent": self.percent,
            "currency": CURRENCY,
            "limit_micros": self.limit_micros,
            "settled_micros": self.settled_micros,
            "held_micros": self.held_micros,
        }
        return json.dumps({"type": EVENT_TYPE, "timestamp": self.time.isoformat(), "data": data})


async def tell_of(connection: AsyncConnection[tuple[Any, ...]], tenant: str, alerts: Sequence[Alert]) -> None:
    """Keeps the alerts, each once, and what the tenant's webhooks are to be sent. Counted and logged, even if undone
    later."""
    await connection.execute(
        _INSERT,
        {
            "tenant": tenant,
            "type": EVENT_TYPE,
            "budget": [alert.budget.budget_id for alert in alerts],
            "start": [alert.start for alert in alerts],
            "kind": [alert.kind.value for alert in alerts],
            "percent": [alert.percent for alert in alerts],
            "limit": [Int8(alert.limit_micros) for alert in alerts],
            "settled": [Int8(alert.settled_micros) for alert in alerts],
            "held": [Int8(alert.held_micros) for alert in alerts],
            "time": [alert.time for alert in alerts],
            "body": [alert.body() for alert in alerts],
        },
    )
    for alert in alerts:
        limit = alert.kind.value.lower()
        CROSSINGS.labels(limit, str(alert.percent)).inc()
        log.info(
            "budget_threshold_reached", tenant=tenant, budget=alert.budget.name, limit=limit, percent=alert.percent
        )
