"""Cost anomalies in memory: the same promises as the ones in Postgres."""

from collections.abc import Sequence
from datetime import datetime

from services.ledger.adapters.memory import MemoryLedger
from services.ledger.domain.cost_anomalies import CostAnomaly, Spending
from services.ledger.domain.forecast import TRAILING_DAYS
from services.ledger.domain.usage_spans import DAY, day_of


class MemoryAnomalies:
    """AnomalyStore. What was told is in `told`."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger
        self.told: dict[tuple[str, datetime], CostAnomaly] = {}

    async def spending(self, day: datetime, *, above_micros: int, after: str, limit: int) -> Sequence[Spending]:
        costs: dict[str, dict[datetime, int]] = {}
        for record in self._ledger.usage.values():
            of_tenant, on = costs.setdefault(record.tenant, {}), day_of(record.event.occur_time)
            of_tenant[on] = of_tenant.get(on, 0) + record.cost_micros
        dear = [tenant for tenant in sorted(costs) if tenant > after and costs[tenant].get(day, 0) > above_micros]
        begin = day - TRAILING_DAYS * DAY
        return [
            Spending(tenant, min(costs[tenant]), {on: cost for on, cost in costs[tenant].items() if begin <= on <= day})
            for tenant in dear[:limit]
        ]

    async def tell(self, anomaly: CostAnomaly) -> bool:
        return self.told.setdefault((anomaly.tenant, anomaly.day), anomaly) is anomaly
