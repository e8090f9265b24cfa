"""What the stores refuse, said in one place for all of them."""

from services.ledger.domain.values import Hold
from services.runtime.errors import AlreadyExists, FailedPrecondition, QuotaViolation, ResourceExhausted


def tenant_unknown() -> FailedPrecondition:
    """The tenant does not exist, or is switched off."""
    return FailedPrecondition("TENANT_UNKNOWN", "The tenant does not exist or is not active.")


def budget_exceeded(hold: Hold, *, hard_micros: int, settled_micros: int, held_micros: int) -> ResourceExhausted:
    """The hard budget has no room for the hold."""
    numbers = f"{settled_micros} settled + {held_micros} held + {hold.amount_micros} asked for > {hard_micros} micros"
    return ResourceExhausted(
        "BUDGET_EXCEEDED",
        "The tenant's hard budget has no room for this call. Raise the budget, or wait until open calls are settled.",
        quota=QuotaViolation(subject=f"tenants/{hold.tenant}", description=f"hard budget: {numbers}"),
    )


def hold_released() -> FailedPrecondition:
    """The hold was released: its call was said never to be sent."""
    return FailedPrecondition(
        "HOLD_RELEASED", "The hold was released. Record a call that was made after all with RecordUsage."
    )


def event_id_reused() -> AlreadyExists:
    """The event's id is in the books with another event."""
    return AlreadyExists("EVENT_ID_REUSED", "This event id was used for another event. Make a new id for each call.")
