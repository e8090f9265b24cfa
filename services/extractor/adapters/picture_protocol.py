"""What the service and its parser processes say to each other about one picture.

An order of the kind PICTURE, with the page as its first and last, is followed by one record of PictureOrder's size. The
process refuses the document, or answers OPENED, then PICTURE, PAGE_FAILED or NO_PICTURE, then DONE.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from services.extractor.adapters.parser_protocol import MAX_PICTURE_BYTES, AnswerKind, frame_head

MAX_SIDE_PX = 16_384
"""Longest side that an order can ask for."""
NO_INDEX = 0xFFFFFFFF
_MAX_PASSWORD_BYTES = 508
"""127 characters of at most four bytes."""


class PictureCode(IntEnum):
    """How a picture is written down."""

    JPEG = 1
    PNG = 2
    GRAY = 3


class Missing(IntEnum):
    """Why there is no picture, although nothing is wrong with the file."""

    PAGE_OUT_OF_RANGE = 1
    IMAGE_OUT_OF_RANGE = 2
    TOO_LARGE = 3


@dataclass(frozen=True, slots=True)
class PictureOrder:
    """What to draw, or with an `index` other than NO_INDEX what to take out. Images of more than `max_pixels` are not
    decoded."""

    format: PictureCode
    dpi: int
    max_side_px: int
    jpeg_quality: int
    max_pixels: int
    index: int = NO_INDEX
    password: str = field(default="", repr=False)

    _RECORD = struct.Struct(f"<BBHHIQH{_MAX_PASSWORD_BYTES}s")
    SIZE = _RECORD.size

    def pack(self) -> bytes:
        """SIZE bytes. Raises ValueError where the password is too long."""
        password = self.password.encode()
        if len(password) > _MAX_PASSWORD_BYTES:
            raise ValueError("the password is too long")
        return self._RECORD.pack(
            self.format,
            self.jpeg_quality,
            self.dpi,
            self.max_side_px,
            self.index,
            self.max_pixels,
            len(password),
            password,
        )

    @classmethod
    def unpack(cls, record: bytes) -> "PictureOrder":
        """The order in SIZE bytes. Raises struct.error or ValueError."""
        code, quality, dpi, max_side_px, index, max_pixels, length, password = cls._RECORD.unpack(record)
        return cls(PictureCode(code), dpi, max_side_px, quality, max_pixels, index, password[:length].decode())


@dataclass(frozen=True, slots=True)
class PictureAnswer:
    """A picture as a process sends it: `content` at most MAX_PICTURE_BYTES."""

    format: PictureCode
    width_px: int
    height_px: int
    content: bytes

    _RECORD = struct.Struct("<BII")

    def frame(self) -> tuple[bytes, bytes]:
        """The frame's beginning and the rest, which is not copied."""
        head = self._RECORD.pack(self.format, self.width_px, self.height_px)
        return frame_head(AnswerKind.PICTURE, len(head) + len(self.content)) + head, self.content

    @classmethod
    def unpack(cls, payload: bytes) -> "PictureAnswer":
        """What a frame carries. Raises ValueError where it is not what it says."""
        try:
            code, width_px, height_px = cls._RECORD.unpack_from(payload)
        except struct.error as exc:
            raise ValueError("a picture without a size") from exc
        answer = cls(PictureCode(code), width_px, height_px, payload[cls._RECORD.size :])
        answer._check()
        return answer

    def _check(self) -> None:
        if not (self.width_px and self.height_px) or len(self.content) > MAX_PICTURE_BYTES:
            raise ValueError("a picture of no size, or of too much")
        if self.format is PictureCode.GRAY:
            as_it_says = len(self.content) == self.width_px * self.height_px
        else:
            as_it_says = self.content.startswith(_MAGIC[self.format])
        if not as_it_says:
            raise ValueError("not the picture that it says")


_MAGIC = {PictureCode.JPEG: b"\xff\xd8\xff", PictureCode.PNG: b"\x89PNG\r\n\x1a\n"}
_NO_PICTURE = struct.Struct("<BI")


def no_picture(why: Missing, count: int) -> bytes:
    """The frame for a picture that there is not; `count` is how many pages or images there are."""
    return frame_head(AnswerKind.NO_PICTURE, _NO_PICTURE.size) + _NO_PICTURE.pack(why, count)


def why_no_picture(payload: bytes) -> tuple[Missing, int]:
    """What such a frame carries. Raises ValueError."""
    try:
        why, count = _NO_PICTURE.unpack(payload)
    except struct.error as exc:
        raise ValueError("no picture for no reason") from exc
    return Missing(why), count
