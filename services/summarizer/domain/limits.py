"""How much of a document a summary takes in, so that no document can take the memory or the time of all others."""

from services.runtime.errors import FailedPrecondition
from services.summarizer.domain.ports import PageFailed

MAX_PAGE_WORDS = 20_000
"""Twice a broadsheet newspaper's page in small print; an index of so many words is made in 20 ms."""
MAX_PAGE_CHARS = 200_000
"""Ten for each of these words."""
MAX_DOCUMENT_WORDS = 2_000_000
"""Four thousand pages of 500 words, three times the longest novels. The index of so many words takes about 80 MB."""
MAX_DOCUMENT_CHARS = 12_000_000
"""Six for each of these words, the space after it included."""
PAGE_TOO_LARGE = "PAGE_TOO_LARGE"


def too_large(number: int, *, words: int, chars: int) -> PageFailed | None:
    """The failure of a page that holds more than one page may; sources ask before they build anything of it."""
    if words <= MAX_PAGE_WORDS and chars <= MAX_PAGE_CHARS:
        return None
    return PageFailed(number, PAGE_TOO_LARGE, words=words, chars=chars)


class Intake:
    """Counts what was read of one document; pages that were too large count too, for they had to be carried."""

    def __init__(self) -> None:
        self._words = 0
        self._chars = 0

    def add(self, *, words: int, chars: int) -> None:
        """Takes a page in. Raises FailedPrecondition DOCUMENT_TOO_LARGE where the document holds too much by it."""
        self._words += words
        self._chars += chars
        if self._words > MAX_DOCUMENT_WORDS or self._chars > MAX_DOCUMENT_CHARS:
            raise FailedPrecondition(
                "DOCUMENT_TOO_LARGE",
                f"The document holds more than a summary takes in: {MAX_DOCUMENT_WORDS:,} words or "
                f"{MAX_DOCUMENT_CHARS:,} characters. Split it into parts and summarize each.",
            )
