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


MOST_PROVIDERS = 10
"""Identity providers of one tenant."""


def too_many_providers() -> ResourceExhausted:
    """The tenant has as many identity providers as it may have."""
    return ResourceExhausted(
        "TOO_MANY_ISSUERS", f"A tenant has at most {MOST_PROVIDERS} identity providers. Delete one first."
    )


def provider_exists() -> AlreadyExists:
    """A token could not be told apart: its issuer and audience are some provider's already."""
    return AlreadyExists(
        "ISSUER_IN_USE", "This issuer and audience are in use. Register a client of its own at the issuer."
    )


MOST_CERTIFICATES = 10
"""Client certificates of one key."""


def too_many_certificates() -> ResourceExhausted:
    """The key has as many certificates as it may have."""
    return ResourceExhausted(
        "TOO_MANY_CERTIFICATES", f"A key has at most {MOST_CERTIFICATES} client certificates. Drop one first."
    )


def certificate_in_use() -> AlreadyExists:
    """The certificate stands for another key."""
    return AlreadyExists("CERTIFICATE_IN_USE", "This client certificate stands for another key. Drop it there first.")
