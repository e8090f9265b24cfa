"""Fields found without a model: labels and the values beside them, and the rows under a table's head.

A field is looked for under its title, its name and the phrases of its description. Its value stands behind the label
in the same line, or is the whole next line, as cells of a table come one by one. Where nothing stands there that could
be of the field's type, nothing is answered.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.summarizer.domain.fields_values import FieldsPrompt, Target, pointer_of
from services.summarizer.domain.folding import fold
from services.summarizer.domain.found_field import FoundField
from services.summarizer.domain.numbers_dates import Customs, customs_of, dates_in, number_of
from services.summarizer.domain.table_finder import Line, rows_of
from services.summarizer.domain.values import Chunk

MAX_QUOTE_CHARS = 400
MAX_VALUE_CHARS = 200
_MAX_LINES = 20_000
_MAX_LINE_CHARS = 1_000
_MAX_LABEL_WORDS = 6
_MAX_LABELS = 12
_MOST_WORDS_WITHOUT_COLON = 8
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?|[#\u2116]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PHRASES = re.compile(r"[,;:/|()\n]|\bor\b|\balso\b|\boder\b|\bauch\b", re.IGNORECASE)
_BEHIND = re.compile(r"^\s*[:=\uff1a.#\u2116-]*\s*")
_COLON = re.compile(r"^\s*[.#\u2116]?\s*[:=\uff1a]")
_CELLS = re.compile(r"\t+| {2,}|\s*\|\s*")
_ITEMS = re.compile(r"\s*[,;\u2022|]\s*|\s+(?:and|und|et|y)\s+")
# Not any three letters: `VAT 19 %` is no amount.
_CODES = (
    "AUD|BGN|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|ILS|INR|JPY|KRW|MXN|NOK|NZD|PLN|RON|RUB|SEK|SGD|TRY|UAH|USD|ZAR"
)
_UNIT = rf"(?:[^\w\s.,;:()]|{_CODES})"
_NUMBER_LIKE = re.compile(rf"[(\-\u2212]?\s?{_UNIT}?\s?\d[\d.,'\u2019\u00a0\u202f ]*(?:\s?{_UNIT}(?!\w))?\)?")
_SAME = (
    {"number", "no", "nr", "num", "nummer", "numero", "#", "\u2116", "id"},
    {"amount", "amt", "betrag", "montant", "importe"},
    {"date", "datum", "fecha", "data"},
    {"quantity", "qty", "menge", "anzahl", "cantidad"},
    {"telephone", "phone", "tel", "telefon"},
    {"email", "mail"},
)
_MEANING = {word: min(words) for words in _SAME for word in words}


@dataclass(frozen=True, slots=True)
class _Hit:
    """A value for a target; the greater `score` is the better."""

    score: tuple[int, int, int]
    field: FoundField


def find(prompt: FieldsPrompt) -> tuple[FoundField, ...]:
    """What the chunk holds of the targets, at most `max_fields`; single values first."""
    customs = customs_of([prompt.chunk.text])
    labels = {target: labels_of(target) for target in prompt.targets}
    every = {label for of_one in labels.values() for label in of_one}
    lines = _lines(prompt.chunk, every)
    found: list[FoundField] = []
    for target in prompt.targets:
        hits = _hits(target, labels[target], lines, every, customs)
        best = max(hits, key=lambda hit: hit.score, default=None)
        if best is None:
            continue
        if not target.in_list:
            found.append(best.field)
        elif target.template[-1] is None and target.template.count(None) == 1:
            found += _split(target, best.field)
    for row in rows_of(prompt.targets, labels, lines, lambda text, target: _value(text, target, customs)):
        found += row
    return tuple(found[: prompt.max_fields])


def labels_of(target: Target) -> tuple[tuple[str, ...], ...]:
    """Under which words it may stand, as what they mean: its title, its name, short phrases of its description."""
    name = _CAMEL.sub(" ", target.name)
    phrases = [target.title, name, *_PHRASES.split(target.description)]
    labels = (tuple(_meanings(phrase)) for phrase in phrases if phrase)
    return tuple(dict.fromkeys(label for label in labels if 0 < len(label) <= _MAX_LABEL_WORDS))[:_MAX_LABELS]


def _hits(
    target: Target,
    labels: Sequence[tuple[str, ...]],
    lines: Sequence[Line],
    every: set[tuple[str, ...]],
    customs: Customs,
) -> Iterator[_Hit]:
    for at, line in enumerate(lines):
        for rank, label in enumerate(labels):
            end = _end_of(label, line.words)
            if end is None:
                continue
            rest = line.text[end:]
            has_colon = _COLON.match(rest) is not None
            # Earlier lines, and earlier labels, are better; a colon says for certain that it is a label.
            score = (has_colon, -rank, -at)
            if _begins_longer_label(label, line.words, every):
                continue
            beside = _CELLS.split(_BEHIND.sub("", rest).strip())[0]
            value = _value(beside, target, customs) if has_colon or not _reads_on(beside) else ""
            if value:
                quote = line.text[: line.text.find(value, end) + len(value)]
                yield _Hit(score, _field(target, value, quote, line.page))
            elif not any(map(str.isalnum, rest)) and at + 1 < len(lines):
                following = lines[at + 1]
                value = "" if following.meanings in every else _value(following.text, target, customs)
                if value and following.page == line.page:
                    quote = f"{line.text} {following.text[: following.text.find(value) + len(value)]}"
                    yield _Hit(score, _field(target, value, quote, line.page))


def _reads_on(text: str) -> bool:
    """Whether the label is but the beginning of a sentence or a heading, such as `Description of the goods`."""
    return text[:1].islower() or len(text.split()) > _MOST_WORDS_WITHOUT_COLON


def _end_of(label: Sequence[str], words: Sequence[tuple[str, int]]) -> int | None:
    """Where in the line the label ends that it begins with."""
    if len(words) < len(label) or any(word != wanted for (word, _), wanted in zip(words, label, strict=False)):
        return None
    return words[len(label) - 1][1]


def _begins_longer_label(label: tuple[str, ...], words: Sequence[tuple[str, int]], every: set[tuple[str, ...]]) -> bool:
    """Whether the line begins with a longer label of the schema, such as `total amount` where this one is `total`."""
    longer = (other for other in every if len(other) > len(label) and other[: len(label)] == label)
    return any(_end_of(other, words) is not None for other in longer)


def _value(text: str, target: Target, customs: Customs) -> str:
    """What of the text is a value of the target's type; empty where nothing is."""
    text = text.strip().strip("\u2026").strip()
    if not text:
        return ""
    for option in target.options:
        if _folded(text).startswith(_folded(option)):
            return text[: len(option)] if _folded(text[: len(option)]) == _folded(option) else text[:MAX_VALUE_CHARS]
    if target.options:
        return ""
    if target.kinds and not target.kinds & {"string", "boolean"}:
        match = _NUMBER_LIKE.search(text)
        # Words before the number belong to another label.
        if match is None or any(char.isalpha() for char in text[: match.start()]):
            return ""
        number = match[0].strip()
        return number if number_of(number, customs) is not None else ""
    if target.format == "date":
        return next((piece for piece in _date_pieces(text) if any(dates_in(piece, customs))), "")
    return text[:MAX_VALUE_CHARS].strip()


