"""What a process that reads pictures may say, and what it may not."""

import math
import struct

import pytest

from services.extractor.adapters import ocr_protocol as wire
from services.extractor.domain.recognised import LineWord, Reading, TextLine

CORNERS = ((1.0, 2.0), (101.0, 2.0), (101.0, 22.0), (1.0, 22.0))
LINE = TextLine((LineWord("größer", 0.0, 0.5), LineWord("als", 0.625, 1.0)), CORNERS, 0.75)


def payload_of(reading: Reading) -> tuple[bytes, int, bool]:
    frame = wire.answer(reading)
    size, count, complete = wire.ANSWER.unpack_from(frame)
    assert size == len(frame) - wire.ANSWER.size
    return frame[wire.ANSWER.size :], count, bool(complete)


def test_what_was_read_arrives_as_it_was() -> None:
    payload, count, complete = payload_of(Reading((LINE, LINE)))
    assert wire.lines_of(payload, count) == (LINE, LINE)
    assert complete


def test_what_is_beyond_a_bound_is_left_out_and_told() -> None:
    payload, count, complete = payload_of(Reading((LINE,) * (wire.MAX_LINES + 1)))
    assert len(wire.lines_of(payload, count)) == wire.MAX_LINES
    assert not complete
    long = TextLine((LineWord("a" * 60_000, 0, 1),), CORNERS, 0.9)
    payload, count, complete = payload_of(Reading((long,) * 10))
    assert count == wire.MAX_ANSWER_BYTES // 60_000
    assert not complete


def record(*corners: float, confidence: float = 0.9, words: bytes = b"", count: int = 0) -> bytes:
    return struct.pack("<9fH", *(corners or (1.0,) * 8), confidence, count) + words


def word(text: bytes = b"a", begin: float = 0.0, end: float = 1.0, size: int | None = None) -> bytes:
    return struct.pack("<2fH", begin, end, len(text) if size is None else size) + text


LIES = {
    "too short": (b"\0", 1),
    "more than announced": (record() + b"\0", 1),
    "fewer lines than announced": (record(), 2),
    "too many lines": (record() * (wire.MAX_LINES + 1), wire.MAX_LINES + 1),
    "nowhere": (record(*(math.nan,) * 8), 1),
    "without end": (record(*(math.inf,) * 8), 1),
    "far away": (record(*(1e30,) * 8), 1),
    "surer than sure": (record(confidence=2.0), 1),
    "sure of nothing": (record(confidence=math.nan), 1),
    "no UTF-8": (record(words=word(b"\xff"), count=1), 1),
    "white space": (record(words=word(b"a b"), count=1), 1),
    "a word of nothing": (record(words=word(b""), count=1), 1),
    "a longer word than is there": (record(words=word(b"a", size=9), count=1), 1),
    "a word backwards": (record(words=word(begin=0.9, end=0.1), count=1), 1),
    "a word beside its line": (record(words=word(end=7.0), count=1), 1),
}


@pytest.mark.parametrize(("payload", "count"), LIES.values(), ids=LIES)
def test_what_no_reader_says_is_refused(payload: bytes, count: int) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.lines_of(payload, count)
