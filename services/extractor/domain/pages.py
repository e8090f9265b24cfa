"""What an extraction asks for and what it yields, event by event."""

from dataclasses import dataclass
from enum import Enum, Flag, StrEnum, auto


class Part(Flag):
    """Parts of a page. What is not asked for is not computed."""

    TEXT = auto()
    BLOCKS = auto()
    WORDS = auto()
    MARKDOWN = auto()
    TABLES = auto()
    IMAGES = auto()
    LINKS = auto()
    LANGUAGE = auto()
    FLAGS = auto()
    """The flags that cost something to find out."""
    METADATA = auto()
    """Of the document."""
    OUTLINE = auto()
    """Of the document."""


NO_PARTS = Part(0)


class PageFlag(Flag):
    """What to know about a page before trusting it; see the contract's enum of the same name."""

    NONE = 0
    NO_TEXT = auto()
    TRUNCATED = auto()
    OCR = auto()
    HIDDEN_TEXT = auto()
    PARTIAL = auto()
    BLANK = auto()


class OcrMode(Enum):
    """Which pages are read by optical character recognition."""

    AUTO = auto()
    """Those that have no text and are not blank."""
    OFF = auto()
    ALWAYS = auto()
    """Those that are not blank."""


class DocumentFlag(Flag):
    """What to know about a document before trusting its pages."""

    NONE = 0
    REPAIRED = auto()
    ENCRYPTED = auto()
    PARTIAL = auto()


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
    WRONG_PASSWORD = "DOCUMENT_WRONG_PASSWORD"  # noqa: S105  # a reason
    TOO_MANY_PIXELS = "DOCUMENT_TOO_MANY_PIXELS"
    NO_PAGES = "DOCUMENT_HAS_NO_PAGES"
    TIMEOUT = "DOCUMENT_TIMEOUT"
    MEMORY = "DOCUMENT_MEMORY"


class Loss(Enum):
    """What ended a parser process in the middle of its work."""

    TIMEOUT = auto()
    MEMORY = auto()
    CRASH = auto()


_LOST_PAGE = {Loss.TIMEOUT: PageFault.TIMEOUT, Loss.MEMORY: PageFault.MEMORY, Loss.CRASH: PageFault.CRASHED}


@dataclass(frozen=True, slots=True)
class Opened:
    """A parser has opened the document. `info` is a `pagemesh.extractor.v1.ExtractionStart` on the wire with `metadata`
    and `outline` as far as they were asked for, and nothing else."""

    page_count: int
    flags: DocumentFlag
    info: bytes = b""


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
    info: bytes = b""
    """As in `Opened`."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `content` is a `pagemesh.common.v1.Page` on the wire, which the domain carries and never opens; `flags`
    says what it says. `parts` are those that it may have, and none where that is not known."""

    number: int
    content: bytes
    flags: PageFlag = PageFlag.NONE
    parts: Part = NO_PARTS


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
    pages_reused: int = 0
    flags: DocumentFlag = DocumentFlag.NONE


class PictureFormat(Enum):
    """How a picture is written down. GRAY is one byte a pixel, rows from top to bottom without gaps."""

    JPEG = auto()
    PNG = auto()
    GRAY = auto()


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn page, or a picture out of a document."""

    format: PictureFormat
    width_px: int
    height_px: int
    content: bytes


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

    @property
    def page_fault(self) -> PageFault:
        """Why the page that it was at cannot be read."""
        return _LOST_PAGE[self.loss]
