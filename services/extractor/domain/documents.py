"""Documents as values, and the place in a list of them."""

import base64
import binascii
import datetime as dt
import re
import struct
from dataclasses import dataclass

from services.extractor.domain.media import MediaType
from services.extractor.domain.retention import FOR_EVER, Term
from services.runtime.errors import FieldViolation, InvalidArgument, NotFound

ID_HEX_DIGITS = 32
"""A document's id is so many digits of its SHA-256: 128 bits, beyond collision by search within a tenant."""

_ID = re.compile(r"^[0-9a-f]{32}$")
_CURSOR = struct.Struct(">q16s")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes of one tenant. `page_count` is None until they were first extracted; `create_time` is in UTC."""

    tenant: str
    sha256: str
    display_name: str
    media_type: MediaType
    size_bytes: int
    create_time: dt.datetime
    page_count: int | None = None
    term: Term = FOR_EVER
    searchable_pages: int = 0

    @property
    def id(self) -> str:
        """The bare id, the first 32 hexadecimal digits of the SHA-256."""
        return self.sha256[:ID_HEX_DIGITS]

    @property
    def name(self) -> str:
        """Resource name, `documents/{id}`."""
        return f"documents/{self.id}"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What an upload led to. `created` is False where the tenant had the bytes already."""

    document: Document
    created: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last entry of one part of a list, newest first; the next part begins behind it."""

    create_time: dt.datetime
    id: str

    def token(self) -> str:
        """An opaque page token. It stays valid whatever is added or deleted."""
        micros = (self.create_time - _EPOCH) // _MICROSECOND
        return base64.urlsafe_b64encode(_CURSOR.pack(micros, bytes.fromhex(self.id))).decode()

    @classmethod
    def parse(cls, token: str) -> "Cursor":
        """The cursor in `token`. Raises InvalidArgument INVALID_PAGE_TOKEN."""
        try:
            micros, digest = _CURSOR.unpack(base64.b64decode(token, altchars=b"-_", validate=True))
            if micros < 0:
                raise ValueError("before there were documents")
            return cls(_EPOCH + micros * _MICROSECOND, digest.hex())
        except (binascii.Error, struct.error, ValueError, OverflowError) as exc:
            message = "The page token is not one that this list gave. Begin the list again without it."
            raise InvalidArgument(
                "INVALID_PAGE_TOKEN", message, fields=[FieldViolation("page_token", message)]
            ) from exc


def document_id(name: str) -> str:
    """The bare id in `documents/{id}`. Raises NotFound for anything else."""
    collection, _, bare = name.partition("/")
    if collection != "documents" or not _ID.match(bare):
        raise not_found(name)
    return bare


def not_found(name: str) -> NotFound:
    """The one answer for what never was, what is gone and what is somebody else's."""
    return NotFound("DOCUMENT_NOT_FOUND", f"There is no document {name[:80]}.")
