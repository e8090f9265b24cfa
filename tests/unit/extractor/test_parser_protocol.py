"""Frames between the service and its parser processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.extractor.adapters import parser_protocol as wire
from services.extractor.adapters.parser_protocol import (
    MAX_INFO_BYTES,
    MAX_PAGE_BYTES,
    Answer,
    AnswerKind,
    AnswerReader,
    Fault,
    FlagBit,
    Order,
    OrderKind,
    PartBit,
    ProtocolError,
)
from services.extractor.adapters.zygote_protocol import Command, CommandKind, Event, EventKind

FRAMES = {
    wire.ready(sandboxed=True): Answer(AnswerKind.READY, code=1),
    wire.opened(2**33, FlagBit.REPAIRED): Answer(AnswerKind.OPENED, 2**33, 1),
    wire.opened(2, 0, b"info"): Answer(AnswerKind.OPENED, 2, 0, b"info"),
    wire.page(7, b"content"): Answer(AnswerKind.PAGE, 7, content=b"content"),
    wire.page(8, b""): Answer(AnswerKind.PAGE, 8),
    wire.page_failed(9, Fault.MEMORY): Answer(AnswerKind.PAGE_FAILED, 9, Fault.MEMORY),
    wire.refused(Fault.ENCRYPTED): Answer(AnswerKind.REFUSED, code=Fault.ENCRYPTED),
    wire.done(): Answer(AnswerKind.DONE),
}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers_come_back_however_the_bytes_are_cut(size: int) -> None:
    data = b"".join(FRAMES)
    reader = AnswerReader()
    answers = [answer for at in range(0, len(data), size) for answer in reader.feed(data[at : at + size])]
    assert answers == list(FRAMES.values())


def test_an_order_comes_back_as_it_went() -> None:
    order = Order(OrderKind.PARSE, 2**32 - 1, 1, PartBit.TEXT | PartBit.OUTLINE, 3, 2**31, 7, 2**63, 508)
    assert len(order.pack()) == Order.SIZE
    assert Order.unpack(order.pack()) == order


def test_records_of_the_parent_come_back_as_they_went() -> None:
    command, event = Command(CommandKind.KILL, 4_000_000), Event(EventKind.EXITED, 4_000_000, -9)
    assert Command.unpack(command.pack()) == command
    assert Event.unpack(event.pack()) == event


@pytest.mark.parametrize(
    "frame",
    [
        (MAX_PAGE_BYTES + 5).to_bytes(4, "little") + b"\x02",  # a length past the limit, before any of it has come
        # more than a document may say of itself
        (MAX_INFO_BYTES + 10).to_bytes(4, "little") + b"\x01" + bytes(MAX_INFO_BYTES + 10),
        b"\x00\x00\x00\x00\x63",  # an unknown kind
        b"\x01\x00\x00\x00\x02\x00",  # a page without a number
        b"\x00\x00\x00\x00\x04",  # a refusal without a reason
        b"\x01\x00\x00\x00\x05\x00",  # an end with something in it
    ],
)
def test_what_no_parser_sends_is_an_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(AnswerReader().feed(frame))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_noise_is_answers_or_an_error_and_nothing_else(pieces: list[bytes]) -> None:
    reader = AnswerReader()
    try:
        for piece in pieces:
            list(reader.feed(piece))
    except ProtocolError:
        pass
