"""What the service and its parser processes say to each other, over one Unix socket for each process.

Orders to a process are records of one size; answers are frames with a length. Nothing is pickled and nothing is
text that the file could choose, so a process that a file has taken over can send wrong pages and no more than that.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import NamedTuple

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Largest page on the wire. JSON writes a control character as six, and the edge sends messages of at most 32 MiB:
four times six is 24, and the rest is for quotes and names."""
MAX_INFO_BYTES = 2 * 1024 * 1024
"""Most that is said of a document as a whole: its metadata and its outline."""
MAX_PASSWORD_CHARS = 127
MAX_PICTURE_BYTES = 24 * 1024 * 1024
"""Largest picture: 16 MiB are a gray one of 4096 by 4096 pixels."""
CREDITS = 16
"""How many pages a process may be ahead of who reads them."""
CREDITS_AT_ONCE = 8
"""How many are given back together: fewer messages, and the process still never runs dry."""

LIFETIME_CPU_S = 3600
"""What the kernel lets a process compute in all, should the service not be there to end it. A slice of 200 pages of 5 s
takes less than a third of it, and at half of it a process is replaced."""


class OrderKind(IntEnum):
    """What an order means. A credit lets the process send `count` more pages of the task with that id; a stop has it
    end that task after the page that it is at, or the first one."""

    PARSE = 1
    CREDIT = 2
    STOP = 3
    PICTURE = 4
    """See picture_protocol.py."""


class Format(IntEnum):
    """Which of MuPDF's readers is to open the file."""

    PDF = 1
    JPEG = 2
    PNG = 3


class PartBit(IntFlag):
    """Parts of a page, as bits."""

    TEXT = 1
    BLOCKS = 2
    WORDS = 4
    MARKDOWN = 8
    TABLES = 16
    IMAGES = 32
    LINKS = 64
    FLAGS = 128
    METADATA = 256
    """Of the document."""
    OUTLINE = 512
    """Of the document."""


class AnswerKind(IntEnum):
    """What a frame carries."""

    OPENED = 1
    PAGE = 2
    PAGE_FAILED = 3
    REFUSED = 4
    DONE = 5
    READY = 6
    PICTURE = 7
    NO_PICTURE = 8


class FlagBit(IntFlag):
    """What is known of an opened document."""

    REPAIRED = 1
    ENCRYPTED = 2


class Fault(IntEnum):
    """Why a page or a document was not read."""

    CORRUPT = 1
    MEMORY = 2
    ENCRYPTED = 3
    NO_PAGES = 4
    WRONG_PASSWORD = 5
    TOO_MANY_PIXELS = 6


@dataclass(frozen=True, slots=True)
class Order:
    """One record to a process; a PARSE order travels with the file's descriptor, and its password comes right behind.
    `count` is a credit's. An image of more than `max_pixels` is refused."""

    kind: OrderKind
    task: int
    format: int = 0
    parts: int = 0
    first_page: int = 0
    last_page: int = 0
    count: int = 0
    max_pixels: int = 0
    password_bytes: int = field(default=0, repr=False)
    """How many bytes of a password follow."""

    _RECORD = struct.Struct("<BBHBxHIIIQ")
    SIZE = _RECORD.size

    def pack(self) -> bytes:
        """SIZE bytes."""
        return self._RECORD.pack(
            self.kind,
            self.format,
            self.parts,
            self.count,
            self.password_bytes,
            self.task,
            self.first_page,
            self.last_page,
            self.max_pixels,
        )

    @classmethod
    def unpack(cls, record: bytes) -> "Order":
        """The order in SIZE bytes. Raises struct.error or ValueError."""
        kind, file_format, parts, count, password_bytes, task, first, last, max_pixels = cls._RECORD.unpack(record)
        return cls(OrderKind(kind), task, file_format, parts, first, last, count, max_pixels, password_bytes)


_HEAD = struct.Struct("<IB")
_OPENED = struct.Struct("<QB")
_NUMBER = struct.Struct("<I")
_NUMBER_FAULT = struct.Struct("<IB")
_MAX_PAYLOAD = _NUMBER.size + MAX_PAGE_BYTES
_MAX_PICTURE_PAYLOAD = 16 + MAX_PICTURE_BYTES


