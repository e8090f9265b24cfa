"""Whether the one who handed a job in may still have it done: a job may wait for weeks, and keys end."""

from typing import Protocol

from services.runtime.errors import PermissionDenied, Unavailable
from services.summarizer.domain.values import Caller

SUSPENDED_RETRY_S = 600.0


class Standing(Protocol):
    """What the ledger knows of callers. Asked inside ActAs."""

    async def check(self, caller: Caller, scope: str) -> None:
        """Raises what `ended` and `suspended` make, and Unavailable and DeadlineExceeded where nobody answers."""
        ...


def ended(what: str) -> PermissionDenied:
    """For good: the job fails."""
    return PermissionDenied(
        "JOB_OWNER_INACTIVE",
        f"{what}, so its jobs are not done any more. Retry the job with a key that may: that key then pays for it.",
    )


def suspended() -> Unavailable:
    """For a while: the job is tried again."""
    return Unavailable("TENANT_SUSPENDED", "The tenant is suspended. Its jobs wait.", retry_after_s=SUSPENDED_RETRY_S)
