"""What embedding needs from outside, beside the ports of summaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PassageVector:
    """The vector of one passage: `part` counts those of a page from 0; half-precision numbers, little-endian."""

    page: int
    part: int
    vector: bytes


class VectorShelf(Protocol):
    """Where vectors of pages are kept, so that searches find them. Errors: NotFound, Unavailable, DeadlineExceeded."""

    async def store(self, document: str, model: str, passages: Sequence[PassageVector]) -> None:
        """Keeps vectors of whole pages in the place of what these had; those of other models go from the document."""
        ...
