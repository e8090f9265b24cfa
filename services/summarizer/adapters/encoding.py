"""Answers and summaries as bytes: JSON arrays in a fixed order, ASCII only, with a version in front."""

import base64
import json
from typing import Any

from services.summarizer.domain.found_field import FoundField
from services.summarizer.domain.personal_kinds import Counts, Kind
from services.summarizer.domain.values import (
    NO_SCANS,
    Answer,
    Box,
    Citation,
    Claim,
    Consumption,
    HiddenText,
    Money,
    Quote,
    ReusedPart,
    ScanReading,
    Sentence,
    Summary,
    TokenCount,
)

VERSION = 1


class Undecodable(ValueError):
    """The bytes are not what this version writes."""


def encode_answer(answer: Answer) -> bytes:
    """The answer as bytes."""
    claims = [[claim.text, [[quote.text, quote.page] for quote in claim.quotes]] for claim in answer.claims]
    fields = [[field.pointer, field.value, field.quote, field.page] for field in answer.fields]
    vectors = [base64.b64encode(vector).decode() for vector in answer.vectors]
    # Only where there are any: other answers are written as they always were.
    more: list[Any] = [answer.text, answer.tokens.pages] if answer.tokens.pages or vectors else []
    more = [fields, *more, *([vectors] if vectors else [])] if fields or more else []
    return _dump([VERSION, claims, answer.tokens.input_tokens, answer.tokens.output_tokens, *more])


def decode_answer(data: bytes) -> Answer:
    """The answer that was encoded. Raises Undecodable."""
    try:
        version, claims, input_tokens, output_tokens, *more = json.loads(data)
        _check(version)
        fields: list[Any] = more[0] if more else []
        text, pages = more[1:3] if len(more) > 1 else ("", 0)
        vectors: list[str] = more[3] if len(more) > 3 else []
        return Answer(
            tuple(Claim(text, tuple(Quote(words, page) for words, page in quotes)) for text, quotes in claims),
            TokenCount(input_tokens, output_tokens, pages),
            tuple(FoundField(*field) for field in fields),
            text,
            tuple(base64.b64decode(vector, validate=True) for vector in vectors),
        )
    except (ValueError, TypeError) as exc:
        raise Undecodable("an answer cannot be read") from exc


def encode_summary(tenant: str, key: bytes, summary: Summary) -> bytes:
    """The summary as bytes that say whose it is and what it answers."""
    used = summary.consumption
    return _dump(
        [
            VERSION,
            tenant,
            key.hex(),
            summary.document,
            summary.text,
            [_encode_sentence(sentence) for sentence in summary.sentences],
            summary.model,
            summary.extractive,
            summary.failed_pages,
            [used.tokens.input_tokens, used.tokens.output_tokens, used.provider_calls],
            [used.cost.currency, used.cost.micros, used.settled],
            used.usage_event_ids,
            [summary.hidden.pages, summary.hidden.words, summary.suspicious_passages],
            *([[*encode_scans(summary.scans), used.tokens.pages]] if summary.scans.model else []),
            *encode_counts(summary.anonymised),
            *(f"{part.document} {part.first_page} {part.last_page}" for part in summary.reused),
        ]
    )


def decode_summary(tenant: str, key: bytes, data: bytes) -> Summary:
    """The summary that was encoded. Raises Undecodable, also where it is another tenant's or answers another key."""
    try:
        version, owner, answers, *rest = json.loads(data)
        _check(version)
        if (owner, answers) != (tenant, key.hex()):
            raise Undecodable("the summary is of somebody or something else")
        document, text, sentences, model, extractive, failed, counts, cost, ids, *more = rest
        return Summary(
            document=document,
            text=text,
            sentences=tuple(
                Sentence(said, tuple(decode_citation(*citation) for citation in citations), *reused_from)
                for said, citations, *reused_from in sentences
            ),
            model=model,
            extractive=extractive,
            cached=False,
            failed_pages=tuple(failed),
            consumption=Consumption(
                tokens=TokenCount(
                    counts[0], counts[1], next((item[3] for item in more[1:] if isinstance(item, list)), 0)
                ),
                provider_calls=counts[2],
                cost=Money(cost[0], cost[1]),
                settled=cost[2],
                usage_event_ids=tuple(ids),
            ),
            # What was kept before there was such a count has none.
            hidden=HiddenText(*more[0][:2]) if more else HiddenText(),
            suspicious_passages=more[0][2] if more else 0,
            anonymised=decode_counts(*(item for item in more[1:] if isinstance(item, dict))),
            scans=next((decode_scans(*item[:3]) for item in more[1:] if isinstance(item, list)), NO_SCANS),
            reused=tuple(_decode_reused(*item.split(" ")) for item in more[1:] if isinstance(item, str)),
        )
    except (ValueError, TypeError, IndexError) as exc:
        raise Undecodable("a summary cannot be read") from exc


def _encode_sentence(sentence: Sentence) -> list[Any]:
    """A sentence; that it was written for another document is told only where it was."""
    citations = [encode_citation(citation) for citation in sentence.citations]
    return [sentence.text, citations, *([sentence.reused_from] if sentence.reused_from else [])]


def _decode_reused(document: str, first_page: str, last_page: str) -> ReusedPart:
    return ReusedPart(document, int(first_page), int(last_page))


def encode_counts(counts: Counts) -> list[dict[str, int]]:
    """What was replaced, where anything was: other answers are written as they always were."""
    return [{kind.value: count for kind, count in counts.items()}] if counts else []


def decode_counts(counts: dict[str, int] | None = None) -> Counts:
    """The same again."""
    return {Kind(kind): count for kind, count in (counts or {}).items()}


def encode_scans(scans: ScanReading) -> list[Any]:
    """Which pages a model read."""
    return [scans.model, scans.pages, scans.failed]


def decode_scans(model: str, pages: list[int], failed: list[int]) -> ScanReading:
    """The same again."""
    return ScanReading(model, tuple(pages), tuple(failed))


def encode_citation(citation: Citation) -> list[Any]:
    """A citation; that a model read its words is told only where it did."""
    boxes = [[box.x0, box.y0, box.x1, box.y1] for box in citation.boxes]
    return [citation.page, citation.quote, boxes, *([True] if citation.by_model else [])]


def decode_citation(page: int, quote: str, boxes: list[list[float]], *by_model: bool) -> Citation:
    """The citation that was encoded."""
    return Citation(page, quote, tuple(Box(*box) for box in boxes), any(by_model))


def _check(version: object) -> None:
    if version != VERSION:
        raise Undecodable(f"version {version!r} is not {VERSION}")


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
