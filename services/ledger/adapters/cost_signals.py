"""What recorded calls cost, as a metric.

By model alone: there are as many as the price book has, and tenants come by the thousand. What each tenant spent
QueryUsage tells, exactly; this counts what this process recorded since it began.
"""

from collections.abc import Iterable

from prometheus_client import Counter

from services.ledger.domain.values import UsageRecord

_COST = Counter(
    "pagemesh_ledger_cost_micros", "Cost of calls that this process recorded, in micro-units, by model.", ["model"]
)


def settled(asked: UsageRecord, kept: UsageRecord) -> None:
    """A hold was settled; a record that was there before has another time, and was counted then."""
    if kept.record_time == asked.record_time:
        _COST.labels(kept.event.model).inc(kept.cost_micros)


def recorded(models: Iterable[str], costs_micros: Iterable[int]) -> None:
    """A batch was recorded, of which nothing was known before."""
    sums: dict[str, int] = {}
    for model, cost in zip(models, costs_micros, strict=True):
        sums[model] = sums.get(model, 0) + cost
    for model, cost in sums.items():
        _COST.labels(model).inc(cost)
