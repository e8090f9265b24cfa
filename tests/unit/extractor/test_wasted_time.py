"""However long each page of a document hangs, up to what the clock allows, the document is given up in time."""

import tempfile

import pytest

from services.extractor.__main__ import _LOST_TIME_IN_TIMEOUTS, _WALL_TIMES_CPU
from services.extractor.config import ExtractorSettings
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import Loss, ParserLost, Part
from services.extractor.domain.ports import ParseTask
from services.extractor.domain.slices import DocumentLost, ExtractionLimits, PageRun
from tests.unit.extractor.scripted import ScriptedParser, reading

OUTCOME_S = 20
PAGE_TIMEOUT_S = ExtractorSettings.model_fields["page_timeout_s"].default
LIMITS = ExtractionLimits(
    max_pages=1000,
    slice_pages=200,
    lost_time_s=PAGE_TIMEOUT_S * _LOST_TIME_IN_TIMEOUTS,
    lost_pages=100,
    queue_wait_s=60,
)


@pytest.mark.parametrize("tenths", range(5, int(PAGE_TIMEOUT_S * _WALL_TIMES_CPU * 10) + 2))
async def test_a_document_of_pages_that_hang_ends_within_the_time_for_an_outcome(tenths: int) -> None:
    """From a page that dies after half a second to one that is killed by the clock on a busy machine."""
    wasted_s = tenths / 10
    lost = []

    def hang(*_: object) -> ParserLost:
        lost.append(wasted_s)
        return ParserLost(Loss.TIMEOUT, wasted_s)

    with tempfile.TemporaryFile() as file:
        task = ParseTask("acme", file, MediaType.PDF, 1, 0, Part.TEXT)
        parser = ScriptedParser(reading(500, lost=hang))
        run = PageRun(parser=parser, limits=LIMITS, task=task, wait_s=lambda: None)
        with pytest.raises(DocumentLost):
            async for _ in run.events():
                pass
    assert sum(lost) <= OUTCOME_S
    # A page that is killed for its computing, and nothing else, is still tried twice before it counts as failed.
    assert len(lost) >= (3 if wasted_s <= PAGE_TIMEOUT_S else 2)
