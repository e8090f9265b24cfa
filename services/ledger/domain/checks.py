"""Bounds that the contract cannot say: what the ledger is able to keep."""

import unicodedata
from datetime import UTC, datetime

from services.runtime.errors import FieldViolation, InvalidArgument

_FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_TIME = datetime(9999, 1, 1, tzinfo=UTC)
_MOST_NAME = 100
# Control characters, lone surrogates, and separators of lines and paragraphs.
_NO_NAME_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the direction of what is written after them: a name could change how the page around it reads."""


def check_text(text: str, path: str) -> None:
    """Raises InvalidArgument for a text with NUL, the one character that Postgres keeps in no text."""
    if "\0" in text:
        raise invalid_field(path, "must not contain the character NUL")


def check_name(name: str, path: str) -> None:
    """Raises InvalidArgument for what cannot be shown as a name in one line: it must have 1 to 100 characters, not only
    spaces, none that control or turn the line. Everything else is data, whatever its script."""
    if not name.strip() or len(name) > _MOST_NAME:
        raise invalid_field(path, f"must have 1 to {_MOST_NAME} characters, and not only spaces")
    if any(c in _TURNING or unicodedata.category(c) in _NO_NAME_CATEGORIES for c in name):
        raise invalid_field(path, "must have no characters that control or turn the line")


def check_time(time: datetime, path: str) -> None:
    """Raises InvalidArgument for a time that cannot be shown in every time zone."""
    if not _FIRST_TIME <= time < _LAST_TIME:
        raise invalid_field(path, "must be between the years 1970 and 9998")


def invalid_field(path: str, description: str, *, reason: str = "INVALID_FIELD") -> InvalidArgument:
    """The refusal of one field of the request."""
    return InvalidArgument(reason, f"{path}: {description}", fields=[FieldViolation(path, description)])
