"""Pictures from parser processes that keep to the rules, and from such as were taken over by what they read."""

import asyncio
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.extractor.adapters import parser_protocol as wire
from services.extractor.adapters.parser_pool import ParserPool
from services.extractor.adapters.parser_protocol import AnswerKind, AnswerReader, Fault, OrderKind, ProtocolError
from services.extractor.adapters.picture_protocol import (
    Missing,
    PictureAnswer,
    PictureCode,
    PictureOrder,
    no_picture,
    why_no_picture,
)
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import (
    DocumentFault,
    FailedPage,
    Loss,
    PageFault,
    ParserLost,
    Picture,
    PictureFormat,
    Refused,
)
from services.extractor.domain.ports import PictureTask
from services.runtime.errors import FailedPrecondition, OutOfRange
from tests.unit.extractor.scripted_parent import ScriptedParent, frame, order_of, pool_of

GRAY = PictureAnswer(PictureCode.GRAY, 3, 2, b"\0\1\2\3\4\5")
ORDER = PictureOrder(PictureCode.JPEG, 1200, 4096, 95, 10**10, 9_999, "pässwörd" * 15)


def framed(answer: PictureAnswer) -> bytes:
    return b"".join(answer.frame())


@pytest.fixture
def parent() -> ScriptedParent:
    return ScriptedParent()


@pytest.fixture
async def pool(parent: ScriptedParent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ParserPool]:
    made = pool_of(parent, monkeypatch)
    await made.start()
    yield made
    await made.stop()


async def asked(
    pool: ParserPool,
    parent: ScriptedParent,
    *answers: bytes,
    picture_format: PictureFormat = PictureFormat.GRAY,
    index: int | None = None,
) -> Picture | Refused | FailedPage:
    """What the pool makes of what a process answers to an order for page 2."""
    with tempfile.TemporaryFile() as file:
        task = PictureTask(
            "acme", file, MediaType.PDF, 2, picture_format, max_side_px=100, index=index, wait_s=5, password="secret"
        )
        asking = asyncio.ensure_future(pool.picture(task))
        theirs = parent.theirs[0]
        while not pool._busy:
            await asyncio.sleep(0)
        order = order_of(theirs)
        assert (order.kind, order.first_page) == (OrderKind.PICTURE, 2)
        wanted = PictureOrder.unpack(theirs.recv(PictureOrder.SIZE, socket.MSG_WAITALL))
        assert (wanted.max_side_px, wanted.password) == (100, "secret")
        theirs.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(theirs, b"".join(answers))
        async with asyncio.timeout(10):
            return await asking


async def test_a_process_that_keeps_to_the_rules_is_kept(pool: ParserPool, parent: ScriptedParent) -> None:
    drawn = await asked(pool, parent, wire.opened(2, 0), framed(GRAY), wire.done())
    assert drawn == Picture(PictureFormat.GRAY, 3, 2, GRAY.content)
    assert parent.killed == []


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ((wire.refused(Fault.ENCRYPTED),), Refused(DocumentFault.ENCRYPTED)),
        ((wire.opened(2, 0), wire.page_failed(2, Fault.MEMORY), wire.done()), FailedPage(2, PageFault.MEMORY)),
        ((wire.opened(2, 0), wire.page_failed(2, Fault.CORRUPT), wire.done()), FailedPage(2, PageFault.CORRUPT)),
    ],
)
async def test_what_cannot_be_drawn_costs_no_process(
    pool: ParserPool, parent: ScriptedParent, answers: tuple[bytes, ...], outcome: object
) -> None:
    assert await asked(pool, parent, *answers) == outcome
    assert parent.killed == []


