"""Documents with scanned pages, and pictures of them that say what a test wrote."""

from dataclasses import replace

from services.summarizer.domain.ports import PageFailed
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Money, Page, Summary
from tests.unit.summarizer.flow.parts import (
    ALICE,
    DOCUMENT,
    READER,
    Flow,
    options,
    page,
)

TYPED = "These words were typed and need nobody to read them."
DRAWN = "The minutes of the meeting say that the old mill was sold."


def scan(number: int, text: str = "") -> Page:
    """A page whose text, if any, the parser read from its picture."""
    return replace(page(number, text), scanned=True)


def draw(flow: Flow, *pages: Page | PageFailed, said: dict[int, str] | None = None) -> None:
    """Puts the document in, with pictures that say `said`."""
    flow.pages.put(ALICE.tenant, DOCUMENT, *pages)
    for number, text in (said or {}).items():
        flow.pictures.put(ALICE.tenant, DOCUMENT, number, text.encode())


async def summed_up(flow: Flow, *, max_cost: Money | None = None, **changes: object) -> Summary:
    wanted = options(**{"ocr_model": READER, **changes})
    summary = await flow.summarize()(ALICE, DOCUMENT, wanted, purse=None if max_cost is None else Purse(max_cost))
    await flow.tails.close(1)
    return summary
