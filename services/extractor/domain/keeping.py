"""What keeping and erasing documents needs of the outside world."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.extractor.domain.documents import Cursor, Document
from services.extractor.domain.receipts import Cause, DeletionReceipt


@dataclass(frozen=True, slots=True)
class Lease:
    """Somebody who works on a document. `id` is a UUID."""

    tenant: str
    document_id: str
    id: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """A document that is hidden and whose bytes are to go."""

    tenant: str
    document_id: str


@dataclass(frozen=True, slots=True)
class Erasing:
    """What is being erased. Without a cause it is what an upload left that never became a document. `results_deleted`
    is what the summarizer had erased so far."""

    document: Document
    cause: Cause | None
    actor: str
    results_deleted: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Documents whose time has come or whose deletion was begun, and since when the first of them waits."""

    waiting: int
    oldest_age_s: float


class Leases(Protocol):
    """Who works on which document. No document expires while anybody does; a deletion that is asked for does not wait.
    Every method raises Unavailable where the database is down."""

    async def hold(self, lease: Lease, *, until: dt.datetime) -> bool:
        """Takes the lease, or renews it. False where there is no such document."""

    async def release(self, lease: Lease, *, processed_at: dt.datetime | None) -> None:
        """Gives it back. With `processed_at` something was made of the document: an ephemeral one is hidden at once
        where nobody else holds it, and expires otherwise."""


class Lifecycle(Protocol):
    """The documents of all tenants whose time has come. Every method raises Unavailable where the database is down."""

    async def expire(self, *, now: dt.datetime, limit: int) -> int:
        """Hides at most `limit` documents that have expired and are held by nobody; answers how many."""

    async def take_erasures(self, *, now: dt.datetime, until: dt.datetime, limit: int) -> Sequence[Erasure]:
        """Erasures that are due and nobody is at, the oldest first. Nobody else is given them before `until`."""

    async def backlog(self, *, now: dt.datetime) -> Backlog:
        """What is waiting."""

    async def forget(self, *, now: dt.datetime, limit: int) -> int:
        """Removes at most `limit` receipts that are seven years old, and leases that have ended; answers how many."""


class Receipts(Protocol):
    """Receipts of a tenant. Raises Unavailable where the database is down."""

    async def receipts(self, tenant: str, *, limit: int, after: Cursor | None) -> Sequence[DeletionReceipt]:
        """At most `limit` receipts, newest first, behind `after`."""


class Results(Protocol):
    """What other services made of documents."""

    async def purge(self, tenant: str, document: str) -> int:
        """Erases all that was made of `documents/{id}`; answers how much. Raises Unavailable where that is not
        certain."""
