"""What the audit trail needs from outside. Every method may also raise Unavailable or DeadlineExceeded."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from services.ledger.domain.audit import Appended, AuditCursor, AuditEvent, AuditRecord, AuditSelection, ChainHead


class AuditStore(Protocol):
    """The chains: appended, never changed. Each method is one transaction."""

    async def append(self, tenant: str, events: Sequence[AuditEvent], now: datetime) -> Appended:
        """Chains the tenant's events whose ids are new, in their order and without a gap; all or none.

        However many call it at once, from however many replicas: each tenant has one chain.
        """
        ...

    async def head(self, tenant: str) -> ChainHead:
        """The newest record's place; that before the first record where there is none."""
        ...

    async def beginning(self, tenant: str) -> ChainHead:
        """The place that the first record which is kept follows: 0, or where a dropped partition ended."""
        ...

    async def list(self, selection: AuditSelection, after: AuditCursor | None, limit: int) -> Sequence[AuditRecord]:
        """Up to `limit` records after the cursor, newest first by the time at which they occurred."""
        ...

    async def read(self, tenant: str, after: int, until: int, limit: int) -> Sequence[AuditRecord]:
        """Up to `limit` records in the chain's order, those behind place `after` up to place `until`."""
        ...


class AuditPartitions(Protocol):
    """The months that the chains are stored in."""

    async def prepare(self, at: datetime) -> None:
        """Makes the month of `at` and the two that follow, where they are not there."""
        ...

    async def expired(self, before: datetime) -> Sequence[datetime]:
        """The beginnings of months that ended at `before` or earlier, the oldest first."""
        ...

    async def last_records(self, month: datetime, after_tenant: str, limit: int) -> Sequence[tuple[str, ChainHead]]:
        """The last record of each chain in the month, by tenant, for up to `limit` tenants behind `after_tenant`."""
        ...

    async def keep_beginning(self, tenant: str, beginning: ChainHead) -> None:
        """Writes down what the chain's first kept record will follow, once."""
        ...

    async def drop(self, month: datetime) -> None:
        """Drops the month's records, also where an earlier attempt broke off in between."""
        ...
