"""Extractions and answers to questions as bytes: JSON arrays in a fixed order, ASCII only, with a version in front."""

import json
from typing import Any

from services.summarizer.adapters.encoding import (
    Undecodable,
    decode_citation,
    decode_counts,
    decode_scans,
    encode_citation,
    encode_counts,
    encode_scans,
)
from services.summarizer.domain.answer_values import Cited, CitedAnswer, Statement
from services.summarizer.domain.fields_values import Extraction, FieldValue, OtherValue, Path, Violation
from services.summarizer.domain.ports_questions import PageAt
from services.summarizer.domain.values import NO_SCANS, Box, Consumption, Money, TokenCount

VERSION = 1


def encode_extraction(found: Extraction) -> bytes:
    """The extraction as bytes."""
    fields = [
        [
            field.path,
            field.value,
            field.citation and encode_citation(field.citation),
            field.confidence,
            [[other.value, encode_citation(other.citation)] for other in field.others],
        ]
        for field in found.fields
    ]
    return _dump(
        [
            VERSION,
            [found.document, found.schema, found.schema_digest, found.model, found.degraded_from],
            # An older version reads two: the third is left out where it says nothing.
            [found.repaired, found.cached, *([True] if found.repair_unaffordable else [])],
            found.json,
            fields,
            [[violation.path, violation.keyword, violation.message] for violation in found.violations],
            found.missing,
            found.failed_pages,
            _used(found.consumption),
            *([encode_scans(found.scans)] if found.scans.model else []),
            *encode_counts(found.anonymised),
        ]
    )


def decode_extraction(data: bytes) -> Extraction:
    """The extraction that was encoded. Raises Undecodable."""
    try:
        names, flags, found, fields, violations, missing, failed, used, *more = _parts(data)
        document, schema, digest, model, degraded_from = names
        repaired, cached, *unaffordable = flags
        return Extraction(
            document=document,
            schema=schema,
            schema_digest=digest,
            json=found,
            fields=tuple(_read_field(*field) for field in fields),
            violations=tuple(Violation(tuple(path), keyword, message) for path, keyword, message in violations),
            missing=tuple(tuple(path) for path in missing),
            repaired=repaired,
            model=model,
            cached=cached,
            failed_pages=tuple(failed),
            consumption=_read_used(*used),
            anonymised=decode_counts(*(item for item in more if isinstance(item, dict))),
            degraded_from=degraded_from,
            scans=next((decode_scans(*item) for item in more if isinstance(item, list)), NO_SCANS),
            repair_unaffordable=any(unaffordable),
        )
    except (ValueError, TypeError) as exc:
        raise Undecodable("an extraction cannot be read") from exc


def encode_answer(answer: CitedAnswer) -> bytes:
    """The answer as bytes."""
    statements = [
        [statement.text, [[*_at(cited.at), cited.quote, _boxes(cited.boxes)] for cited in statement.citations]]
        for statement in answer.statements
    ]
    return _dump(
        [
            VERSION,
            [answer.found, answer.extractive, answer.cached],
            [answer.text, answer.model, answer.degraded_from],
            statements,
            [_at(at) for at in answer.passages],
            [_at(at) for at in answer.failed_pages],
            _used(answer.consumption),
            *encode_counts(answer.anonymised),
        ]
    )


def decode_answer(data: bytes) -> CitedAnswer:
    """The answer that was encoded. Raises Undecodable."""
    try:
        flags, texts, statements, passages, failed, used, *counts = _parts(data)
        found, extractive, cached = flags
        text, model, degraded_from = texts
        return CitedAnswer(
            found=found,
            text=text,
            statements=tuple(Statement(said, tuple(_read_cited(*one) for one in cited)) for said, cited in statements),
            passages=tuple(PageAt(document, number) for document, number in passages),
            model=model,
            extractive=extractive,
            cached=cached,
            failed_pages=tuple(PageAt(document, number) for document, number in failed),
            consumption=_read_used(*used),
            anonymised=decode_counts(*counts),
            degraded_from=degraded_from,
        )
    except (ValueError, TypeError) as exc:
        raise Undecodable("an answer to a question cannot be read") from exc


def _read_field(path: list[str | int], value: Any, citation: Any, confidence: float, others: list[Any]) -> FieldValue:
    said = tuple(OtherValue(other, decode_citation(*cited)) for other, cited in others)
    where: Path = tuple(path)
    return FieldValue(where, value, citation and decode_citation(*citation), confidence, said)


def _read_cited(document: str, number: int, quote: str, boxes: list[list[float]]) -> Cited:
    return Cited(PageAt(document, number), quote, tuple(Box(*box) for box in boxes))


def _at(at: PageAt) -> list[Any]:
    return [at.document, at.number]


def _boxes(boxes: tuple[Box, ...]) -> list[list[float]]:
    return [[box.x0, box.y0, box.x1, box.y1] for box in boxes]


def _used(used: Consumption) -> list[Any]:
    tokens, cost = used.tokens, used.cost
    counts = [tokens.input_tokens, tokens.output_tokens, used.provider_calls, *([tokens.pages] if tokens.pages else [])]
    return [counts, [cost.currency, cost.micros], used.settled, used.usage_event_ids]


def _read_used(counts: list[int], cost: list[Any], settled: bool, ids: list[str]) -> Consumption:
    input_tokens, output_tokens, calls, *pages = counts
    return Consumption(TokenCount(input_tokens, output_tokens, *pages), calls, Money(*cost), settled, tuple(ids))


def _parts(data: bytes) -> list[Any]:
    parts: list[Any]
    version, *parts = json.loads(data)
    if version != VERSION:
        raise Undecodable(f"version {version!r} is not {VERSION}")
    return parts


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
