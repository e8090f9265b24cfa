"""Pictures of pages, and what is asked of a model that reads them."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Picture:
    """A page as it is shown. `media_type` like `image/jpeg`."""

    media_type: str
    content: bytes


class PageStage(Enum):
    """What a call is for: the operation in its usage record."""

    READ = "ocr.page"


@dataclass(frozen=True, slots=True)
class PagePrompt:
    """One call to a provider: the text of one page, out of its picture."""

    model: str
    picture: Picture
    stage: PageStage = PageStage.READ
