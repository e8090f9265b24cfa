"""What an extraction asks for and what it yields, event by event."""

from dataclasses import dataclass
from enum import Enum, Flag, StrEnum, auto


class Part(Flag):
    """Parts of a page. What is not asked for is not computed."""

    TEXT = auto()
    BLOCKS = auto()
    WORDS = auto()


class DocumentFlag(Flag):
    """What to know about a document before trusting its pages."""

    NONE = 0
    REPAIRED = auto()
    ENCRYPTED = auto()


class PageFault(StrEnum):
    """Why a page could not be read."""

    CORRUPT = "PAGE_CORRUPT"
    TIMEOUT = "PAGE_TIMEOUT"
    MEMORY = "PAGE_MEMORY"
    CRASHED = "PAGE_CRASHED"


class DocumentFault(StrEnum):
    """Why a document as a whole could not be read."""

    CORRUPT = "DOCUMENT_CORRUPT"
    ENCRYPTED = "DOCUMENT_ENCRYPTED"
    NO_PAGES = "DOCUMENT_HAS_NO_PAGES"
    TIMEOUT = "DOCUMENT_TIMEOUT"
    MEMORY = "DOCUMENT_MEMORY"


class Loss(Enum):
    """What ended a parser process in the middle of its work."""

    TIMEOUT = auto()
    MEMORY = auto()
    CRASH = auto()


@dataclass(frozen=True, slots=True)
class Opened:
    """A parser has opened the document."""

    page_count: int
    flags: DocumentFlag


@dataclass(frozen=True, slots=True)
class Refused:
    """A parser has looked at the document and can not read it."""

    fault: DocumentFault


@dataclass(frozen=True, slots=True)
class ExtractionStart:
    """First event of an extraction. Pages count from 1; `last_page` is included."""

    page_count: int
    first_page: int
    last_page: int
    flags: DocumentFlag


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `content` is a `pagemesh.common.v1.Page` on the wire, which the domain carries and never opens."""

    number: int
    content: bytes


@dataclass(frozen=True, slots=True)
class FailedPage:
    """A page that could not be read; the others are unharmed."""

    number: int
    fault: PageFault


@dataclass(frozen=True, slots=True)
class ExtractionEnd:
    """Last event of a complete extraction."""

    pages_sent: int
    pages_failed: int


ParserEvent = Opened | Refused | Page | FailedPage
ExtractionEvent = ExtractionStart | Page | FailedPage | ExtractionEnd


class ParserLost(Exception):
    """The parser process died or was killed before its work was done. The page it was at is the next one.

    `wasted_s` is how long it had been at that page.
    """

    def __init__(self, loss: Loss, wasted_s: float = 0.0) -> None:
        super().__init__(loss.name)
        self.loss = loss
        self.wasted_s = wasted_s
