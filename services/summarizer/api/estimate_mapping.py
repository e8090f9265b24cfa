"""Estimates and bounds of cost, between the contract's messages and the domain's values."""

from collections.abc import Sequence

from google.protobuf import duration_pb2

from pagemesh.common.v1 import money_pb2
from pagemesh.summarizer.v1 import answer_pb2, embedding_pb2, estimate_pb2, fields_pb2, job_estimates_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.runtime import status
from services.summarizer.api.personal_mapping import from_counts
from services.summarizer.domain.estimate import Estimate, Outlay
from services.summarizer.domain.estimate_jobs import JobEstimate, total_of
from services.summarizer.domain.purse import Purse
from services.summarizer.domain.values import Money

_Bounded = (
    service_pb2.SummarizeRequest
    | service_pb2.StreamSummarizeRequest
    | fields_pb2.ExtractFieldsRequest
    | answer_pb2.AskRequest
    | answer_pb2.StreamAskRequest
    | embedding_pb2.EmbedDocumentRequest
)


def to_purse(request: _Bounded) -> Purse | None:
    """What the request may spend, where it has a bound. Raises InvalidArgument MAX_COST_CURRENCY."""
    if not request.HasField("max_cost"):
        return None
    return Purse(Money(request.max_cost.currency, request.max_cost.micros))


def from_estimate(estimate: Estimate) -> estimate_pb2.Estimate:
    """The whole estimate."""
    low, expected, high = estimate.low, estimate.expected, estimate.high
    return estimate_pb2.Estimate(
        document=estimate.document,
        model=estimate.model,
        cached=estimate.cached,
        page_count=estimate.page_count,
        failed_page_count=estimate.failed_page_count,
        chunk_count=estimate.chunk_count,
        free_chunk_count=estimate.free_chunk_count,
        provider_calls=expected.calls,
        input_tokens=_sent(low, expected, high),
        output_tokens=_received(low, expected, high),
        price=_price(low, expected, high),
        price_book_version=estimate.price_book_version,
        ocr_model=estimate.ocr_model,
        ocr_page_count=estimate.ocr_page_count,
        anonymised=from_counts(estimate.anonymised),
        duration=estimate_pb2.DurationRange(
            low=_duration(low.duration_s), expected=_duration(expected.duration_s), high=_duration(high.duration_s)
        ),
    )


def from_jobs(jobs: Sequence[JobEstimate]) -> job_estimates_pb2.EstimateJobsResponse:
    """What each of the jobs would take, and all of them."""
    total = total_of(jobs)
    outlays = (total.low, total.expected, total.high)
    return job_estimates_pb2.EstimateJobsResponse(
        total=job_estimates_pb2.JobsTotal(
            estimated_count=total.estimated,
            free_count=total.free,
            error_count=total.errors,
            page_count=total.pages,
            provider_calls=total.expected.calls,
            input_tokens=_sent(*outlays),
            output_tokens=_received(*outlays),
            price=_price(*outlays),
            ocr_page_count=total.ocr_pages,
        ),
        jobs=map(_from_job, jobs),
    )


def _from_job(job: JobEstimate) -> job_estimates_pb2.JobEstimate:
    if isinstance(job.found, Estimate):
        return job_estimates_pb2.JobEstimate(document=job.document, estimate=from_estimate(job.found))
    return job_estimates_pb2.JobEstimate(document=job.document, error=status.to_status(job.found))


def _sent(low: Outlay, expected: Outlay, high: Outlay) -> estimate_pb2.TokenRange:
    return estimate_pb2.TokenRange(
        low=low.tokens.input_tokens, expected=expected.tokens.input_tokens, high=high.tokens.input_tokens
    )


def _received(low: Outlay, expected: Outlay, high: Outlay) -> estimate_pb2.TokenRange:
    return estimate_pb2.TokenRange(
        low=low.tokens.output_tokens, expected=expected.tokens.output_tokens, high=high.tokens.output_tokens
    )


def _price(low: Outlay, expected: Outlay, high: Outlay) -> estimate_pb2.PriceRange:
    return estimate_pb2.PriceRange(low=_money(low.cost), expected=_money(expected.cost), high=_money(high.cost))


def _money(money: Money) -> money_pb2.Money:
    return money_pb2.Money(currency=money.currency, micros=money.micros)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(round(seconds * 1_000))
    return duration
