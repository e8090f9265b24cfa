"""What a tenant may do about its budgets."""

import re
import secrets
from collections.abc import Callable, Sequence

from services.ledger.domain import paging, refusals
from services.ledger.domain.budget_ports import BudgetStore, NewLimits
from services.ledger.domain.budgets import MOST_MICROS, OPERATOR_BUDGET, Budget, BudgetStatus, Limit, Period
from services.ledger.domain.checks import invalid_field
from services.ledger.domain.ports import Clock
from services.ledger.domain.values import Caller
from services.runtime.errors import AlreadyExists, InvalidArgument, PermissionDenied

DEFAULT_PAGE = 50
_FIELDS = {Limit.HARD: "hard_limit", Limit.SOFT: "soft_limit"}
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Budgets:
    """The budgets of each tenant. `new_id` makes ids of 1 to 63 of [0-9a-z-]."""

    def __init__(
        self, *, store: BudgetStore, clock: Clock, new_id: Callable[[], str] = lambda: secrets.token_hex(8)
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id

    async def create(
        self, caller: Caller, budget_id: str, subject: str, period: Period, *, hard: int | None, soft: int | None
    ) -> BudgetStatus:
        """Makes a budget, which counts what was spent and held before in its current period.

        The same id and arguments again answer the same budget, whatever became of its limits since. An empty id is
        replaced by a new one, an empty subject by the tenant.

        Raises InvalidArgument, AlreadyExists BUDGET_ID_REUSED, FailedPrecondition TENANT_UNKNOWN, ResourceExhausted
        TOO_MANY_BUDGETS.
        """
        own = f"tenants/{caller.tenant}"
        if subject.startswith("tenants/") and subject != own:
            raise invalid_field("budget.subject", f"must be {own}, or a project, key or job of this tenant")
        if budget_id == OPERATOR_BUDGET or (budget_id and not _ID.fullmatch(budget_id)):
            raise invalid_field(
                "budget_id", f"must be 1 to 63 of [0-9a-z-], not begin with a hyphen, and not be {OPERATOR_BUDGET}"
            )
        _check_limits({Limit.HARD: hard, Limit.SOFT: soft})
        if hard is None and soft is None:
            raise invalid_field("budget", "must have a hard_limit, a soft_limit, or both")
        now = self._clock()
        asked = Budget(
            tenant=caller.tenant,
            budget_id=budget_id or self._new_id(),
            subject=subject or own,
            period=period,
            hard_micros=hard,
            soft_micros=soft,
            create_time=now,
            update_time=now,
            made_hard_micros=hard,
            made_soft_micros=soft,
        )
        kept = await self._store.create(asked)
        if _made_as(kept.budget) != _made_as(asked) or kept.budget.delete_time is not None:
            raise AlreadyExists(
                "BUDGET_ID_REUSED", "This budget id is or was another budget's. Make a new id for each budget."
            )
        return kept

    async def get(self, caller: Caller, budget_id: str) -> BudgetStatus:
        """The budget. Raises NotFound BUDGET_NOT_FOUND."""
        found = await self._store.find(caller.tenant, budget_id, self._clock())
        if found is None or found.budget.delete_time is not None:
            raise refusals.budget_not_found()
        return found

    async def list(
        self, caller: Caller, subject: str, page_size: int, page_token: str
    ) -> tuple[Sequence[BudgetStatus], str]:
        """One part of the budgets, by id, and the token for the next, which is empty at the end.

        Raises InvalidArgument INVALID_PAGE_TOKEN.
        """
        size = page_size or DEFAULT_PAGE
        listed = f"budgets of {caller.tenant} for {subject}"
        after = paging.decode_text(page_token, listed) if page_token else ""
        found = await self._store.list(caller.tenant, subject=subject, after=after, limit=size + 1, now=self._clock())
        if len(found) <= size:
            return found, ""
        return found[:size], paging.encode_text(found[size - 1].budget.budget_id, listed)

    async def change(self, caller: Caller, budget_id: str, limits: dict[Limit, int | None]) -> BudgetStatus:
        """Changes limits; None takes one away. The totals stay, and thresholds of a changed limit count anew.

        Raises InvalidArgument NOTHING_TO_UPDATE, NotFound BUDGET_NOT_FOUND, PermissionDenied BUDGET_OF_OPERATOR,
        FailedPrecondition BUDGET_WITHOUT_LIMIT.
        """
        if not limits:
            raise InvalidArgument("NOTHING_TO_UPDATE", "Set what is to change, or name it in update_mask.")
        _check_limits(limits)
        await self._check_own(caller, budget_id)
        changed = await self._store.change(caller.tenant, budget_id, NewLimits(limits), self._clock())
        if changed is None:
            raise refusals.budget_not_found()
        return changed

    async def delete(self, caller: Caller, budget_id: str) -> BudgetStatus:
        """Ends a budget at once; again, it answers the same. Its id is not given out again.

        Raises NotFound BUDGET_NOT_FOUND, PermissionDenied BUDGET_OF_OPERATOR.
        """
        await self._check_own(caller, budget_id)
        deleted = await self._store.delete(caller.tenant, budget_id, self._clock())
        if deleted is None:
            raise refusals.budget_not_found()
        return deleted

    async def _check_own(self, caller: Caller, budget_id: str) -> None:
        # Whose a budget is never changes: what is found here stays true.
        found = await self._store.find(caller.tenant, budget_id, self._clock())
        if found is None:
            raise refusals.budget_not_found()
        if found.budget.operator:
            raise PermissionDenied(
                "BUDGET_OF_OPERATOR", "The operator set this budget for the tenant; ask the operator to change it."
            )


def _check_limits(limits: dict[Limit, int | None]) -> None:
    for kind, micros in limits.items():
        if micros is not None and not 0 <= micros <= MOST_MICROS:
            raise invalid_field(f"budget.{_FIELDS[kind]}.micros", f"must be between 0 and {MOST_MICROS}")


def _made_as(budget: Budget) -> tuple[object, ...]:
    """What a budget was made as, whatever it is now."""
    return budget.subject, budget.period, budget.made_hard_micros, budget.made_soft_micros, budget.operator
