"""Values as the schema wants them: types, dates, amounts, currencies, choices. Rules only; nothing is guessed.

A value that no rule fits stays as it is, and the schema's validator says what is wrong with it.
"""

import unicodedata
from collections.abc import Sequence
from decimal import Decimal

from services.summarizer.domain.fields_values import LARGEST_INTEGER, Target
from services.summarizer.domain.folding import fold
from services.summarizer.domain.found_field import Scalar
from services.summarizer.domain.numbers_dates import Customs, date_of, dates_in, number_of, numbers_in

_TRUE = frozenset(
    ["yes", "true", "y", "ja", "wahr", "oui", "vrai", "sí", "si", "sì", "sim", "x", "✓", "✔", "☑", "☒", "[x]", "1"]
)
_FALSE = frozenset(["no", "false", "n", "nein", "falsch", "non", "faux", "não", "nee", "☐", "[ ]", "[]", "0"])
_CURRENCIES = {
    "€": "EUR", "euro": "EUR", "euros": "EUR", "$": "USD", "us$": "USD", "dollar": "USD", "dollars": "USD", "£": "GBP",
    "¥": "JPY", "fr.": "CHF", "sfr.": "CHF", "sfr": "CHF", "₹": "INR", "zł": "PLN", "kč": "CZK", "₩": "KRW", "₺": "TRY",
    "₴": "UAH", "₪": "ILS", "a$": "AUD", "c$": "CAD", "r$": "BRL",
}  # fmt: skip
_MONEY_WORDS = ("currency", "wahrung", "devise", "moneda", "valuta", "moeda")
MAX_TEXT_CHARS = 10_000


def normalise(value: Scalar, target: Target, customs: Customs) -> Scalar:
    """The value in the type and form that the schema gives for it, where a rule leads there."""
    if isinstance(value, str):
        return _of_text(" ".join(value.split())[:MAX_TEXT_CHARS], target, customs)
    if isinstance(value, bool) or value is None:
        return _said(value) if value is not None and target.kinds == {"string"} else value
    return _of_number(value, target)


def occurs(value: Scalar, target: Target, quote: str, customs: Customs) -> bool:
    """Whether the quote holds the value itself, in whatever form it is written."""
    if isinstance(value, bool) or value is None:
        return False
    if isinstance(value, int | float):
        return any(number == abs(Decimal(repr(value))) for number in numbers_in(quote, customs))
    if target.format == "date" and value in dates_in(quote, customs):
        return True
    if _is_currency(target) and any(code == value for sign, code in _CURRENCIES.items() if sign in quote.casefold()):
        return True
    folded = _folded(value)
    return bool(folded) and folded in _folded(quote)


def _of_text(text: str, target: Target, customs: Customs) -> Scalar:
    if (choice := _choice(text, target.options)) is not None:
        return choice
    if "string" not in target.kinds and target.kinds:
        if target.kinds & {"number", "integer"} and (number := number_of(text, customs)) is not None:
            return _plain(number)
        if "boolean" in target.kinds:
            word = text.casefold()
            return True if word in _TRUE else False if word in _FALSE else text
        return text
    if target.format == "date":
        return date_of(text, customs) or text
    if _is_currency(target):
        return _CURRENCIES.get(text.casefold(), text.upper() if len(text) == 3 and text.isalpha() else text)
    return text


def _choice(text: str, options: Sequence[str]) -> str | None:
    """The option that the text is: itself, or one that has the same letters and digits."""
    if text in options:
        return text
    bare = _letters(text)
    return next((option for option in options if bare and _letters(option) == bare), None)


def _letters(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if char.isalnum())


def _of_number(value: int | float, target: Target) -> Scalar:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if abs(value) > LARGEST_INTEGER or target.kinds == {"string"}:
        return _said(value)
    return value


def _plain(number: Decimal) -> Scalar:
    if number == number.to_integral_value():
        return int(number) if abs(number) <= LARGEST_INTEGER else str(number)
    return float(number)


def _said(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)


def _is_currency(target: Target) -> bool:
    said = _letters(f"{target.name} {target.title}")
    return any(word in said for word in _MONEY_WORDS)


def _folded(text: str) -> str:
    return "".join(fold(word) for word in text.split())
