"""Drawn pages that are kept for a while, so that a page that is looked at twice is drawn once."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from services.extractor.domain.pages import Picture, PictureFormat

KEPT_FOR = dt.timedelta(days=1)
MAX_KEPT_BYTES = 8 * 1024 * 1024
"""Larger pictures are drawn anew."""
MAX_TENANT_BYTES = 256 * 1024 * 1024
"""What is kept for one tenant, each picture counting at least MIN_WEIGHT_BYTES; the oldest go first."""
MIN_WEIGHT_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class DrawnKey:
    """Which picture: the same key is always the same picture. `jpeg_quality` is 0 where there is none."""

    tenant: str
    document_id: str
    page: int
    dpi: int
    format: PictureFormat
    jpeg_quality: int


class DrawnPages(Protocol):
    """Pictures of the pages of documents. They go with their document, whoever removes it. Every method raises
    Unavailable where they cannot be reached."""

    async def get(self, key: DrawnKey) -> Picture | None:
        """The picture; None where it is not there."""

    async def keep(self, key: DrawnKey, picture: Picture, *, now: dt.datetime) -> None:
        """Keeps the picture in the place of an earlier one. Does nothing where the document is gone or being erased."""

    async def expire(self, *, now: dt.datetime, limit: int) -> int:
        """Removes at most so many that are older than KEPT_FOR, whosesoever they are; answers how many."""
