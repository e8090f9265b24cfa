"""Plans: how much a tenant may use."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What is counted by the hour."""

    CALLS = "calls"
    UPLOADS = "uploads"


@dataclass(frozen=True, slots=True)
class Plan:
    """None is no limit. Hours are those of the clock, in UTC."""

    plan_id: str
    uploads_per_hour: int | None = None
    calls_per_hour: int | None = None
    max_upload_bytes: int | None = None
    max_concurrent_jobs: int | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"plans/{self.plan_id}"

    def per_hour(self, kind: Kind) -> int | None:
        """The quota of that kind."""
        return self.calls_per_hour if kind is Kind.CALLS else self.uploads_per_hour


FREE = "free"
"""Of a tenant that the operator lets in without naming a plan."""
UNLIMITED = Plan("unlimited")
"""Of a tenant that is made by the command `bootstrap`, and of those that were there before there were plans."""
