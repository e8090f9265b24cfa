"""Whole batches: listed, cancelled, queued once more."""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.runtime.errors import NotFound
from services.summarizer.domain.job_desk import JobLimits, invalid
from services.summarizer.domain.job_ids import first_at
from services.summarizer.domain.job_scopes import check_scope
from services.summarizer.domain.jobs import Batch, JobState, Work
from services.summarizer.domain.values import Caller

AT_ONCE = 500
"""Jobs that one transaction moves: workers at the same batch wait for it."""
DEFAULT_PAGE = 20
_TOKEN_BYTES = 24
_DIGEST_BYTES = 8
_FIRST, _LAST = "", "g"
"""Before and after every id."""


@dataclass(frozen=True, slots=True)
class BatchSelection:
    """Which batches to list; `start` is included, `end` is not."""

    open_only: bool = False
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What one transaction did: `count` jobs were moved; `after` is the last that was looked at, empty at the end."""

    count: int
    after: str


class BatchStore(Protocol):
    """Batches of tenants. Each method is one transaction and may raise Unavailable."""

    async def batch(self, tenant: str, batch_id: str) -> Batch | None:
        """The batch with its counts."""
        ...

    async def work(self, tenant: str, batch_id: str) -> Work | None:
        """What its jobs do, which is the same for all; None where none is left."""
        ...

    async def list(self, tenant: str, *, open_only: bool, first: str, before: str, limit: int) -> Sequence[Batch]:
        """Up to `limit` batches with their counts, newest first, whose ids are at least `first` and below `before`."""
        ...

    async def cancel_some(self, tenant: str, batch_id: str, *, after: str, limit: int, keep_s: float) -> Moved:
        """Ends the first `limit` open jobs behind that id as CANCELLED, and fences their workers off."""
        ...

    async def retry_some(
        self, caller: Caller, batch_id: str, states: Sequence[JobState], *, after: str, limit: int, most_waiting: int
    ) -> Moved:
        """Queues the first `limit` jobs in these states behind that id; from now on the caller pays for them. Raises
        ResourceExhausted JOB_QUEUE_FULL, and nothing is done, where more than `most_waiting` would wait."""
        ...


class BatchDesk:
    """Batches of one deployment. Every method speaks of the caller's tenant alone."""

    def __init__(self, *, store: BatchStore, limits: JobLimits) -> None:
        self._store = store
        self._limits = limits

    async def list(
        self, tenant: str, selection: BatchSelection, *, page_size: int, page_token: str
    ) -> tuple[Sequence[Batch], str]:
        """One page, newest first, and the token for the next. Raises InvalidArgument INVALID_PAGE_TOKEN."""
        size = page_size or DEFAULT_PAGE
        before = _LAST if selection.end is None else first_at(selection.end)
        if page_token:
            before = min(before, _decode(page_token, selection))
        first = _FIRST if selection.start is None else first_at(selection.start)
        found = await self._store.list(
            tenant, open_only=selection.open_only, first=first, before=before, limit=size + 1
        )
        if len(found) <= size:
            return found, ""
        return found[:size], _encode(found[size - 1].batch_id, selection)

    async def cancel(self, tenant: str, batch_id: str) -> tuple[Batch, int]:
        """Cancels what has not ended; answers the batch and how many were. What is done stays done if the call breaks
        off. Raises NotFound BATCH_NOT_FOUND."""
        await self._batch(tenant, batch_id)

        async def some(after: str) -> Moved:
            return await self._store.cancel_some(
                tenant, batch_id, after=after, limit=AT_ONCE, keep_s=self._limits.keep_s
            )

        count = await _all_of(some)
        return await self._batch(tenant, batch_id), count

    async def retry(self, caller: Caller, batch_id: str, *, cancelled: bool) -> tuple[Batch, int]:
        """Queues what FAILED, and what was CANCELLED if that is wanted; answers the batch and how many were. Raises
        NotFound, PermissionDenied SCOPE_MISSING, ResourceExhausted."""
        tenant = caller.tenant
        await self._batch(tenant, batch_id)
        work = await self._store.work(tenant, batch_id)
        if work is not None:
            check_scope(caller, work)
        states = [JobState.FAILED, JobState.CANCELLED] if cancelled else [JobState.FAILED]

        async def some(after: str) -> Moved:
            return await self._store.retry_some(
                caller, batch_id, states, after=after, limit=AT_ONCE, most_waiting=self._limits.most_waiting
            )

        count = await _all_of(some)
        return await self._batch(tenant, batch_id), count

    async def _batch(self, tenant: str, batch_id: str) -> Batch:
        found = await self._store.batch(tenant, batch_id)
        if found is None:
            raise NotFound("BATCH_NOT_FOUND", "There is no such batch.")
        return found


async def _all_of(some: Callable[[str], Awaitable[Moved]]) -> int:
    """Ends: each step begins behind the one before, and a batch has no more jobs than it was made with."""
    count, after = 0, _FIRST
    while True:
        moved = await some(after)
        count, after = count + moved.count, moved.after
        if not after:
            return count


def _encode(batch_id: str, selection: BatchSelection) -> str:
    return base64.urlsafe_b64encode(_digest(selection) + bytes.fromhex(batch_id)).decode()


def _decode(token: str, selection: BatchSelection) -> str:
    try:
        packed = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        packed = b""
    if len(packed) != _TOKEN_BYTES or packed[:_DIGEST_BYTES] != _digest(selection):
        raise invalid(
            "page_token", "must be the next_page_token of an answer to the same conditions", reason="INVALID_PAGE_TOKEN"
        )
    return packed[_DIGEST_BYTES:].hex()


def _digest(selection: BatchSelection) -> bytes:
    return hashlib.sha256(repr(selection).encode()).digest()[:_DIGEST_BYTES]
