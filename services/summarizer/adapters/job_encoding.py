"""Orders and results of jobs as bytes: JSON, ASCII only."""

import hashlib
import json
from dataclasses import replace

from services.summarizer.adapters.encoding import Undecodable, decode_summary, encode_summary
from services.summarizer.adapters.job_result_encoding import (
    decode_answer,
    decode_extraction,
    encode_answer,
    encode_extraction,
)
from services.summarizer.domain.answer_values import CitedAnswer
from services.summarizer.domain.fields_values import Extraction
from services.summarizer.domain.jobs import (
    AskWork,
    Extracted,
    ExtractWork,
    FieldsWork,
    Order,
    Result,
    SummarizeWork,
    Work,
)
from services.summarizer.domain.page_range import ALL_PAGES, PageRange
from services.summarizer.domain.personal_kinds import Kind, Kinds
from services.summarizer.domain.values import Length, Options, Style, Summary

_NO_KEY = bytes(32)


def encode_work(work: Work) -> bytes:
    """The work as bytes."""
    match work:
        case SummarizeWork(options, fallbacks):
            asked = [options.length.name, options.style.value, options.language, options.focus, options.model]
            # A worker of the version before can do all others.
            asked += [options.audience] if options.audience else []
            return _dump(["summarize", asked, fallbacks, *_named(options.ocr_model), *_kinds(options.anonymise)])
        case ExtractWork():
            return _dump(["extract"])
        case FieldsWork(schema, stored, model, fallbacks, ocr_model, kinds, pages):
            more = [*_named(ocr_model), *_kinds(kinds), *_ranged(pages)]
            return _dump(["fields", schema, stored, model, fallbacks, *more])
        case AskWork(question, max_passages, language, model, fallbacks, kinds):
            return _dump(["ask", question, max_passages, language, model, fallbacks, *_kinds(kinds)])


def decode_work(data: bytes) -> Work:
    """The work that was encoded. Raises Undecodable, also for a kind that only another version knows."""
    try:
        kind, *rest = json.loads(data)
        if kind == "extract":
            return ExtractWork()
        if kind == "fields":
            schema, stored, model, fallbacks, *more = rest
            pages = [PageRange(*item) for item in more if _is_range(item)]
            others = [item for item in more if not _is_range(item)]
            return FieldsWork(schema, stored, model, tuple(fallbacks), *_read_more(others), *pages)
        if kind == "ask":
            question, max_passages, language, model, fallbacks, *kinds = rest
            return AskWork(question, max_passages, language, model, tuple(fallbacks), _read_kinds(*kinds))
        if kind != "summarize":
            raise Undecodable(f"there is no work of the kind {kind!r}")
        (length, style, language, focus, model, *audience), fallbacks, *more = rest
        ocr_model, kinds = _read_more(more)
        options = Options(Length[length], Style(style), language, focus, model, *audience)
        options = replace(options, ocr_model=ocr_model, anonymise=kinds)
        return SummarizeWork(options, tuple(fallbacks))
    except (ValueError, TypeError, KeyError) as exc:
        raise Undecodable("the work of a job cannot be read") from exc


def _ranged(pages: PageRange) -> list[list[int]]:
    """A part of the document, where it is one. A worker of the version before cannot read such work, and leaves it."""
    return [] if pages == ALL_PAGES else [[pages.first, pages.last]]


def _is_range(item: object) -> bool:
    return isinstance(item, list) and len(item) == 2 and all(isinstance(number, int) for number in item)


def _named(ocr_model: str) -> list[str]:
    """Only where there is one: work without it is written as it always was."""
    return [ocr_model] if ocr_model else []


def encode_result(tenant: str, result: Result) -> bytes:
    """The result as bytes."""
    if isinstance(result, Summary):
        # The rest of a summary is what its cache keeps, and the same form.
        head = _dump(["summary", result.cached, result.degraded_from])
        return head + b"\n" + encode_summary(tenant, _NO_KEY, result)
    if isinstance(result, Extraction):
        return _dump(["fields"]) + b"\n" + encode_extraction(result)
    if isinstance(result, CitedAnswer):
        return _dump(["answer"]) + b"\n" + encode_answer(result)
    return _dump(["extract", result.page_count, result.pages_read, result.failed_pages, result.words])


def decode_result(tenant: str, data: bytes) -> Result:
    """The result that was encoded. Raises Undecodable."""
    head, _, body = data.partition(b"\n")
    try:
        kind, *rest = json.loads(head)
        if kind == "summary":
            cached, degraded_from = rest
            return replace(decode_summary(tenant, _NO_KEY, body), cached=cached, degraded_from=degraded_from)
        if kind == "fields":
            return decode_extraction(body)
        if kind == "answer":
            return decode_answer(body)
        page_count, pages_read, failed, words = rest
        return Extracted(page_count, pages_read, tuple(failed), words)
    except (ValueError, TypeError) as exc:
        raise Undecodable("the result of a job cannot be read") from exc


def fingerprint(order: Order) -> bytes:
    """32 bytes that are the same for the same order, whoever makes it."""
    work = encode_work(order.asked or order.work).decode()
    when = order.schedule_time.isoformat() if order.schedule_time else ""
    parts: list[object] = [order.documents, work, int(order.priority), order.max_attempts, when, order.as_batch]
    if order.max_cost is not None:
        parts.append([order.max_cost.currency, order.max_cost.micros])
    return hashlib.sha256(_dump(parts)).digest()


def _kinds(kinds: Kinds | None) -> list[list[str]]:
    """What is replaced, where the work says so: other work is written as it always was."""
    return [] if kinds is None else [[kind.value for kind in kinds]]


def _read_more(more: list[str | list[str]]) -> tuple[str, Kinds | None]:
    """Who reads scans, and what is replaced; each is there only where the work says so."""
    named = [item for item in more if isinstance(item, str)]
    return "".join(named), _read_kinds(*(item for item in more if isinstance(item, list)))


def _read_kinds(kinds: list[str] | None = None) -> Kinds | None:
    return None if kinds is None else tuple(Kind(kind) for kind in kinds)


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
