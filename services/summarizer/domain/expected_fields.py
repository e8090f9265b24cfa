"""Calls about fields that are made in thought only; see expected_calls.py.

What a part of a document holds for a schema is looked for page by page as the model without a network does it
(field_finder.py), in a sample of the parts where they are many. A model is expected to answer what is seen so, written
as it is asked to write it, and half of what is not seen: each single value that stands nowhere under a label of the
schema, once in the whole document, and where no table is seen as many rows as the numbers of the part would fill. A
terse answer has little more than half of what is seen, and the longest is where the call is cut off, with one more call
about every value of it, as if the schema allowed none.
"""

import asyncio
import json
import math
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from services.summarizer.domain.expected_calls import Guess, Seconds, expected_input, seconds_of, tokens_of_line
from services.summarizer.domain.field_finder import find
from services.summarizer.domain.fields_values import Complaint, FieldsPrompt, FieldsStage, Target, pointer_of
from services.summarizer.domain.found_field import FoundField
from services.summarizer.domain.models import Model
from services.summarizer.domain.paid_calls import OnText, Order, Paid
from services.summarizer.domain.prices import ModelPrice
from services.summarizer.domain.values import Answer, Chunk, TokenCount

MOST_LOOKED = 64
"""Parts of a document that are looked at; the others are taken for their mean."""
_UNSEEN_SHARE = 0.5
_TERSE_SHARE = 0.6
_UNSEEN_VALUE, _UNSEEN_QUOTE = 3, 8
"""Words of a value that is not seen, and of its quote."""
_CELL_WORDS = 8
"""Lines that are longer are prose: their numbers fill no table."""
_NUMBER = re.compile(r"(?<![\w.,])[-+]?\d[\d.,]*(?!\w)")
_PROBLEM = "must have the format that the schema says, or match its pattern, or be one of its values " * 2
_COMPLAINT_CHARS = 500
_MAX_COMPLAINTS = 50
"""As many as field_maker.py asks about."""
_EMPTY_TOKENS = 4
"""Of an answer that nothing was found, by a model that writes answers."""


@dataclass(frozen=True, slots=True)
class Sightings:
    """Tokens of the answer to each part that was looked at, by its index; those of one value; and those that are
    expected of each part for single values that were seen nowhere."""

    seen: dict[int, float]
    field: float
    unseen: float

    def of(self, index: int) -> float:
        """Tokens that a usual answer about the part has."""
        known = self.seen.get(index)
        return self.unseen + (sum(self.seen.values()) / len(self.seen) if known is None else known)


def look(model: Model, prompts: Sequence[FieldsPrompt]) -> Sightings:
    """What may be found in the parts that these prompts are about, at least one. For threads."""
    targets, sample = prompts[0].targets, prompts[:: math.ceil(len(prompts) / MOST_LOOKED)]
    single = {_pointer(target) for target in targets if not target.in_list}
    found = {prompt.chunk.index: _found(prompt, single) for prompt in sample}
    pointers = {field.pointer for fields in found.values() for field in fields}
    field = tokens_of_line(model, _stand_in(max(targets, key=lambda one: len(_pointer(one))), sample[0].chunk.text))
    seen = {index: tokens_of_line(model, _written(model, fields)) for index, fields in found.items()}
    if not model.abilities.writes:
        return Sightings(seen, field, 0.0)
    columns = [target for target in targets if target.in_list and target.template[-1] is not None]
    if columns and pointers <= single:
        seen = {
            prompt.chunk.index: seen[prompt.chunk.index] + _rows(prompt, columns) * len(columns) * field * _UNSEEN_SHARE
            for prompt in sample
        }
    return Sightings(seen, field, len(single - pointers) * field * _UNSEEN_SHARE / len(prompts))


