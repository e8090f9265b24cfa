"""What the use cases of budgets need from outside. Every method may also raise Unavailable or DeadlineExceeded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.ledger.domain.budgets import Budget, BudgetStatus, Limit


@dataclass(frozen=True, slots=True)
class NewLimits:
    """The limits to change, each with its new amount or None for no such limit any more."""

    micros: dict[Limit, int | None]


class BudgetStore(Protocol):
    """Budgets with their totals. Each method is one transaction."""

    async def create(self, budget: Budget) -> BudgetStatus:
        """Keeps the budget, which counts what was spent and held before in its period; or answers the one that has its
        id already, deleted ones too.

        FailedPrecondition TENANT_UNKNOWN where the tenant does not exist, ResourceExhausted TOO_MANY_BUDGETS where it
        has MOST_BUDGETS.
        """
        ...

    async def find(self, tenant: str, budget_id: str, now: datetime) -> BudgetStatus | None:
        """The tenant's budget of that id as it is in the period of `now`, deleted ones too."""
        ...

    async def list(self, tenant: str, *, subject: str, after: str, limit: int, now: datetime) -> Sequence[BudgetStatus]:
        """Up to `limit` budgets that are not deleted, by id, those after the id `after`; of one subject, or of all
        where it is empty."""
        ...

    async def change(self, tenant: str, budget_id: str, limits: NewLimits, now: datetime) -> BudgetStatus | None:
        """Changes limits of a budget that is not deleted; None where there is none.

        FailedPrecondition BUDGET_WITHOUT_LIMIT where no limit would be left.
        """
        ...

    async def delete(self, tenant: str, budget_id: str, now: datetime) -> BudgetStatus | None:
        """Ends the budget, or leaves its earlier end as it is; None where there is none."""
        ...


MOST_BUDGETS = 10_000
"""Most budgets of one tenant at a time."""
