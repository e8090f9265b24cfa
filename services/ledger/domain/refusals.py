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


def key_not_found() -> NotFound:
    """The tenant has no such key."""
    return NotFound("KEY_NOT_FOUND", "There is no such API key.")


def project_not_found() -> NotFound:
    """The tenant has no such project."""
    return NotFound("PROJECT_NOT_FOUND", "There is no such project.")


def user_not_found() -> NotFound:
    """The tenant has no such user."""
    return NotFound("USER_NOT_FOUND", "There is no such user.")


def tenant_not_found() -> NotFound:
    """There is no such tenant, or it is not the caller's."""
    return NotFound("TENANT_NOT_FOUND", "There is no such tenant.")


def plan_not_found() -> NotFound:
    """There is no such plan."""
    return NotFound("PLAN_NOT_FOUND", "There is no such plan. ListPlans has all of them.")


def tenant_exists() -> AlreadyExists:
    """The id is taken."""
    return AlreadyExists("TENANT_EXISTS", "There is a tenant of this id. Choose another.")


def domain_taken() -> AlreadyExists:
    """Another tenant has the domain."""
    return AlreadyExists("DOMAIN_TAKEN", "Another tenant has this domain.")


def project_exists() -> AlreadyExists:
    """The id is taken."""
    return AlreadyExists("PROJECT_EXISTS", "There is a project of this id. Choose another.")


def user_exists() -> AlreadyExists:
    """The email is taken."""
    return AlreadyExists("USER_EXISTS", "There is a user with this email. Change that user instead.")


def last_admin() -> FailedPrecondition:
    """Nobody would be left to administer the tenant."""
    return FailedPrecondition(
        "LAST_ADMIN", "This is the tenant's last active admin. Make another user an admin before."
    )


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