class Answer(NamedTuple):
    """One frame from a process. `number` is a page, or for OPENED how many there are."""

    kind: AnswerKind
    number: int = 0
    code: int = 0
    content: bytes = b""


class ProtocolError(Exception):
    """A process sent what no parser of ours sends."""


def ready(*, sandboxed: bool) -> bytes:
    """The frame that a process sends before its first task."""
    return _frame(AnswerKind.READY, bytes([sandboxed]))


def opened(page_count: int, flags: int, info: bytes = b"") -> bytes:
    """The frame that begins a task, with at most MAX_INFO_BYTES of `info`."""
    return _frame(AnswerKind.OPENED, _OPENED.pack(page_count, flags) + info)


def page(number: int, content: bytes) -> bytes:
    """The frame for a page, at most MAX_PAGE_BYTES of content."""
    return _frame(AnswerKind.PAGE, _NUMBER.pack(number) + content)


def page_failed(number: int, fault: Fault) -> bytes:
    """The frame for a page that can not be read by a process that lives on."""
    return _frame(AnswerKind.PAGE_FAILED, _NUMBER_FAULT.pack(number, fault))


def refused(fault: Fault) -> bytes:
    """The frame that ends a task before its first page."""
    return _frame(AnswerKind.REFUSED, bytes([fault]))


def done() -> bytes:
    """The frame that ends a task."""
    return _frame(AnswerKind.DONE, b"")


def frame_head(kind: AnswerKind, length: int) -> bytes:
    """What comes before a frame's `length` bytes."""
    return _HEAD.pack(length, kind)


def _frame(kind: AnswerKind, payload: bytes) -> bytes:
    return frame_head(kind, len(payload)) + payload


class AnswerReader:
    """Cuts what arrives into answers."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.takes_picture = False
        """Whether a frame may be as long as a picture."""

    @property
    def unfinished(self) -> bool:
        """Whether an answer has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes | memoryview) -> Iterator[Answer]:
        """The answers that are complete now. Raises ProtocolError."""
        self._buffer += data
        begin = 0
        try:
            while len(self._buffer) - begin >= _HEAD.size:
                length, kind = _HEAD.unpack_from(self._buffer, begin)
                if length > (_MAX_PICTURE_PAYLOAD if self.takes_picture else _MAX_PAYLOAD):
                    raise ProtocolError("a frame is too long")
                end = begin + _HEAD.size + length
                if len(self._buffer) < end:
                    break
                with memoryview(self._buffer) as view:
                    payload = bytes(view[begin + _HEAD.size : end])
                begin = end
                yield _answer(kind, payload)
        finally:
            del self._buffer[:begin]


def _answer(kind: int, payload: bytes) -> Answer:
    try:
        if kind == AnswerKind.PAGE:
            return Answer(AnswerKind.PAGE, _NUMBER.unpack_from(payload)[0], content=payload[_NUMBER.size :])
        if kind == AnswerKind.OPENED:
            if len(payload) > _OPENED.size + MAX_INFO_BYTES:
                raise ProtocolError("a document says too much of itself")
            page_count, flags = _OPENED.unpack_from(payload)
            return Answer(AnswerKind.OPENED, page_count, flags, payload[_OPENED.size :])
        if kind == AnswerKind.PAGE_FAILED:
            return Answer(AnswerKind.PAGE_FAILED, *_NUMBER_FAULT.unpack(payload))
        if kind in (AnswerKind.REFUSED, AnswerKind.READY):
            (code,) = payload
            return Answer(AnswerKind(kind), code=code)
        if kind in (AnswerKind.PICTURE, AnswerKind.NO_PICTURE):
            return Answer(AnswerKind(kind), content=payload)
        if payload:
            raise ProtocolError("a frame has a payload where none belongs")
        return Answer(AnswerKind(kind))
    except (struct.error, ValueError) as exc:
        raise ProtocolError("a frame is malformed") from exc
