"""Reads the fields that a model answered: strictly where it is about form, with bounds where it is about size."""

import json

from services.summarizer.domain.answers import MAX_ANSWER_CHARS, UnreadableAnswer, field_of, plain
from services.summarizer.domain.citations import MAX_QUOTE_CHARS
from services.summarizer.domain.field_normal import MAX_TEXT_CHARS
from services.summarizer.domain.fields_values import FieldsPrompt
from services.summarizer.domain.found_field import FoundField, Scalar

MAX_POINTER_CHARS = 1_000
_MAX_PAGE = 1_000_000


def read_fields(prompt: FieldsPrompt, content: str) -> tuple[FoundField, ...]:
    """The fields of an answer, at most as many as were asked for. Raises UnreadableAnswer."""
    if len(content) > MAX_ANSWER_CHARS:
        raise UnreadableAnswer(f"it has more than {MAX_ANSWER_CHARS} characters")
    try:
        answer = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise UnreadableAnswer("it is not JSON") from exc
    return tuple(_field(item) for item in field_of(answer, "fields", list)[: prompt.max_fields])


def _field(item: object) -> FoundField:
    pointer = plain(field_of(item, "pointer", str))
    quote = plain(field_of(item, "quote", str))
    page = field_of(item, "page", int)
    if len(pointer) > MAX_POINTER_CHARS or len(quote) > MAX_QUOTE_CHARS:
        raise UnreadableAnswer("a pointer or a quote is too long")
    return FoundField(pointer, _scalar(item), quote, page if 0 < page <= _MAX_PAGE else 0)


def _scalar(item: object) -> Scalar:
    value = item.get("value") if isinstance(item, dict) else None
    if isinstance(value, str):
        return plain(value)[:MAX_TEXT_CHARS]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise UnreadableAnswer("a value is no single one")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
