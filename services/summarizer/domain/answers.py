"""Reads what a model answered: strictly where it is about form, with bounds where it is about size."""

import json
from collections.abc import Sequence
from typing import Any

from services.summarizer.domain.citations import MAX_QUOTE_CHARS
from services.summarizer.domain.values import Claim, Prompt, Quote, Stage

MAX_ANSWER_CHARS = 200_000
MAX_TEXT_CHARS = 2_000
MAX_QUOTES = 5
_MAX_SOURCES = 5
_MAX_PAGE = 1_000_000
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")


class UnreadableAnswer(Exception):
    """The answer has not the form that was asked for. The message says what is wrong and holds none of its text."""


def read_answer(prompt: Prompt, content: str) -> tuple[Claim, ...]:
    """The claims of an answer, at most as many as were asked for. Raises UnreadableAnswer."""
    if len(content) > MAX_ANSWER_CHARS:
        raise UnreadableAnswer(f"it has more than {MAX_ANSWER_CHARS} characters")
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise UnreadableAnswer("it is not JSON") from exc
    sentences = field_of(answer, "sentences", list)
    # One sentence too many is no reason to pay for another answer.
    return tuple(_claim(prompt, sentence) for sentence in sentences[: prompt.max_sentences])


def _claim(prompt: Prompt, sentence: object) -> Claim:
    text = plain(field_of(sentence, "text", str))
    if not text or len(text) > MAX_TEXT_CHARS:
        raise UnreadableAnswer(f"a sentence has {len(text)} characters")
    if prompt.stage is Stage.REDUCE:
        return Claim(text, _from_sources(prompt.claims, field_of(sentence, "sources", list)))
    return Claim(text, tuple(_quote(item) for item in field_of(sentence, "quotes", list)[:MAX_QUOTES]))


def _quote(item: object) -> Quote:
    text = plain(field_of(item, "quote", str))
    page = field_of(item, "page", int)
    if len(text) > MAX_QUOTE_CHARS:
        raise UnreadableAnswer(f"a quote has {len(text)} characters")
    # The page is a hint: one that cannot be is no hint.
    return Quote(text, page if 0 < page <= _MAX_PAGE else 0)


def _from_sources(claims: Sequence[Claim], sources: Sequence[object]) -> tuple[Quote, ...]:
    """The quotes of the claims that a sentence rests on. A number that was not given rests on nothing."""
    whole = [n for n in sources[:_MAX_SOURCES] if isinstance(n, int) and not isinstance(n, bool)]
    numbers = [n for n in whole if 1 <= n <= len(claims)]
    quotes = dict.fromkeys(quote for number in numbers for quote in claims[number - 1].quotes)
    return tuple(quotes)


def field_of(holder: object, name: str, kind: type) -> Any:
    """A property of an object of JSON. Raises UnreadableAnswer where it is missing or of another kind."""
    value = holder.get(name) if isinstance(holder, dict) else None
    # bool is an int to Python and no number to JSON.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UnreadableAnswer(f"{name!r} is missing or no {kind.__name__}")
    return value


def plain(text: str) -> str:
    """One line without controls and without halves of characters, which JSON can write and nothing else can store."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return " ".join(whole.translate(_CONTROLS).split())