def _date_pieces(text: str) -> Iterator[str]:
    """The beginnings of the text that may be a date, shortest first."""
    words = text.split(" ")
    for count in range(1, min(len(words), 5) + 1):
        yield " ".join(words[:count]).rstrip(",;")


def _split(target: Target, field: FoundField) -> list[FoundField]:
    """A list in one line: an item between each two commas."""
    if not isinstance(field.value, str):
        return []
    items = [item for item in _ITEMS.split(field.value) if item]
    path = target.template[:-1]
    return [
        FoundField(pointer_of((*(part for part in path if part is not None), index)), item, field.quote, field.page)
        for index, item in enumerate(items)
    ]


def _field(target: Target, value: str, quote: str, page: int) -> FoundField:
    pointer = pointer_of(tuple(part for part in target.template if part is not None))
    words = " ".join(quote.split())
    return FoundField(pointer, value, words if len(words) <= MAX_QUOTE_CHARS else value, page)


def _lines(chunk: Chunk, every: set[tuple[str, ...]]) -> list[Line]:
    """The lines that say anything, up to a bound; cells that stand apart in one line are lines of their own too. A line
    in which another label with a colon begins ends before it, as where a recogniser puts two columns into one line."""
    found: list[Line] = []
    for start, end, page in chunk.spans:
        for raw in chunk.text[start:end].splitlines():
            for text in _parted(raw.strip()[:_MAX_LINE_CHARS], every):
                found.append(_line(text, page))
                found += [_line(cell.strip(), page, is_cell=True) for cell in _CELLS.split(text)[1:] if cell.strip()]
            if len(found) >= _MAX_LINES:
                return found
    return found


def _parted(text: str, every: set[tuple[str, ...]]) -> Iterator[str]:
    words = list(_WORD.finditer(text))
    meanings = [_meaning(word[0]) for word in words]
    begin = 0
    for at in range(1, len(words)):
        for size in range(1, min(_MAX_LABEL_WORDS, len(words) - at) + 1):
            is_label = tuple(meanings[at : at + size]) in every and _COLON.match(text[words[at + size - 1].end() :])
            # The end of a longer label, such as `number:` of `invoice number:`, begins nothing.
            if is_label and not any(tuple(meanings[before : at + size]) in every for before in range(at)):
                if text[begin : words[at].start()].strip():
                    yield text[begin : words[at].start()].strip()
                begin = words[at].start()
    if text[begin:].strip():
        yield text[begin:].strip()


def _line(text: str, page: int, *, is_cell: bool = False) -> Line:
    words = tuple((_meaning(match[0]), match.end()) for match in _WORD.finditer(text))
    return Line(text, page, words, is_cell)


def _meanings(phrase: str) -> list[str]:
    return [_meaning(match[0]) for match in _WORD.finditer(phrase.replace("_", " "))]


def _meaning(word: str) -> str:
    folded = fold(word) or word
    return _MEANING.get(folded, folded)


def _folded(text: str) -> str:
    return "".join(fold(word) for word in text.split())
