"""Lists in parts: the size of a part, and tokens that are opaque to callers and bound to their list."""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.ledger.domain.checks import invalid_field
from services.runtime.errors import InvalidArgument

DEFAULT_SIZE = 50
_DIGEST_BYTES = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One part of a list; `next_page_token` is empty at its end."""

    items: Sequence[T]
    next_page_token: str


async def part_of(
    list_name: str,
    page_size: int,
    page_token: str,
    *,
    read: Callable[[str, int], Awaitable[Sequence[T]]],
    place: Callable[[T], str],
) -> Part[T]:
    """A part of the list of that name, which is any text that tells its owner and its order.

    `read(after, limit)` answers up to `limit` items behind the place `after`, or the first where that is empty;
    `place` tells that of an item, so that parts stay stable whatever is added. Raises InvalidArgument
    INVALID_PAGE_TOKEN.
    """
    size = page_size or DEFAULT_SIZE
    after = _decode(page_token, list_name) if page_token else ""
    found = await read(after, size + 1)
    items = found[:size]
    return Part(items, _encode(place(items[-1]), list_name) if len(found) > size else "")


def _encode(place: str, list_name: str) -> str:
    return base64.urlsafe_b64encode(_digest(list_name) + place.encode()).rstrip(b"=").decode()


def _decode(token: str, list_name: str) -> str:
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        place = packed[_DIGEST_BYTES:].decode()
    except (binascii.Error, ValueError) as exc:
        raise invalid_token() from exc
    if packed[:_DIGEST_BYTES] != _digest(list_name) or not place or "\0" in place:
        raise invalid_token()
    return place


def _digest(list_name: str) -> bytes:
    return hashlib.sha256(list_name.encode()).digest()[:_DIGEST_BYTES]


def invalid_token() -> InvalidArgument:
    """The refusal of a token that is not one of the list."""
    return invalid_field(
        "page_token", "must be the next_page_token of an answer to this list", reason="INVALID_PAGE_TOKEN"
    )
