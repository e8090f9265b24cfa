"""Page tokens: opaque to callers, bound to the selection that they were made for."""

import base64
import binascii
import hashlib
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.ledger.domain.checks import invalid_field
from services.ledger.domain.values import Cursor, UsageRecord
from services.runtime.errors import InvalidArgument

_FORM = struct.Struct(">8sq16s")
"""Digest of the selection, microseconds since 1970, event id."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def cursor_of(record: UsageRecord) -> Cursor:
    """The place of a record in the list."""
    return Cursor(record.event.occur_time, record.event.event_id)


def encode(cursor: Cursor, selection: object) -> str:
    """The token that asks for what follows `cursor`, 43 characters of base64url."""
    micros = (cursor.occur_time - _EPOCH) // _MICROSECOND
    packed = _FORM.pack(_digest(selection), micros, cursor.event_id.bytes)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode(token: str, selection: object) -> Cursor:
    """The cursor within a token. Raises InvalidArgument INVALID_PAGE_TOKEN where it is not one of this selection."""
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        digest, micros, event_id = _FORM.unpack(packed)
        occur_time = _EPOCH + timedelta(microseconds=micros)
    except (binascii.Error, ValueError, struct.error, OverflowError) as exc:
        raise _invalid() from exc
    if digest != _digest(selection):
        raise _invalid()
    return Cursor(occur_time, UUID(bytes=event_id))


def encode_text(after: str, listed: str) -> str:
    """The token that asks for what follows the id `after` in the list that `listed` describes."""
    return base64.urlsafe_b64encode(_digest(listed) + after.encode()).rstrip(b"=").decode()


def decode_text(token: str, listed: str) -> str:
    """The id within a token. Raises InvalidArgument INVALID_PAGE_TOKEN where it is not one of this list."""
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = packed[8:].decode()
    except (binascii.Error, ValueError) as exc:
        raise _invalid() from exc
    if packed[:8] != _digest(listed) or "\0" in after:
        raise _invalid()
    return after


def _digest(selection: object) -> bytes:
    return hashlib.sha256(repr(selection).encode()).digest()[:8]


def _invalid() -> InvalidArgument:
    return invalid_field(
        "page_token", "must be the next_page_token of an answer to the same selection", reason="INVALID_PAGE_TOKEN"
    )
