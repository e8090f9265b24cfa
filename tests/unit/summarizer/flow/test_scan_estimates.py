"""Estimates of documents with scanned pages: they draw, look what was paid for, and ask nobody."""

import pytest

from services.runtime.errors import (
    InvalidArgument,
    NotFound,
)
from tests.unit.summarizer.flow.estimating import estimate_of
from tests.unit.summarizer.flow.parts import (
    ALICE,
    DOCUMENT,
    MODEL,
    PAGE_MICROS,
    READER,
    Flow,
    ScriptedProvider,
    options,
    page,
)
from tests.unit.summarizer.flow.scanning import DRAWN, TYPED, draw, scan, summed_up

pytestmark = pytest.mark.usefixtures("for_alice")


@pytest.fixture
def flow() -> Flow:
    return Flow()


class TestEstimates:
    async def test_it_counts_the_pages_and_the_run_costs_as_much(self, flow: Flow) -> None:
        draw(flow, page(1, TYPED), scan(2, DRAWN), scan(3, DRAWN), said={2: DRAWN, 3: DRAWN + " It was in May."})
        wanted = options(ocr_model=READER)
        found = await estimate_of(flow)(ALICE, DOCUMENT, wanted)
        assert (found.ocr_model, found.ocr_page_count) == (READER, 2)
        assert not flow.reader.calls
        assert not flow.books.holds
        without = await estimate_of(flow)(ALICE, DOCUMENT, options())
        assert (without.ocr_model, without.ocr_page_count) == ("", 0)
        for with_scans, bare in (
            (found.low, without.low),
            (found.expected, without.expected),
            (found.high, without.high),
        ):
            assert with_scans.cost.micros == bare.cost.micros + 2 * PAGE_MICROS
            assert with_scans.calls == bare.calls + 2
            assert with_scans.duration_s > bare.duration_s
        summary = await summed_up(flow)
        assert 2 * PAGE_MICROS < summary.consumption.cost.micros <= found.high.cost.micros

    async def test_what_was_paid_for_before_comes_free(self, flow: Flow) -> None:
        flow.provider = ScriptedProvider(context_tokens=100_000)
        draw(flow, scan(1), scan(2), said={1: DRAWN, 2: "Another page of the book."})
        await summed_up(flow)
        found = await estimate_of(flow)(ALICE, DOCUMENT, options(ocr_model=READER, focus="mills"))
        assert found.ocr_page_count == 0
        draw(flow, scan(1), scan(2), scan(3), said={3: "A new one."})
        grown = await estimate_of(flow)(ALICE, DOCUMENT, options(ocr_model=READER, focus="mills"))
        assert grown.ocr_page_count == 1

    async def test_pages_that_nobody_has_read_are_taken_for_printed_ones(self, flow: Flow) -> None:
        flow.provider = ScriptedProvider(context_tokens=100_000)
        draw(flow, scan(1), scan(2), said={1: "a", 2: "b"})
        found = await estimate_of(flow)(ALICE, DOCUMENT, options(ocr_model=READER))
        assert (found.chunk_count, found.ocr_page_count) == (1, 2)
        assert found.expected.tokens.input_tokens >= 2 * 400

    async def test_faults(self, flow: Flow) -> None:
        draw(flow, scan(1), said={1: DRAWN})
        with pytest.raises(InvalidArgument) as unknown:
            await estimate_of(flow)(ALICE, DOCUMENT, options(ocr_model=MODEL))
        assert unknown.value.fields[0].field == "summary.ocr_model"
        with pytest.raises(NotFound):
            await estimate_of(flow)(ALICE, "documents/" + "9" * 32, options(ocr_model=READER))
