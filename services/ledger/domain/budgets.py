"""Budgets: whose spending is limited, in which period, and how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from services.ledger.domain.values import Hold, UsageRecord

THRESHOLDS = (50, 80, 100)
"""Percent of a limit at which its tenant is warned, once for each period."""
OPERATOR_BUDGET = "operator"
"""Id of the budget that the operator sets for a tenant, who may read it and no more."""
MOST_MICROS = 10**15
"""The largest amount of money that the contract can say."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Period(Enum):
    """How long the totals of a budget run. Days and months are those of the calendar in UTC."""

    DAY = "DAY"
    MONTH = "MONTH"
    TOTAL = "TOTAL"

    def start(self, time: datetime) -> datetime:
        """When the period began that `time` (in UTC) is in; 1970-01-01 for what has no end."""
        match self:
            case Period.DAY:
                return time.replace(hour=0, minute=0, second=0, microsecond=0)
            case Period.MONTH:
                return time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            case Period.TOTAL:
                return _BEGINNING

    def end(self, start: datetime) -> datetime | None:
        """When the period that begins at `start` is over: the first moment that is not in it. None for never."""
        match self:
            case Period.DAY:
                return start + timedelta(days=1)
            case Period.MONTH:
                return (start + timedelta(days=32)).replace(day=1)
            case Period.TOTAL:
                return None


class Limit(Enum):
    """What happens at a limit: a hard one refuses the call, a soft one only warns."""

    HARD = "HARD"
    SOFT = "SOFT"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on behalf of `subject` (`tenants/…`, `projects/…`, `apiKeys/…` or `jobs/…`) in each period.

    At least one limit is set. The `made_` limits are those of its creation, by which a replay is told.
    """

    tenant: str
    budget_id: str
    subject: str
    period: Period
    hard_micros: int | None
    soft_micros: int | None
    create_time: datetime
    update_time: datetime
    operator: bool = False
    delete_time: datetime | None = None
    made_hard_micros: int | None = None
    made_soft_micros: int | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"budgets/{self.budget_id}"

    def limits(self) -> list[tuple[Limit, int]]:
        """The limits that are set."""
        both = ((Limit.HARD, self.hard_micros), (Limit.SOFT, self.soft_micros))
        return [(kind, micros) for kind, micros in both if micros is not None]


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold that was reached: once for each period and limit."""

    kind: Limit
    percent: int
    limit_micros: int
    time: datetime


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget with what counts against it in the period that `start` begins, and the thresholds of its limits as they
    are now that were reached in it."""

    budget: Budget
    start: datetime
    settled_micros: int
    held_micros: int
    crossings: tuple[Crossing, ...] = ()

    @property
    def end(self) -> datetime | None:
        """When the period is over; None for never."""
        return self.budget.period.end(self.start)


def subjects(tenant: str, *, project: str, actor: str, job: str) -> tuple[str, ...]:
    """Whose budgets a call counts against, the narrowest first: job, key, project, tenant.

    In this order they are asked for room, and in this order their totals are locked: calls cannot wait for each other.
    """
    key = actor if actor.startswith("apiKeys/") else ""
    return tuple(subject for subject in (job, key, project, f"tenants/{tenant}") if subject)


def subjects_of_hold(hold: Hold) -> tuple[str, ...]:
    """Whose budgets a hold counts against."""
    return subjects(hold.tenant, project=hold.project, actor=hold.actor, job=hold.job)


def subjects_of_record(record: UsageRecord) -> tuple[str, ...]:
    """Whose budgets a record without a hold counts against."""
    return subjects(record.tenant, project=record.project, actor=record.actor, job=record.event.job)


def reached(limit_micros: int, used_micros: int) -> int:
    """The highest of THRESHOLDS that `used_micros` (settled and held) has reached; 0 for none.

    A limit of 0 is reached by anything, and by nothing not.
    """
    if used_micros <= 0:
        return 0
    return max((percent for percent in THRESHOLDS if used_micros * 100 >= limit_micros * percent), default=0)


def crossed(before: int, now: int) -> Sequence[int]:
    """The thresholds between two answers of `reached`."""
    return [percent for percent in THRESHOLDS if before < percent <= now]