def _found(prompt: FieldsPrompt, single: Set[str]) -> list[FoundField]:
    """What stands on the pages of a part; what there is one of, once."""
    found, once = list[FoundField](), set[str]()
    for start, end, page in prompt.chunk.spans:
        text = prompt.chunk.text[start:end]
        for field in find(replace(prompt, chunk=Chunk(0, text, ((0, len(text), page),)))):
            if field.pointer not in once:
                found.append(field)
                once |= {field.pointer} & single
    return found[: prompt.max_fields]


def _rows(prompt: FieldsPrompt, columns: Sequence[Target]) -> float:
    """As many as the numbers in short lines would fill, but for those that stand behind a label."""
    numeric = sum(bool(target.kinds & {"integer", "number"}) for target in columns)
    short = (line for line in prompt.chunk.text.splitlines() if len(line.split()) <= _CELL_WORDS and ":" not in line)
    numbers = sum(len(_NUMBER.findall(line)) for line in short)
    return min(numbers / max(1, numeric), prompt.max_fields / len(columns))


class ExpectedFields:
    """Calls (see paid_calls.py) that cost nothing and ask nobody. `most` remembers what calls can use at most, and may
    be shared; `seconds` is how long each would take, by what it is for."""

    def __init__(self, price: ModelPrice, guess: Guess, sightings: Sightings, most: dict[bytes, TokenCount]) -> None:
        self._price = price
        self._guess = guess
        self._sightings = sightings
        self._most = most
        self.seconds: Seconds = {}

    async def make(self, order: Order, on_text: OnText | None = None) -> Paid:
        """What the call is expected to use."""
        prompt = order.prompt
        assert isinstance(prompt, FieldsPrompt)
        most = self._most.get(order.key)
        if most is None:
            most = self._most[order.key] = await asyncio.to_thread(order.model.provider.count, prompt)
        tokens = most
        if self._guess is not Guess.HIGH:
            said = min(round(self._said(prompt, order.model)), most.output_tokens)
            tokens = TokenCount(expected_input(order, most), said)
        self.seconds.setdefault(prompt.stage, []).append(seconds_of(self._guess, order, tokens))
        return Paid(Answer((), tokens), "", self._price.of(tokens), settled=True)

    def _said(self, prompt: FieldsPrompt, model: Model) -> float:
        terse, empty = self._guess is Guess.LOW, _EMPTY_TOKENS if model.abilities.writes else 0
        if prompt.stage is FieldsStage.REPAIR:
            return empty if terse else len(prompt.complaints) * self._sightings.field
        if terse:
            return max(empty, self._sightings.seen.get(prompt.chunk.index, 0.0) * _TERSE_SHARE)
        return self._sightings.of(prompt.chunk.index)


def worst_complaints(prompt: FieldsPrompt) -> tuple[Complaint, ...]:
    """What is wrong where every value that an answer may hold is."""
    longest = max((_pointer(target) for target in prompt.targets), key=len)
    value = (prompt.chunk.text * (_COMPLAINT_CHARS // max(1, len(prompt.chunk.text)) + 1))[:_COMPLAINT_CHARS]
    count = min(_MAX_COMPLAINTS, prompt.max_fields)
    return tuple(Complaint(f"{longest}/{number}", _PROBLEM, value) for number in range(count))


def _written(model: Model, fields: Sequence[FoundField]) -> str:
    """An answer with these, as it is asked for; a model that writes none is charged for its quotes."""
    if not model.abilities.writes:
        return " ".join(field.quote for field in fields)
    return json.dumps(
        {"fields": [_entry(field.pointer, field.value, field.quote, field.page) for field in fields]},
        ensure_ascii=False,
    )


def _stand_in(target: Target, text: str) -> str:
    words = text.split()
    value, quote = " ".join(words[:_UNSEEN_VALUE]), " ".join(words[:_UNSEEN_QUOTE])
    return json.dumps(_entry(_pointer(target), value, quote, 1), ensure_ascii=False)


def _entry(pointer: str, value: object, quote: str, page: int) -> dict[str, object]:
    return {"pointer": pointer, "value": value, "quote": quote, "page": page}


def _pointer(target: Target) -> str:
    return pointer_of(tuple("0" if part is None else part for part in target.template))
