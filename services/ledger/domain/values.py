"""What the ledger speaks of: calls, what they cost, and the money that is set aside for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

CURRENCY = "USD"
"""One ledger keeps one currency, so that its amounts can be added. Every `…_micros` is in millionths of its unit."""


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is done; `tenant` is the bare id, `actor` a resource name such as `apiKeys/…`, and
    `project` one such as `projects/…`, or empty."""

    tenant: str
    actor: str
    scopes: frozenset[str] = frozenset()
    project: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one provider call, sent and received."""

    sent: int
    received: int


class HoldState(Enum):
    """Where a hold is in its life. HELD is left once; UNKNOWN may still be settled or released."""

    HELD = "HELD"
    SETTLED = "SETTLED"
    RELEASED = "RELEASED"
    UNKNOWN = "UNKNOWN"

    @property
    def counts(self) -> bool:
        """Whether its amount is set aside."""
        return self in (HoldState.HELD, HoldState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one provider call. Everything but `state` is fixed when it is made."""

    tenant: str
    hold_id: UUID
    state: HoldState
    model: str
    most: Tokens
    amount_micros: int
    price_book_version: int
    actor: str
    create_time: datetime
    expire_time: datetime
    project: str = ""
    job: str = ""

    @property
    def ttl(self) -> timedelta:
        """How long it stands before it becomes UNKNOWN."""
        return self.expire_time - self.create_time


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What a caller reports of one provider call. `occur_time` is UTC, in whole microseconds."""

    event_id: UUID
    model: str
    tokens: Tokens
    operation: str
    document: str
    request_id: str
    occur_time: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    job: str = ""


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One provider call in the books."""

    tenant: str
    event: UsageEvent
    cost_micros: int
    price_book_version: int
    hold_id: UUID | None
    actor: str
    record_time: datetime
    project: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records of a tenant are meant; `start` is included, `end` is not, empty strings mean all.

    `tag` is a key and the value that records must have there; without a key it means all.
    """

    tenant: str
    start: datetime | None = None
    end: datetime | None = None
    request_id: str = ""
    document: str = ""
    model: str = ""
    project: str = ""
    actor: str = ""
    user: str = ""
    operation: str = ""
    job: str = ""
    tag: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last record of a part: the next part begins after it."""

    occur_time: datetime
    event_id: UUID


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch of events."""

    recorded: int
    already_known: int
