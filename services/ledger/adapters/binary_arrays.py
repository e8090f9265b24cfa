"""Arrays in the form that Postgres reads them in, put together in one go: psycopg's own way asks each element for its
type, which is most of what a batch of records costs."""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from services.ledger.domain.usage_batch import micros_of

_HEAD = struct.Struct(">iiIii")
"""Dimensions, whether there are nulls, type of the elements, length, and the number of the first one."""
_UUID_SIZE = struct.pack(">i", 16)
_BEGIN_MICROS = micros_of(datetime(2000, 1, 1, tzinfo=UTC))
"""Postgres counts from there."""


class TextArray(bytes):
    """text[]"""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "TextArray":
        """Columns repeat themselves: each text is put into its form once."""
        forms = {}
        for text in set(texts):
            data = text.encode()
            forms[text] = len(data).to_bytes(4, "big") + data
        return cls(_head("text", len(texts)) + b"".join(map(forms.__getitem__, texts)))


class UuidArray(bytes):
    """uuid[]"""

    @classmethod
    def of(cls, ids: Sequence[bytes]) -> "UuidArray":
        """Of 16 bytes each."""
        return cls(_head("uuid", len(ids)) + b"".join([_UUID_SIZE + each for each in ids]))


class BigintArray(bytes):
    """bigint[]"""

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "BigintArray":
        return cls(_head("int8", len(numbers)) + _eights(numbers))


class TimeArray(bytes):
    """timestamptz[]"""

    @classmethod
    def of(cls, micros: Sequence[int]) -> "TimeArray":
        """Of microseconds since 1970."""
        return cls(_head("timestamptz", len(micros)) + _eights([each - _BEGIN_MICROS for each in micros]))


def _eights(numbers: Sequence[int]) -> bytes:
    interleaved = [8] * (2 * len(numbers))
    interleaved[1::2] = numbers
    return struct.pack(">" + "iq" * len(numbers), *interleaved)


def _head(element: str, length: int) -> bytes:
    return _HEAD.pack(1, 0, psycopg.adapters.types[element].oid, length, 1)


class _AsItIs(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> Buffer:
        return obj


def _dumper_of(element: str) -> type[Dumper]:
    return type(f"{element}ArrayDumper", (_AsItIs,), {"oid": psycopg.adapters.types[element].array_oid})


def _register(kinds: Iterable[tuple[type, str]]) -> None:
    for kind, element in kinds:
        psycopg.adapters.register_dumper(kind, _dumper_of(element))


_register([(TextArray, "text"), (UuidArray, "uuid"), (BigintArray, "int8"), (TimeArray, "timestamptz")])
