"""The port of pictures of pages."""

from typing import Protocol

from services.summarizer.domain.pictures import Picture


class PagePictures(Protocol):
    """Where pictures of pages come from.

    Errors: NotFound, FailedPrecondition (a page that cannot be drawn: PAGE_…), ResourceExhausted, Unavailable,
    DeadlineExceeded.
    """

    async def draw(self, document: str, page: int) -> Picture:
        """The page, from 1: the same bytes for the same page of the same parser."""
        ...
