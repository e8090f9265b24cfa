"""Numbers and dates as people write them, read by stated rules; what could mean two things is not read.

The rules are in docs/fields.md. Every expression here is linear in its text, and texts are bounded before.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

MAX_CHARS = 200
"""A longer text is neither a number nor a date."""
MAX_DIGITS = 40

_GAPS = " \u00a0\u2009\u202f\u2007"
_TICKS = "'\u2019\u02bc"
_MINUS = "-\u2212\u2013"
# A number is digits with separators between them.
_CORE = re.compile(rf"\d+(?:[.,{_TICKS}]\d+|[{_GAPS}]\d{{3}}(?!\d))*")
_SCALES = re.compile(
    r"(?<![^\W\d_])(?:k|m|bn|mn|thousand|million|billion|tsd|mio|mrd|million(?:en|es|s)|milliards?|milioni|mille|mil)\b",
    re.IGNORECASE,
)
_TWO_DECIMALS = re.compile(r"\d([.,])\d{2}(?![\d.,]*\d)")
_NUMERIC_DATE = re.compile(r"(?<![\d.,/-])(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?![\d/-])")
_YEAR_FIRST = re.compile(r"(?<![\d.,/-])(\d{4})([./-])(\d{1,2})\2(\d{1,2})(?!\d)")
_EAST_ASIAN = re.compile(r"(\d{4})\s?[\u5e74\ub144]\s?(\d{1,2})\s?[\u6708\uc6d4]\s?(\d{1,2})\s?[\u65e5\uc77c]")
_DAY_NAMED = re.compile(
    r"(?<![\d.,/-])(\d{1,2})(?:st|nd|rd|th|er|\.|\u00ba)?[ -]{1,3}(?:(?:de|of)[ ]{1,3})?([^\W\d_]{3,12})\.?,?"
    r"[ -]{1,3}(?:del?[ ]{1,3})?(\d{4}|\d{2})(?!\d)",
    re.IGNORECASE,
)
_NAMED_DAY = re.compile(
    r"(?<![^\W\d_])([^\W\d_]{3,12})\.? {1,3}(\d{1,2})(?:st|nd|rd|th)?,? {1,3}(\d{4})(?!\d)", re.IGNORECASE
)
_MONTHS = (
    "january januar jänner janvier enero gennaio januari janeiro",
    "february februar février febrero febbraio februari fevereiro",
    "march märz mars marzo maart março",
    "april avril abril aprile",
    "may mai mayo maggio mei maio",
    "june juni juin junio giugno junho",
    "july juli juillet julio luglio julho",
    "august août agosto augustus",
    "september septembre septiembre settembre setembro",
    "october oktober octobre octubre ottobre outubro",
    "november novembre noviembre novembro",
    "december dezember décembre diciembre dicembre dezembro",
)
_PIVOT = 70
"""Years of two digits below it are of this century, as POSIX has it."""


@dataclass(frozen=True, slots=True)
class Customs:
    """How a document writes: its decimal mark, empty where it does not tell, and whether the day comes before the month
    in dates with slashes, None where it does not tell."""

    decimal: str = ""
    day_first: bool | None = None


def customs_of(texts: Iterable[str]) -> Customs:
    """What the numbers and dates of the texts that can be read in one way only tell."""
    marks = {".": 0, ",": 0}
    first = second = 0
    for text in texts:
        for match in _TWO_DECIMALS.finditer(text):
            marks[match[1]] += 1
        for match in _NUMERIC_DATE.finditer(text):
            first += match[2] != "." and int(match[1]) > 12
            second += match[2] != "." and int(match[3]) > 12
    decimal = "" if marks["."] == marks[","] else max(marks, key=lambda mark: marks[mark])
    return Customs(decimal, None if bool(first) == bool(second) else bool(first))


def number_of(text: str, customs: Customs) -> Decimal | None:
    """The one number in the text, beside which there may be a currency or a unit; None where there is none, are
    several, or it is scaled by a word such as million."""
    plain = unicodedata.normalize("NFKC", text[: MAX_CHARS + 1]).strip()
    cores = list(_CORE.finditer(plain))
    if len(plain) > MAX_CHARS or len(cores) != 1 or _SCALES.search(plain):
        return None
    core = cores[0]
    before, after = plain[: core.start()], plain[core.end() :]
    if before[-1:].isalnum() or (before[-1:] and before[-1] in _MINUS and before[-2:-1].isalnum()):
        return None  # part of a name, such as A4 or RE-5
    value = _decimal(core[0], customs)
    if value is None:
        return None
    return -value if _is_negative(before, after) else value


def numbers_in(text: str, customs: Customs) -> Iterator[Decimal]:
    """Every number of the text, without its sign."""
    for core in _CORE.finditer(unicodedata.normalize("NFKC", text)):
        value = _decimal(core[0], customs)
        if value is not None:
            yield value


def date_of(text: str, customs: Customs) -> str | None:
    """The one date in the text as YYYY-MM-DD; None where there is none, are several, or it may be two."""
    if len(text) > MAX_CHARS:
        return None
    found = set(dates_in(text, customs))
    return found.pop() if len(found) == 1 else None


def dates_in(text: str, customs: Customs) -> Iterator[str]:
    """Every date of the text that can be read in one way."""
    for match in _YEAR_FIRST.finditer(text):
        yield from _iso(match[1], match[3], match[4])
    for match in _EAST_ASIAN.finditer(text):
        yield from _iso(match[1], match[2], match[3])
    for match in _NUMERIC_DATE.finditer(text):
        day_first = _day_first(int(match[1]), match[2], int(match[3]), customs)
        if day_first is not None:
            day, month = (match[1], match[3]) if day_first else (match[3], match[1])
            yield from _iso(match[4], month, day)
    for match in _DAY_NAMED.finditer(text):
        if month_number := _month(match[2]):
            yield from _iso(match[3], month_number, match[1])
    for match in _NAMED_DAY.finditer(text):
        if month_number := _month(match[1]):
            yield from _iso(match[3], month_number, match[2])


def _day_first(first: int, mark: str, second: int, customs: Customs) -> bool | None:
    if mark == "." or first == second or first > 12:
        return True
    return False if second > 12 else customs.day_first


def _is_negative(before: str, after: str) -> bool:
    """Whether a minus stands close before the digits, at the very beginning or close behind; or brackets around all."""
    if before and (before[-1] in _MINUS or before[0] in _MINUS):
        return True
    return (before.startswith("(") and after.endswith(")")) or (after != "" and after.strip() in tuple(_MINUS))


def _decimal(core: str, customs: Customs) -> Decimal | None:
    if sum(char.isdigit() for char in core) > MAX_DIGITS:
        return None
    digits = "".join(char for char in core if char not in _GAPS + _TICKS)
    if digits != core and not _grouped(core):
        return None
    points, commas = digits.count("."), digits.count(",")
    if points and commas:
        mark = max(".,", key=digits.rfind)
        whole, _, rest = digits.rpartition(mark)
        if mark in whole or not _in_threes(whole, "," if mark == "." else "."):
            return None
        return _joined(whole, rest)
    if not points and not commas:
        return _joined(digits, "")
    mark = "." if points else ","
    whole, _, rest = digits.rpartition(mark)
    if points + commas > 1:
        return _joined(digits, "") if _in_threes(digits, mark) else None
    if len(rest) == 3 and digits == core and 1 <= len(whole) <= 3 and whole != "0":
        # 1.234 and 1,234: thousands or thousandths, as the document has it elsewhere, else as English has it.
        is_decimal = customs.decimal == mark if customs.decimal else mark == "."
        return _joined(whole, rest) if is_decimal else _joined(digits, "")
    return _joined(whole, rest)


def _grouped(core: str) -> bool:
    """Whether spaces and ticks stand where thousands are parted."""
    whole = re.split(r"[.,]", core)[0]
    groups = re.split(rf"[{_GAPS}{_TICKS}]", whole)
    others = core[len(whole) :]
    return 1 <= len(groups[0]) <= 3 and all(len(g) == 3 for g in groups[1:]) and not set(others) & set(_GAPS + _TICKS)


def _in_threes(whole: str, mark: str) -> bool:
    first, *groups = whole.split(mark)
    return 1 <= len(first) <= 3 and all(len(group) == 3 for group in groups)


def _joined(whole: str, rest: str) -> Decimal:
    digits = "".join(char for char in whole if char.isdigit()) or "0"
    return Decimal(f"{digits}.{rest}" if rest else digits)


def _iso(year: str, month: str | int, day: str) -> Iterator[str]:
    number = int(year)
    if len(year) == 2:
        number += 2000 if number < _PIVOT else 1900
    try:
        yield date(number, int(month), int(day)).isoformat()
    except ValueError:
        return


def _month(word: str) -> int:
    """The month's number; 0 for no month."""
    return _MONTH_NUMBERS.get(_bare(word), 0)


def _bare(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", word.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _month_numbers() -> dict[str, int]:
    """Names and their beginnings of three letters and more, but for those that two months share."""
    numbers: dict[str, set[int]] = {}
    for number, names in enumerate(_MONTHS, start=1):
        for name in map(_bare, names.split()):
            for size in range(3, len(name) + 1):
                numbers.setdefault(name[:size], set()).add(number)
    return {name: months.copy().pop() for name, months in numbers.items() if len(months) == 1}


_MONTH_NUMBERS = _month_numbers()
