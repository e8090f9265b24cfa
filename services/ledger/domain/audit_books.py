"""The audit trail: what may be appended, and what is told of it."""

import base64
import binascii
import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from services.ledger.domain.audit import (
    MAX_AHEAD,
    Appended,
    AuditCursor,
    AuditEvent,
    AuditRecord,
    AuditSelection,
    ChainHead,
)
from services.ledger.domain.audit_chain import micros
from services.ledger.domain.audit_ports import AuditStore
from services.ledger.domain.checks import check_text, check_time, invalid_field
from services.ledger.domain.ports import Clock
from services.runtime.errors import FailedPrecondition, InvalidArgument

DEFAULT_PAGE = 50
EXPORT_RECORDS = 500
"""Records that an export holds at a time."""

_TOKEN = struct.Struct(">8sqq")
"""Digest of the selection, microseconds since 1970, place in the chain."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AuditBooks:
    """Appends to and reads the chains of tenants."""

    def __init__(self, *, store: AuditStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def record(self, events: Sequence[AuditEvent]) -> Appended:
        """Chains events of any tenants, each tenant's in their order. Those of one tenant are all kept or none.

        FailedPrecondition EVENT_TIME_AHEAD where one is of a time to come: whether it is known already is looked up by
        its time.
        """
        now = self._clock()
        for index, event in enumerate(events):
            _check(event, now, f"events[{index}]")
        recorded = known = 0
        for tenant in dict.fromkeys(event.tenant for event in events):
            appended = await self._store.append(tenant, [e for e in events if e.tenant == tenant], now)
            recorded += appended.recorded
            known += appended.already_known
        return Appended(recorded, known)

    async def list(
        self, selection: AuditSelection, page_size: int, page_token: str
    ) -> tuple[Sequence[AuditRecord], str]:
        """One part of the list and the token for the next, empty at the end. InvalidArgument INVALID_PAGE_TOKEN."""
        for name in ("actor", "action", "resource"):
            check_text(getattr(selection, name), name)
        for name, time in (("start_time", selection.start), ("end_time", selection.end)):
            if time is not None:
                check_time(time, name)
        size = page_size or DEFAULT_PAGE
        after = _cursor(page_token, selection) if page_token else None
        records = await self._store.list(selection, after, size + 1)
        page = records[:size]
        return page, _token(page[-1], selection) if len(records) > size else ""

    async def head(self, tenant: str) -> ChainHead:
        """The newest record's place."""
        return await self._store.head(tenant)

    async def beginning(self, tenant: str, first_sequence: int) -> ChainHead:
        """The place that an export's first record follows: that which is asked for, or the first that is kept.

        Where the record before the one that is asked for is not there any more, the first that is kept.
        """
        if first_sequence > 1:
            before = await self._store.read(tenant, first_sequence - 2, first_sequence - 1, 1)
            if before:
                return before[0].head
        return await self._store.beginning(tenant)

    async def export(self, tenant: str, beginning: ChainHead, head: ChainHead) -> AsyncIterator[Sequence[AuditRecord]]:
        """The chain from the record behind `beginning` to `head`, a part at a time, in memory that does not grow."""
        after = beginning.sequence
        while after < head.sequence:
            records = await self._store.read(tenant, after, head.sequence, EXPORT_RECORDS)
            if not records:
                return
            yield records
            after = records[-1].sequence


def _check(event: AuditEvent, now: datetime, path: str) -> None:
    check_time(event.occur_time, f"{path}.occur_time")
    texts = {"request_id": event.request_id, "actor": event.actor, "resource": event.resource, "reason": event.reason}
    for name, text in {**texts, "action": event.action}.items():
        check_text(text, f"{path}.{name}")
    for key, value in event.details.items():
        check_text(key + value, f"{path}.details")
    if event.occur_time > now + MAX_AHEAD:
        raise FailedPrecondition(
            "EVENT_TIME_AHEAD",
            "The event is of a time more than a day ahead. Set the clocks of both services right, and send it again.",
        )


def _token(record: AuditRecord, selection: AuditSelection) -> str:
    packed = _TOKEN.pack(_digest(selection), micros(record.event.occur_time), record.sequence)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def _cursor(token: str, selection: AuditSelection) -> AuditCursor:
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        digest, time, sequence = _TOKEN.unpack(packed)
        occur_time = _EPOCH + timedelta(microseconds=time)
    except (binascii.Error, ValueError, struct.error, OverflowError) as exc:
        raise _invalid_token() from exc
    if digest != _digest(selection):
        raise _invalid_token()
    return AuditCursor(occur_time, sequence)


def _digest(selection: AuditSelection) -> bytes:
    return hashlib.sha256(repr(selection).encode()).digest()[:8]


def _invalid_token() -> InvalidArgument:
    return invalid_field(
        "page_token", "must be the next_page_token of an answer to the same selection", reason="INVALID_PAGE_TOKEN"
    )
