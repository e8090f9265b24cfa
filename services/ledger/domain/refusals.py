"""What the stores refuse, said in one place for all of them."""

from services.ledger.domain.budgets import Budget
from services.ledger.domain.values import Hold
from services.runtime.errors import AlreadyExists, FailedPrecondition, NotFound, QuotaViolation, ResourceExhausted


def tenant_unknown() -> FailedPrecondition:
    """The tenant does not exist, or is switched off."""
    return FailedPrecondition("TENANT_UNKNOWN", "The tenant does not exist or is not active.")


def budget_exceeded(hold: Hold, budget: Budget, *, settled_micros: int, held_micros: int) -> ResourceExhausted:
    """A hard limit has no room for the hold."""
    hard = budget.hard_micros
    numbers = f"{settled_micros} settled + {held_micros} held + {hold.amount_micros} asked for > {hard} micros"
    whose = f"{budget.subject}, {budget.period.value.lower()}"
    return ResourceExhausted(
        "BUDGET_EXCEEDED",
        f"The hard limit of {budget.name} ({whose}) has no room for this call. Raise the budget, or wait until open"
        " calls are settled or the next period begins.",
        quota=QuotaViolation(subject=budget.name, description=f"hard limit of {whose}: {numbers}"),
        metadata={"budget": budget.name},
    )


def budget_not_found() -> NotFound:
    """No such budget of this tenant."""
    return NotFound("BUDGET_NOT_FOUND", "There is no such budget.")


def budget_without_limit() -> FailedPrecondition:
    """A change would leave a budget that limits nothing."""
    return FailedPrecondition(
        "BUDGET_WITHOUT_LIMIT", "A budget needs a hard_limit or a soft_limit. Delete it, or set the other one first."
    )


def too_many_budgets(most: int) -> ResourceExhausted:
    """The tenant has as many budgets as it may."""
    return ResourceExhausted("TOO_MANY_BUDGETS", f"A tenant has at most {most} budgets. Delete one that is not needed.")


def hold_not_found() -> NotFound:
    """No such hold of this tenant."""
    return NotFound("HOLD_NOT_FOUND", "There is no such hold.")


def hold_released() -> FailedPrecondition:
    """The hold was released: its call was said never to be sent."""
    return FailedPrecondition(
        "HOLD_RELEASED", "The hold was released. Record a call that was made after all with RecordUsage."
    )


def event_id_reused() -> AlreadyExists:
    """The event's id is in the books with another event."""
    return AlreadyExists("EVENT_ID_REUSED", "This event id was used for another event. Make a new id for each call.")
