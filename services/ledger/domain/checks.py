"""Bounds that the contract cannot say: what the ledger is able to keep."""

from datetime import UTC, datetime

from services.runtime.errors import FieldViolation, InvalidArgument

_FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_TIME = datetime(9999, 1, 1, tzinfo=UTC)


def check_text(text: str, path: str) -> None:
    """Raises InvalidArgument for a text with NUL, the one character that Postgres keeps in no text."""
    if "\0" in text:
        raise invalid_field(path, "must not contain the character NUL")


def check_time(time: datetime, path: str) -> None:
    """Raises InvalidArgument for a time that cannot be shown in every time zone."""
    if not _FIRST_TIME <= time < _LAST_TIME:
        raise invalid_field(path, "must be between the years 1970 and 9998")


def invalid_field(path: str, description: str, *, reason: str = "INVALID_FIELD") -> InvalidArgument:
    """The refusal of one field of the request."""
    return InvalidArgument(reason, f"{path}: {description}", fields=[FieldViolation(path, description)])
