"""Finds personal data in a text. The work grows with the length of the text alone, whatever it says."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from services.summarizer.domain.personal_kinds import Kind, Kinds
from services.summarizer.domain.personal_names import Names, births, people
from services.summarizer.domain.personal_numbers import Span, addresses, cards, ibans, national_ids
from services.summarizer.domain.personal_phones import Phones

_MAX_LOCAL_CHARS = 64
_LOCAL_SIGNS = frozenset(".!#$%&'*+/=?^_`{|}~-")
_LABELS = re.compile(r"[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,8}+")
_AROUND_DIGITS = 40
_DIGITS = re.compile(rf"\d(?:\D{{0,{2 * _AROUND_DIGITS}}}+\d)*+")
_TOP = re.compile(r"[^\W\d_]{2,63}|xn--[a-z0-9-]{1,59}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """A piece of the text, from `start` to before `end`. Without a kind it only looks like a placeholder."""

    start: int
    end: int
    kind: Kind | None


class Finder:
    """Finds the kinds that it is told, and names that it learnt."""

    def __init__(self, kinds: Kinds) -> None:
        phones = Phones()
        self.names = Names()
        every: Mapping[Kind, Callable[[str], Iterable[Span]]] = {
            Kind.EMAIL: emails,
            Kind.PHONE: lambda text: _near_digits(text, phones.find),
            Kind.IBAN: lambda text: _near_digits(text, ibans),
            Kind.CARD: lambda text: _near_digits(text, cards),
            Kind.IP_ADDRESS: lambda text: _near_digits(text, addresses),
            Kind.NATIONAL_ID: lambda text: _near_digits(text, national_ids),
            Kind.BIRTH_DATE: births,
            Kind.PERSON: lambda text: people(text, self.names),
        }
        self._ways = [(kind, every[kind]) for kind in _BY_CERTAINTY if kind in kinds]

    def find(self, text: str, others: Iterable[Span] = ()) -> list[Found]:
        """What stands in the text, in order, apart. `others` are places of no kind. Two that hold the same letters
        are one, of the surer kind, so that nothing of either is left."""
        plain = plainly(text)
        found = [Found(start, end, None) for start, end in others]
        rank: dict[Kind | None, int] = {kind: number for number, (kind, _) in enumerate(self._ways)}
        rank[None] = -1
        for kind, way in self._ways:
            found += [Found(start, end, kind) for start, end in way(plain)]
        found.sort(key=lambda one: (one.start, rank[one.kind]))
        apart: list[Found] = []
        for one in found:
            if apart and one.start < apart[-1].end:
                last = apart[-1]
                surer = last if rank[last.kind] <= rank[one.kind] else one
                apart[-1] = Found(last.start, max(last.end, one.end), surer.kind)
            else:
                apart.append(one)
        return apart


def _near_digits(text: str, way: Callable[[str], Iterable[Span]]) -> Iterator[Span]:
    """What the way finds where digits are, with some letters around them: the rest of a text need not be looked at."""
    for run in _DIGITS.finditer(text):
        first = max(0, run.start() - _AROUND_DIGITS)
        for start, end in way(text[first : run.end() + _AROUND_DIGITS]):
            yield first + start, first + end


_BY_CERTAINTY = (
    Kind.EMAIL,
    Kind.IBAN,
    Kind.CARD,
    Kind.NATIONAL_ID,
    Kind.IP_ADDRESS,
    Kind.BIRTH_DATE,
    Kind.PHONE,
    Kind.PERSON,
)


def emails(text: str) -> Iterator[Span]:
    """Addresses of mail: what stands around an @."""
    at = text.find("@")
    while at >= 0:
        start = at
        while (
            start and at - start < _MAX_LOCAL_CHARS and (text[start - 1].isalnum() or text[start - 1] in _LOCAL_SIGNS)
        ):
            start -= 1
        while start < at and not text[start].isalnum():
            start += 1
        end = _domain_end(text, at + 1)
        if start < at and end:
            yield start, end
        at = text.find("@", max(at + 1, end))


def _domain_end(text: str, start: int) -> int:
    """Where the domain ends that begins here: behind the last part that may be the last of one. 0 for none."""
    found = _LABELS.match(text, start)
    if found is None:
        return 0
    parts = found.group().split(".")
    while len(parts) > 1 and not _TOP.fullmatch(parts[-1].rstrip("-_")):
        parts.pop()
    if len(parts) == 1:
        return 0
    return start + len(".".join(parts).rstrip("-_"))


class _Plain(dict[int, int]):
    """Signs for signs of the same meaning that rules are written for; each is looked up once."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        plain = code
        if code >= 0x80:
            if char.isdecimal():
                plain = ord("0") + int(char)
            elif unicodedata.category(char) == "Pd" or char == "\u2212":
                plain = ord("-")
            elif char.isspace():
                plain = ord(" ")
            elif 0xFF01 <= code <= 0xFF5E:
                plain = code - 0xFEE0
            elif char == "\ufe6b":
                plain = ord("@")
        elif char in "\t\v\f\r":
            plain = ord(" ")
        self[code] = plain
        return plain


_PLAIN = _Plain()


def plainly(text: str) -> str:
    """The text with its digits, dashes, spaces and wide letters as ASCII has them: each sign stays where it is."""
    return text.translate(_PLAIN)
