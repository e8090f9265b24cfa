"""Estimates and bounds of cost, between the contract's messages and the domain's values."""

from google.protobuf import duration_pb2

from pagemesh.common.v1 import money_pb2
from pagemesh.summarizer.v1 import answer_pb2, embedding_pb2, estimate_pb2, fields_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.summarizer.api.personal_mapping import from_counts
from services.summarizer.domain.estimate import Estimate
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
        input_tokens=estimate_pb2.TokenRange(
            low=low.tokens.input_tokens, expected=expected.tokens.input_tokens, high=high.tokens.input_tokens
        ),
        output_tokens=estimate_pb2.TokenRange(
            low=low.tokens.output_tokens, expected=expected.tokens.output_tokens, high=high.tokens.output_tokens
        ),
        price=estimate_pb2.PriceRange(low=_money(low.cost), expected=_money(expected.cost), high=_money(high.cost)),
        price_book_version=estimate.price_book_version,
        ocr_model=estimate.ocr_model,
        ocr_page_count=estimate.ocr_page_count,
        anonymised=from_counts(estimate.anonymised),
        duration=estimate_pb2.DurationRange(
            low=_duration(low.duration_s), expected=_duration(expected.duration_s), high=_duration(high.duration_s)
        ),
    )


def _money(money: Money) -> money_pb2.Money:
    return money_pb2.Money(currency=money.currency, micros=money.micros)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(round(seconds * 1_000))
    return duration