@pytest.mark.parametrize(
    ("why", "kind", "reason"),
    [
        (Missing.PAGE_OUT_OF_RANGE, OutOfRange, "PAGE_OUT_OF_RANGE"),
        (Missing.IMAGE_OUT_OF_RANGE, OutOfRange, "IMAGE_OUT_OF_RANGE"),
        (Missing.TOO_LARGE, FailedPrecondition, "PICTURE_TOO_LARGE"),
    ],
)
async def test_what_there_is_not_is_an_error(
    pool: ParserPool, parent: ScriptedParent, why: Missing, kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        await asked(pool, parent, wire.opened(1, 0), no_picture(why, 1), wire.done())
    assert parent.killed == []


JPEG = PictureAnswer(PictureCode.JPEG, 3, 2, b"\xff\xd8\xff...")
LIES = {
    "nothing opened": (framed(GRAY), wire.done()),
    "opened without pages": (wire.opened(0, 0),),
    "opened twice": (wire.opened(2, 0), wire.opened(2, 0)),
    "a page of text": (wire.opened(2, 0), wire.page(2, b"")),
    "done without a picture": (wire.opened(2, 0), wire.done()),
    "two pictures": (wire.opened(2, 0), framed(GRAY), framed(GRAY)),
    "another format": (wire.opened(2, 0), framed(JPEG), wire.done()),
    "wider than asked for": (wire.opened(2, 0), framed(replace(GRAY, width_px=101, height_px=1, content=bytes(101)))),
    "fewer bytes than pixels": (wire.opened(2, 0), framed(replace(GRAY, content=b"\0"))),
    "no pixels": (wire.opened(2, 0), framed(PictureAnswer(PictureCode.GRAY, 0, 0, b""))),
    "no picture at all": (wire.opened(2, 0), framed(replace(JPEG, content=b"<html>"))),
    "an unknown format": (wire.opened(2, 0), frame(AnswerKind.PICTURE, struct.pack("<BII", 9, 1, 1))),
    "half a size": (wire.opened(2, 0), frame(AnswerKind.PICTURE, b"\1")),
    "no reason": (wire.opened(2, 0), frame(AnswerKind.NO_PICTURE, b"\1")),
    "an unknown reason": (wire.opened(2, 0), frame(AnswerKind.NO_PICTURE, struct.pack("<BI", 9, 1))),
    "an unknown fault": (wire.opened(2, 0), frame(AnswerKind.PAGE_FAILED, struct.pack("<IB", 2, 99))),
    "too long a frame": (wire.opened(2, 0), struct.pack("<IB", wire.MAX_PICTURE_BYTES + 17, AnswerKind.PICTURE)),
}


@pytest.mark.parametrize("answers", LIES.values(), ids=LIES)
async def test_a_process_that_says_what_no_parser_says_is_killed(
    pool: ParserPool, parent: ScriptedParent, answers: tuple[bytes, ...]
) -> None:
    with pytest.raises(ParserLost) as lost:
        await asked(pool, parent, *answers)
    assert lost.value.loss is Loss.CRASH
    assert parent.killed


async def test_an_image_is_of_any_size_and_whatever_format_it_says(pool: ParserPool, parent: ScriptedParent) -> None:
    large = replace(JPEG, width_px=50_000, height_px=50_000)
    taken = await asked(pool, parent, wire.opened(2, 0), framed(large), wire.done(), index=3)
    assert taken == Picture(PictureFormat.JPEG, 50_000, 50_000, JPEG.content)


def test_an_order_comes_back_as_it_went() -> None:
    assert len(ORDER.pack()) == PictureOrder.SIZE
    assert PictureOrder.unpack(ORDER.pack()) == ORDER
    assert "pässwörd" not in repr(ORDER)
    with pytest.raises(ValueError, match="too long"):
        replace(ORDER, password="p" * 509).pack()


def test_why_there_is_none_comes_back_as_it_went() -> None:
    (answer,) = AnswerReader().feed(no_picture(Missing.IMAGE_OUT_OF_RANGE, 7))
    assert why_no_picture(answer.content) == (Missing.IMAGE_OUT_OF_RANGE, 7)


def test_only_who_waits_for_a_picture_takes_a_long_frame() -> None:
    long = wire.frame_head(AnswerKind.PICTURE, wire.MAX_PICTURE_BYTES)
    with pytest.raises(ProtocolError):
        list(AnswerReader().feed(long))
    reader = AnswerReader()
    reader.takes_picture = True
    assert list(reader.feed(long)) == []


@given(st.binary(max_size=60))
def test_noise_is_a_picture_or_an_error_and_nothing_else(payload: bytes) -> None:
    for read in (PictureAnswer.unpack, why_no_picture):
        try:
            read(payload)
        except ValueError:
            continue
