"""What the service and a process that reads pictures say to each other, over one Unix socket.

The process says READY and takes one picture: a record and its pixels, one byte each. It answers with one frame of lines
and ends. Nothing is pickled, so a process that a picture has taken over can send wrong text and no more than that.
"""

import math
import struct

from services.extractor.adapters.page_bounds import MAX_WORDS
from services.extractor.domain.recognised import Corners, LineWord, Reading, TextLine

MAX_SIDE_PX = 4096
MAX_LINES = 2_000
MAX_ANSWER_BYTES = 400 * 1024
"""A page holds its text in four places and has a bound of its own; a dense one has 50 KB of it."""

READY = struct.Struct("<B")
"""Whether the process has given up its system calls."""
PICTURE = struct.Struct("<IIf")
"""Width and height in pixels, and the seconds of computing after which the process answers with what it has."""
ANSWER = struct.Struct("<IIB")
"""Bytes that follow, lines in them, and whether these are all lines of the picture."""
_LINE = struct.Struct("<9fH")
_WORD = struct.Struct("<2fH")


class ProtocolError(Exception):
    """A process sent what no reader of ours sends."""


def answer(reading: Reading) -> bytes:
    """The frame for what was read. What is beyond a bound is left out, and the reading is not complete then."""
    out = bytearray()
    lines = words = 0
    complete = reading.complete
    for line in reading.lines:
        written = _line(line)
        words += len(line.words)
        if lines == MAX_LINES or words > MAX_WORDS or len(out) + len(written) > MAX_ANSWER_BYTES:
            complete = False
            break
        lines += 1
        out += written
    return ANSWER.pack(len(out), lines, complete) + bytes(out)


def _line(line: TextLine) -> bytes:
    flat = [value for corner in line.corners for value in corner]
    out = bytearray(_LINE.pack(*flat, line.confidence, len(line.words)))
    for word in line.words:
        text = word.text.encode()
        out += _WORD.pack(word.begin, word.end, len(text)) + text
    return bytes(out)


def lines_of(payload: bytes, count: int) -> tuple[TextLine, ...]:
    """The lines in a frame. Raises ProtocolError."""
    if count > MAX_LINES:
        raise ProtocolError("more lines than may be")
    lines, at, words = [], 0, 0
    try:
        for _ in range(count):
            line, at = _line_at(payload, at)
            lines.append(line)
            words += len(line.words)
    except (struct.error, ValueError) as exc:
        raise ProtocolError("a line is malformed") from exc
    if at != len(payload) or words > MAX_WORDS:
        raise ProtocolError("more than was announced, or than may be")
    return tuple(lines)


def _line_at(payload: bytes, at: int) -> tuple[TextLine, int]:
    *numbers, confidence, count = _LINE.unpack_from(payload, at)
    at += _LINE.size
    if not all(math.isfinite(n) and abs(n) <= 2 * MAX_SIDE_PX for n in numbers) or not 0 <= confidence <= 1:
        raise ValueError("a line that is nowhere")
    words = []
    for _ in range(count):
        begin, end, size = _WORD.unpack_from(payload, at)
        at += _WORD.size
        text = payload[at : at + size].decode()
        at += size
        if not 0 <= begin <= end <= 1 or text.split() != [text] or at > len(payload):
            raise ValueError("a word that is none")
        words.append(LineWord(text, begin, end))
    corners: Corners = (
        (numbers[0], numbers[1]),
        (numbers[2], numbers[3]),
        (numbers[4], numbers[5]),
        (numbers[6], numbers[7]),
    )
    return TextLine(tuple(words), corners, confidence), at
