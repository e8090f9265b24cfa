"""Telephone numbers, by the rules that the `phonenumbers` library has of each country.

Looked at are numbers that are written like one: with a plus, with a leading zero, as in North America, or after a word
such as Tel. Others of the same digits are left, since a sum or an order number may be valid somewhere.
"""

import re
from collections.abc import Iterator, Sequence

from services.summarizer.domain.personal_numbers import Span

MAX_CHECKED = 2_000
"""So many different numbers of one text are checked, at 0.1 ms for each country; what is written like one counts from
there on."""

_TRUNK = ("DE", "AT", "CH", "FR", "GB", "IT", "NL", "BE", "IE", "SE", "FI")
"""Countries whose numbers begin with a zero within them, or with two abroad."""
_AMERICA = ("US", "CA")
_ALL = (*_TRUNK, "ES", "PT", "PL", "CZ", "DK", "NO", "LU", "GR", *_AMERICA)

_REST = r"(?:[ \n().\-/]{0,3}+\d){5,14}+"
_FORMS: tuple[tuple[re.Pattern[str], Sequence[str]], ...] = (
    (re.compile(rf"(?<![\w+])(\+[ ]?\(?\d{_REST})"), ("ZZ",)),
    (re.compile(rf"(?<![\w.,/+-])(\(?0{_REST})"), _TRUNK),
    (re.compile(r"(?<![\w.,/+-])((?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?!\w|[.,-]\d)"), _AMERICA),
    (
        re.compile(
            r"(?<!\w)(?:[Tt]el|TEL|[Pp]hone|PHONE|[Mm]ob|MOB|[Cc]ell|[Hh]andy|[Ff]ax|FAX|[Tt]\u00e9l|[Ff]on|[Gg][Ss][Mm])"
            rf"\w{{0,9}}+\.?[ :.\n]{{0,4}}+(?:(?:[Nn]o|[Nn]r|[Nn]umber)[ .:]{{0,3}}+)?(\(?\d{_REST})"
        ),
        _ALL,
    ),
)
_DATE = re.compile(r"\(?\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d{2})(?!\d)|\d{4}-\d{2}-\d{2}(?!\d)")
_GROUP_END = re.compile(r"\d(?!\d)")
_MOST_GROUPS = 6
_LEAST_DIGITS = 6


class Phones:
    """Finds numbers; counts those that it checked."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Sequence[str]], bool] = {}

    def find(self, text: str) -> Iterator[Span]:
        """Where numbers stand. Digits that do not belong to a number any more are left out, group by group."""
        for form, countries in _FORMS:
            for found in form.finditer(text):
                start = found.start(1)
                if _DATE.match(text, start):
                    continue
                for end in _ends(text, start, found.end(1)):
                    if self._is_number(text[start:end], countries):
                        yield start, end
                        break

    def _is_number(self, written: str, countries: Sequence[str]) -> bool:
        key = ("".join(char for char in written if char in "+0123456789"), countries)
        if len(key[0]) < _LEAST_DIGITS:
            return False
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MAX_CHECKED:
                return True
            known = self._known[key] = _is_valid(key[0], countries)
        return known


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    """Where the number may end: at the end of each group of digits, the last first."""
    ends = [
        found.end()
        for found in _GROUP_END.finditer(text, start, end)
        if not text[found.end() : found.end() + 1].isalnum()
    ]
    yield from reversed(ends[-_MOST_GROUPS:])


def _is_valid(digits: str, countries: Sequence[str]) -> bool:
    # It takes a quarter of a second to load, and most deployments never need it.
    import phonenumbers  # noqa: PLC0415

    tried = [digits]
    if digits.startswith("00"):
        tried.append("+" + digits[2:])
    if digits.startswith("+"):
        # +49 (0)30 … is how many write it.
        tried.append(re.sub(r"^(\+\d{2})0", r"\1", digits))
    for one in tried:
        for country in ("ZZ",) if one.startswith("+") else countries:
            try:
                if phonenumbers.is_valid_number(phonenumbers.parse(one, country)):
                    return True
            except phonenumbers.NumberParseException:
                continue
    return False
