"""Days that cost a tenant far more than its days do: the rule, in integers, and who looks for them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from services.ledger.domain.forecast import LEAST_DAYS, TRAILING_DAYS
from services.ledger.domain.ports import Clock
from services.ledger.domain.usage_spans import DAY, day_of

FACTOR = 3
"""So many times the usual cost of a day are not unusual yet."""
FLOOR_MICROS = 1_000_000
"""What a day may cost whatever is usual: one unit of the currency."""
LEAST_SAME_WEEKDAYS = 3
"""Fewer days of a weekday have no median that a single odd one could not be."""
LATE = timedelta(hours=1)
"""How long after its end a day is looked at: for its last minutes, and for what is recorded late."""
PART = 500
"""Tenants read at once."""
MOST_PARTS = 40
"""Most parts of a round and day."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What days cost a tenant, in micro-units by their beginning (UTC); days that are missing cost nothing.

    `first_day` is the day of the tenant's first call.
    """

    tenant: str
    first_day: datetime
    costs: Mapping[datetime, int]


@dataclass(frozen=True, slots=True)
class CostAnomaly:
    """A day that had cost more than `threshold_micros` when it was looked at. `usual_micros` 0: the days before cost
    nothing."""

    tenant: str
    day: datetime
    cost_micros: int
    usual_micros: int
    threshold_micros: int
    detect_time: datetime

    @property
    def factor_micros(self) -> int | None:
        """How many times the usual it is, in millionths, rounded down; None where nothing was usual."""
        return self.cost_micros * 1_000_000 // self.usual_micros if self.usual_micros else None


class AnomalyStore(Protocol):
    """Costs of days over all tenants, and what was told of them. Each method is one transaction, may raise Unavailable,
    and may be called by several replicas at once."""

    async def spending(self, day: datetime, *, above_micros: int, after: str, limit: int) -> Sequence[Spending]:
        """Up to `limit` tenants that the day cost more than that so far, by id, those after the id `after`, each with
        that day and the TRAILING_DAYS before it: exact, of one moment."""
        ...

    async def tell(self, anomaly: CostAnomaly) -> bool:
        """Keeps the anomaly and what the tenant's webhooks are to be sent of it; False where one of that tenant and day
        is kept, which then stays as it is."""
        ...


def usual_micros(spending: Spending, day: datetime) -> int | None:
    """What a day like that usually costs the tenant; None where it has fewer than LEAST_DAYS of history.

    The history is the TRAILING_DAYS before, without the day of the first call, which was no whole one. The larger of
    the median of all its days and the median of those of the same weekday, if these are LEAST_SAME_WEEKDAYS; days
    that cost nothing are left out. Of an even number, the higher one in the middle.
    """
    begin = max(day - TRAILING_DAYS * DAY, spending.first_day + DAY)
    if (day - begin) // DAY < LEAST_DAYS:
        return None
    before = {past: cost for past, cost in spending.costs.items() if begin <= past < day and cost > 0}
    alike = [cost for past, cost in before.items() if past.weekday() == day.weekday()]
    of_weekday = _median(alike) if len(alike) >= LEAST_SAME_WEEKDAYS else 0
    return max(_median(list(before.values())), of_weekday)


def anomaly_of(spending: Spending, day: datetime, now: datetime) -> CostAnomaly | None:
    """The anomaly that the day is, if it is one: it cost more than FACTOR times the usual, and more than FLOOR_MICROS.

    A day that goes on is compared with whole days, so it may be found late, and never too early.
    """
    usual, cost = usual_micros(spending, day), spending.costs.get(day, 0)
    if usual is None:
        return None
    threshold = max(FACTOR * usual, FLOOR_MICROS)
    return CostAnomaly(spending.tenant, day, cost, usual, threshold, now) if cost > threshold else None


class AnomalyWatch:
    """Looks at the day of every tenant."""

    def __init__(self, *, store: AnomalyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def look(self) -> AsyncIterator[CostAnomaly]:
        """One round; answers the anomalies that were told now, each once among all replicas. Raises Unavailable."""
        now = self._clock()
        for day in sorted({day_of(now - LATE), day_of(now)}):
            after = ""
            for _ in range(MOST_PARTS):
                part = await self._store.spending(day, above_micros=FLOOR_MICROS, after=after, limit=PART)
                for spending in part:
                    anomaly = anomaly_of(spending, day, now)
                    if anomaly is not None and await self._store.tell(anomaly):
                        yield anomaly
                if len(part) < PART:
                    break
                after = part[-1].tenant


def _median(costs: list[int]) -> int:
    return sorted(costs)[len(costs) // 2] if costs else 0
