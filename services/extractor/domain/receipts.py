"""Receipts of deletions: what was erased, and a digest that anybody can compute again."""

import datetime as dt
import hashlib
from dataclasses import dataclass
from enum import StrEnum

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_HEADING = "pagemesh-deletion-receipt-v1"


class Cause(StrEnum):
    """Why a document was erased."""

    REQUESTED = "REQUESTED"
    EXPIRED = "EXPIRED"
    PROCESSED = "PROCESSED"


@dataclass(frozen=True, slots=True)
class Erased:
    """What else was removed with a document's row: stored pages, in each form, and pages in the search index."""

    pages: int
    index_entries: int


@dataclass(frozen=True, slots=True)
class DeletionReceipt:
    """What was erased and when that was complete, in UTC and whole microseconds. `id` is 32 hexadecimal digits.

    `actor` is who asked for it, empty where nobody did; it is kept, and not part of what is told.
    """

    id: str
    tenant: str
    document_id: str
    sha256: str
    size_bytes: int
    objects_deleted: int
    pages_deleted: int
    index_entries_deleted: int
    results_deleted: int
    cause: Cause
    delete_time: dt.datetime
    actor: str = ""

    @property
    def name(self) -> str:
        """Resource name, `deletionReceipts/{id}`."""
        return f"deletionReceipts/{self.id}"

    @property
    def document(self) -> str:
        """Resource name of what was erased."""
        return f"documents/{self.document_id}"

    @property
    def digest(self) -> str:
        """SHA-256 of `canonical()` in hexadecimal digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def canonical(self) -> bytes:
        """The bytes that the digest is over; docs/extraction.md promises them."""
        lines = (
            _HEADING,
            f"name={self.name}",
            f"document={self.document}",
            f"sha256={self.sha256}",
            f"size_bytes={self.size_bytes}",
            f"objects_deleted={self.objects_deleted}",
            f"pages_deleted={self.pages_deleted}",
            f"index_entries_deleted={self.index_entries_deleted}",
            f"results_deleted={self.results_deleted}",
            f"cause={self.cause.value}",
            f"delete_time_us={(self.delete_time - _EPOCH) // _MICROSECOND}",
        )
        return "".join(f"{line}\n" for line in lines).encode("ascii")
