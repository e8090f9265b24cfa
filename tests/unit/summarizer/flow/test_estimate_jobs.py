"""Estimates of jobs: each document, all together, before the deadline, and what the jobs then cost."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from services.runtime.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.memory_prices import MemoryPrices
from services.summarizer.domain import estimate_jobs
from services.summarizer.domain.estimate import Estimate
from services.summarizer.domain.estimate_fields import EstimateFields
from services.summarizer.domain.estimate_jobs import EstimateJobs, JobEstimate, total_of
from services.summarizer.domain.estimates import Estimator
from services.summarizer.domain.job_orders import Orders
from services.summarizer.domain.jobs import AskWork, ExtractWork, FieldsWork, SummarizeWork, Work
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.ports import DocumentStart, PageFailed
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Page
from tests.unit.summarizer.fields.test_extract_fields import SCHEMA, Fields
from tests.unit.summarizer.flow.asking import AskFlow
from tests.unit.summarizer.flow.estimating import estimate_of, question_estimate_of, thoughts_of
from tests.unit.summarizer.flow.parts import ALICE, STRANGER, Flow, options, word_page

pytestmark = pytest.mark.usefixtures("for_alice")
NAMES = tuple(f"documents/{number:032x}" for number in range(1, 6))
CALLER = replace(ALICE, scopes=frozenset({"summaries.create", "fields.create", "answers.create", "documents.read"}))
SUMMARY = SummarizeWork(options())
WORKS: tuple[Work, ...] = (SUMMARY, FieldsWork(json.dumps(SCHEMA)), AskWork("Where is p1w7?", 8), ExtractWork())


@pytest.fixture
def flow() -> Flow:
    flow = Flow()
    flow.provider.context_tokens = 2_000
    for number, name in enumerate(NAMES, start=1):
        flow.pages.put("acme", name, *(word_page(page, 40 * number) for page in range(1, number + 1)))
    return flow


def estimating_jobs(flow: Flow, *, prices: MemoryPrices | None = None) -> EstimateJobs:
    asking, fields = AskFlow(flow), Fields(flow)
    estimator = Estimator(
        summary=estimate_of(flow, prices=prices),
        fields=EstimateFields(thoughts_of(flow, prices=prices), schemas=fields.schemas),
        question=question_estimate_of(asking, prices=prices),
        reader=asking.finds,
    )
    return EstimateJobs(estimator, orders=Orders(models=flow.models(), schemas=fields.schemas))


async def estimated(flow: Flow, work: Work = SUMMARY, names: tuple[str, ...] = NAMES, **more: Any) -> list[JobEstimate]:
    return await estimating_jobs(flow, **more)(CALLER, names, work, deadline=None)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: type(work).__name__)
async def test_each_document_has_its_line_and_all_of_them_a_sum(flow: Flow, work: Work) -> None:
    jobs = await estimated(flow, work)
    assert [job.document for job in jobs] == list(NAMES)
    found = [job.found for job in jobs if isinstance(job.found, Estimate)]
    assert [each.document for each in found] == list(NAMES)
    total = total_of(jobs)
    assert (total.estimated, total.errors) == (len(NAMES), 0)
    assert total.pages == sum(each.page_count for each in found) > 0
    for summed, parts in (
        (total.low, [each.low for each in found]),
        (total.expected, [each.expected for each in found]),
        (total.high, [each.high for each in found]),
    ):
        assert summed.calls == sum(part.calls for part in parts)
        assert summed.cost.micros == sum(part.cost.micros for part in parts)
        assert summed.tokens.input_tokens == sum(part.tokens.input_tokens for part in parts)
    assert flow.provider.prompts == []
    assert flow.pages.holds == {}
    if isinstance(work, ExtractWork):
        assert (total.free, total.high.cost.micros) == (len(NAMES), 0)


async def test_the_jobs_cost_no_more_than_the_sum_and_come_free_then(flow: Flow) -> None:
    total = total_of(await estimated(flow))
    spent = 0
    for name in NAMES:
        summary = await flow.summarize()(ALICE, name, options(), purse=Purse(total.high.cost))
        spent += summary.consumption.cost.micros
    assert 0 < spent <= total.high.cost.micros
    again = total_of(await estimated(flow))
    assert (again.free, again.high.cost.micros, again.expected.calls) == (len(NAMES), 0, 0)


async def test_a_document_that_cannot_be_estimated_harms_no_other(flow: Flow) -> None:
    flow.pages.put("acme", NAMES[1], PageFailed(1, "PAGE_CORRUPT"))
    flow.pages.put(STRANGER.tenant, "documents/" + "f" * 32, word_page(1, 30))
    jobs = await estimated(flow, names=(*NAMES[:3], "documents/" + "f" * 32))
    reasons = ["" if isinstance(job.found, Estimate) else job.found.reason for job in jobs]
    assert reasons == ["", "DOCUMENT_UNREADABLE", "", "DOCUMENT_NOT_FOUND"]
    total = total_of(jobs)
    assert (total.estimated, total.errors) == (2, 2)


async def test_pages_past_the_end_are_the_documents_own_fault(flow: Flow) -> None:
    work = FieldsWork(json.dumps(SCHEMA), pages=PageRange(3))
    jobs = await estimated(flow, work)
    assert [isinstance(job.found, Estimate) for job in jobs] == [False, False, True, True, True]


async def test_what_is_wrong_with_the_work_is_told_at_once(flow: Flow) -> None:
    for work, error, reason in (
        (SummarizeWork(options(model="nobody/nothing")), InvalidArgument, "MODEL_UNKNOWN"),
        (FieldsWork("{}"), InvalidArgument, "SCHEMA_INVALID"),
        (FieldsWork(stored="schemas/none"), NotFound, "SCHEMA_NOT_FOUND"),
        (AskWork("?!", 8), InvalidArgument, "QUESTION_INVALID"),
    ):
        with pytest.raises(error) as wrong:
            await estimated(flow, work)
        assert wrong.value.reason == reason
    with pytest.raises(FailedPrecondition) as unpriced:
        await estimated(flow, prices=MemoryPrices({}))
    assert unpriced.value.reason == "MODEL_UNPRICED"
    with pytest.raises(PermissionDenied) as scope:
        await estimating_jobs(flow)(ALICE, NAMES, WORKS[1], deadline=None)
    assert "jobs.create" in scope.value.message


async def test_an_extractor_that_is_away_is_one_error(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: str) -> None:
        raise Unavailable("EXTRACTOR_UNAVAILABLE", "away")

    monkeypatch.setattr(flow.pages, "exists", away)
    with pytest.raises(Unavailable):
        await estimated(flow)


async def test_what_there_is_no_time_for_is_told_in_its_place(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    read, pages = list[str](), flow.pages.pages

    async def stuck(
        document: str, within: PageRange = ALL_PAGES
    ) -> AsyncGenerator[DocumentStart | Page | PageFailed, None]:
        read.append(document)
        if document == NAMES[3]:
            await asyncio.Event().wait()
        async for item in pages(document, within):
            yield item

    monkeypatch.setattr(flow.pages, "pages", stuck)
    monkeypatch.setattr(estimate_jobs, "AT_ONCE", 1)
    monkeypatch.setattr(estimate_jobs, "MARGIN_S", 0.0)
    with act_as(ALICE):
        deadline = asyncio.get_running_loop().time() + 1.0
        jobs = await estimating_jobs(flow)(CALLER, NAMES, SUMMARY, deadline=deadline)
    reasons = [None if isinstance(job.found, Estimate) else job.found.reason for job in jobs]
    assert reasons[3:] == ["NO_TIME_LEFT", "NO_TIME_LEFT"]
    assert NAMES[4] not in read
    await flow.tails.close(1)
    assert flow.pages.holds == {}
