"""Between the contract's messages and the domain's values."""

from pagemesh.common.v1 import money_pb2, page_pb2
from pagemesh.summarizer.v1 import reuse_pb2, scan_pb2, summary_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.summarizer.api.personal_mapping import from_counts, to_kinds
from services.summarizer.domain.events import Event, Finished, Progress, SentenceReady, TextDelta
from services.summarizer.domain.values import (
    Box,
    Citation,
    Consumption,
    Length,
    Money,
    Options,
    ReusedPart,
    ScanReading,
    Sentence,
    Style,
    Summary,
)

_LENGTHS = {
    summary_pb2.SUMMARY_LENGTH_UNSPECIFIED: Length.MEDIUM,
    summary_pb2.SUMMARY_LENGTH_SHORT: Length.SHORT,
    summary_pb2.SUMMARY_LENGTH_MEDIUM: Length.MEDIUM,
    summary_pb2.SUMMARY_LENGTH_LONG: Length.LONG,
}
_STYLES = {
    summary_pb2.SUMMARY_STYLE_UNSPECIFIED: Style.PARAGRAPH,
    summary_pb2.SUMMARY_STYLE_PARAGRAPH: Style.PARAGRAPH,
    summary_pb2.SUMMARY_STYLE_BULLETS: Style.BULLETS,
}


def to_options(message: service_pb2.SummaryOptions) -> Options:
    """What the caller wants."""
    return Options(
        length=_LENGTHS[message.length],
        style=_STYLES[message.style],
        language=message.language,
        focus=message.focus,
        model=message.model,
        ocr_model=message.ocr_model,
        audience=message.audience,
        anonymise=to_kinds(message.anonymise),
        reuse_similar=message.reuse_similar,
    )


def from_event(event: Event) -> service_pb2.StreamSummarizeResponse:
    """One event of a stream."""
    match event:
        case Progress():
            return service_pb2.StreamSummarizeResponse(progress=_from_progress(event))
        case TextDelta():
            return service_pb2.StreamSummarizeResponse(text_delta=event.text)
        case SentenceReady():
            return service_pb2.StreamSummarizeResponse(sentence=_from_sentence(event.sentence))
        case Finished():
            return service_pb2.StreamSummarizeResponse(summary=from_summary(event.summary))


def from_summary(summary: Summary) -> summary_pb2.Summary:
    """The whole summary."""
    return summary_pb2.Summary(
        document=summary.document,
        text=summary.text,
        sentences=[_from_sentence(sentence) for sentence in summary.sentences],
        grounded_share=summary.grounded_share,
        model=summary.model,
        extractive=summary.extractive,
        cached=summary.cached,
        failed_pages=summary.failed_pages,
        consumption=from_consumption(summary.consumption),
        degraded_from=summary.degraded_from,
        hidden_page_count=summary.hidden.pages,
        hidden_word_count=summary.hidden.words,
        suspicious_passage_count=summary.suspicious_passages,
        scan_reading=from_scans(summary.scans),
        anonymised=from_counts(summary.anonymised),
        reused_parts=[_from_reused(part) for part in summary.reused],
    )


def _from_progress(progress: Progress) -> service_pb2.SummaryProgress:
    return service_pb2.SummaryProgress(
        pages_read=progress.pages_read,
        page_count=progress.page_count,
        chunks_done=progress.chunks_done,
        chunk_count=progress.chunk_count,
    )


def _from_sentence(sentence: Sentence) -> summary_pb2.SummarySentence:
    return summary_pb2.SummarySentence(
        text=sentence.text,
        citations=[from_citation(citation) for citation in sentence.citations],
        grounded=sentence.grounded,
        reused_from=sentence.reused_from,
    )


def _from_reused(part: ReusedPart) -> reuse_pb2.ReusedPart:
    return reuse_pb2.ReusedPart(source_document=part.document, first_page=part.first_page, last_page=part.last_page)


def from_citation(citation: Citation) -> summary_pb2.Citation:
    """Words on a page."""
    boxes = [from_box(box) for box in citation.boxes]
    return summary_pb2.Citation(page=citation.page, quote=citation.quote, boxes=boxes, read_by_model=citation.by_model)


def from_scans(scans: ScanReading) -> scan_pb2.ScanReading | None:
    """What a model made of scanned pages; None where none was asked."""
    if not scans.model:
        return None
    return scan_pb2.ScanReading(model=scans.model, pages=scans.pages, failed_pages=scans.failed)


def from_box(box: Box) -> page_pb2.BoundingBox:
    """A rectangle."""
    return page_pb2.BoundingBox(x0=box.x0, y0=box.y0, x1=box.x1, y1=box.y1)


def from_consumption(used: Consumption) -> summary_pb2.Consumption:
    """What was used and what it cost."""
    return summary_pb2.Consumption(
        input_tokens=used.tokens.input_tokens,
        output_tokens=used.tokens.output_tokens,
        provider_calls=used.provider_calls,
        cost=from_money(used.cost),
        settled=used.settled,
        usage_event_ids=used.usage_event_ids,
        ocr_pages=used.tokens.pages,
    )


def from_money(money: Money) -> money_pb2.Money:
    """An amount."""
    return money_pb2.Money(currency=money.currency, micros=money.micros)
