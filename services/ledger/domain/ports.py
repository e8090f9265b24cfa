"""What the use cases need from outside. Every method may also raise Unavailable or DeadlineExceeded."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from services.ledger.domain.keys import ApiKey, KeyPlace, StoredKey
from services.ledger.domain.pricing import PriceBook
from services.ledger.domain.usage_values import UNGROUPED, ExportPart, Grouping, UsageGroup, UsageReport
from services.ledger.domain.values import Cursor, Hold, Recorded, Selection, UsageRecord


class Clock(Protocol):
    """Tells the time of day."""

    def __call__(self) -> datetime:
        """Now, in UTC."""
        ...


class HoldStore(Protocol):
    """Holds and the running totals of budgets. Each method is one transaction, or part of one with other calls.

    A hold counts against every budget of its job, key, project and tenant, in the periods in which it was made; so does
    what its call cost. A threshold that is reached is told of once, in the same transaction.
    """

    async def reserve(self, hold: Hold) -> Hold:
        """Keeps `hold` and answers it, or answers the one that has its id already, in whatever state.

        ResourceExhausted BUDGET_EXCEEDED where settled + held + amount would pass the hard limit of a budget, of the
        narrowest one that is full; ResourceExhausted LEDGER_BUSY where too many calls wait;
        FailedPrecondition TENANT_UNKNOWN where the tenant does not exist or is not active.
        """
        ...

    async def find(self, tenant: str, hold_id: UUID) -> Hold | None:
        """The hold, if the tenant has one of that id."""
        ...

    async def made(self, tenant: str, hold_id: UUID) -> Hold | None:
        """The hold as it was made: all of it but its state, which may have changed since. Cheaper than `find`."""
        ...

    async def settle(self, hold: Hold, record: UsageRecord) -> UsageRecord:
        """Closes the hold, keeps the record and moves the totals: all or nothing.

        Answers the record that settled the hold: `record`, or the one that did so before, which may differ.
        FailedPrecondition HOLD_RELEASED where the hold was released, AlreadyExists EVENT_ID_REUSED where another
        record has the event's id.
        """
        ...

    async def release(self, tenant: str, hold_id: UUID) -> Hold | None:
        """Frees the hold if it is HELD or UNKNOWN, and answers it as it is then; None where there is none."""
        ...

    async def expire(self, now: datetime, limit: int) -> int:
        """Turns up to `limit` holds that are HELD past their time into UNKNOWN; answers how many.

        Several replicas may do so at once: each hold is turned by one of them.
        """
        ...

    async def unknown(self, tenant: str | None, limit: int) -> Sequence[Hold]:
        """Up to `limit` holds in state UNKNOWN, of the tenant or of all, those that were made first at the front."""
        ...

    async def held_micros(self) -> int:
        """What open holds of all tenants set aside."""
        ...


class UsageStore(Protocol):
    """The usage records: appended, never changed."""

    async def record(self, records: Collection[UsageRecord]) -> Recorded:
        """Keeps the records of one tenant whose event ids are new, each id once; all or none. They differ in nothing
        but their events and costs, and have no holds.

        AlreadyExists EVENT_ID_REUSED where an id is known with another event; FailedPrecondition TENANT_UNKNOWN
        where the tenant does not exist.
        """
        ...


class UsageReports(Protocol):
    """What is told of the usage records; each method but `export` is of one moment."""

    async def report(
        self, selection: Selection, after: Cursor | None, limit: int, grouping: Grouping = UNGROUPED
    ) -> UsageReport:
        """Up to `limit` records after the cursor, newest first, the sums, and the groups where some are asked for.

        The selection and the grouping need one facet (see `facets_of`), or name a request or a document.
        """
        ...

    async def groups(self, selection: Selection, grouping: Grouping) -> Sequence[UsageGroup]:
        """The groups alone, as in a report."""
        ...

    async def first_hour(self, tenant: str) -> datetime | None:
        """The beginning of the hour of the tenant's first call; None where there was none."""
        ...

    async def export(self, selection: Selection, after: Cursor | None, limit: int) -> ExportPart:
        """What is of the selection among the next `limit` records of its time, oldest first."""
        ...


class Rollups(Protocol):
    """Sums that are kept, so that reports need not read every record."""

    async def fold(self, limit: int) -> int:
        """Adds up to `limit` queued sums to the rollups; answers how many. 0 also where another replica is at it."""
        ...


class Partitions(Protocol):
    """Where the records of each month are."""

    async def ensure(self, times: Iterable[datetime]) -> int:
        """Makes the partitions that these times lack; answers how many."""
        ...

    async def drop_one(self, before: datetime) -> bool | None:
        """A bounded step towards removing the oldest partition that ends at or before that time: True where it is gone,
        False where there is more to do, None where there is none, or another replica is at it."""
        ...


class PriceBooks(Protocol):
    """The versions of the price book. A tenant with prices of its own has versions of its own."""

    async def current(self, tenant: str) -> PriceBook:
        """The version that new calls of the tenant are priced from."""
        ...

    async def version(self, tenant: str, version: int) -> PriceBook:
        """That version. LookupError where it does not exist, or is another tenant's."""
        ...


class KeyStore(Protocol):
    """API keys."""

    async def add(self, key: ApiKey, key_hash: bytes) -> None:
        """Keeps a new key. FailedPrecondition TENANT_UNKNOWN where its tenant does not exist, NotFound
        PROJECT_NOT_FOUND or USER_NOT_FOUND where the tenant has no such project or user."""
        ...

    async def find(self, key_id: str) -> StoredKey | None:
        """The key of that id, of whatever tenant: whose it is, its id alone says."""
        ...

    async def list(self, tenant: str, after: KeyPlace | None, limit: int) -> Sequence[ApiKey]:
        """Up to `limit` keys of the tenant behind that place, newest first."""
        ...

    async def rotate(self, key: ApiKey, key_hash: bytes) -> ApiKey | None:
        """Gives the key that hash, and keeps the one that it had as the one before, until `previous_expire_time`.

        Sets `rotate_time` and `previous_expire_time` to those of `key`. None where its tenant has no such key, or it
        was revoked.
        """
        ...

    async def revoke(self, tenant: str, key_id: str, now: datetime) -> ApiKey | None:
        """Ends the tenant's key, or leaves its earlier end as it is; None where the tenant has no such key."""
        ...


class TenantStore(Protocol):
    """Tenants and their hard budgets."""

    async def ensure(self, tenant: str, display_name: str, now: datetime) -> None:
        """Makes the tenant where it does not exist."""
        ...

    async def set_hard_budget(self, tenant: str, hard_micros: int) -> None:
        """Limits what the tenant may spend and hold from its first call on.

        Counts what was spent and is held so far; calls of the tenant that are under way are counted too.
        """
        ...
