"""The readers' pool against processes that lie, and against a kernel without the filter of system calls."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from services.extractor.adapters import ocr_protocol as wire
from services.extractor.adapters.ocr_pool import OcrLimits, OcrPool
from services.extractor.domain.pages import Loss, ParserLost, Picture, PictureFormat
from services.extractor.domain.recognised import LineWord, Reading, TextLine
from services.runtime.errors import Unavailable

LIMITS = OcrLimits(
    processes=1,
    budget_s=7,
    cpu_s=1e9,
    wall_s=60,
    memory_bytes=8 << 40,
    max_waiting=4,
    idle_s=60,
    needs_sandbox=True,
)
PICTURE = Picture(PictureFormat.GRAY, 40, 30, bytes(1200))
LINE = TextLine((LineWord("word", 0.0, 1.0),), ((1.0, 2.0), (9.0, 2.0), (9.0, 5.0), (1.0, 5.0)), 0.5)


class ScriptedParent:
    """Stands in for ParserParent: it forks nothing, and the test answers on the sockets."""

    def __init__(self) -> None:
        self.running = True
        self.theirs: list[socket.socket] = []
        self.killed: list[int] = []

    def __call__(self, *, on_exit: Callable[[int, int], None], **_: object) -> "ScriptedParent":
        return self

    async def fork(self) -> tuple[int, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.theirs.append(theirs)
        return os.getpid(), ours

    def kill(self, pid: int) -> None:
        self.killed.append(pid)

    async def stop(self) -> None:
        for theirs in self.theirs:
            theirs.close()


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> ScriptedParent:
    made = ScriptedParent()
    monkeypatch.setattr("services.extractor.adapters.ocr_pool.ParserParent", made)
    return made


@pytest.fixture
async def pool(parent: ScriptedParent) -> AsyncIterator[OcrPool]:
    made = OcrPool(LIMITS)
    yield made
    await made.stop()


async def conversation(parent: ScriptedParent, *, sandboxed: bool = True, answer: bytes | None = None) -> bytes:
    """Plays a process; answers the picture that it was given. Without an answer it hangs up."""
    async with asyncio.timeout(10):
        while not parent.theirs:
            await asyncio.sleep(0.001)
        loop, theirs = asyncio.get_running_loop(), parent.theirs.pop()
        with theirs:
            await loop.sock_sendall(theirs, wire.READY.pack(sandboxed))
            data = b""
            while len(data) < wire.PICTURE.size + len(PICTURE.content):
                piece = await loop.sock_recv(theirs, 1 << 16)
                if not piece:
                    break
                data += piece
            if answer is not None:
                await loop.sock_sendall(theirs, answer)
        return data


async def test_a_picture_goes_there_and_its_lines_come_back(pool: OcrPool, parent: ScriptedParent) -> None:
    reading = Reading((LINE,), complete=False)
    found, given = await asyncio.gather(
        pool.read("acme", PICTURE, wait_s=1), conversation(parent, answer=wire.answer(reading))
    )
    assert found == reading
    assert wire.PICTURE.unpack_from(given) == (40, 30, 7.0)
    assert given[wire.PICTURE.size :] == PICTURE.content
    assert len(parent.killed) == 1, "whatever it says, it is not heard again"


LIES = {
    "nothing": None,
    "half an answer": wire.answer(Reading((LINE,)))[:-1],
    "too long an answer": struct.pack("<IIB", wire.MAX_ANSWER_BYTES + 1, 1, 1),
    "complete and more": struct.pack("<IIB", 0, 0, 2),
    "more lines than there are": struct.pack("<IIB", 0, 1, 1),
    "no line": struct.pack("<IIB", 4, 1, 1) + b"line",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_process_that_says_what_no_reader_says_is_lost(
    pool: OcrPool, parent: ScriptedParent, lie: bytes | None
) -> None:
    talking = asyncio.create_task(conversation(parent, answer=lie))
    with pytest.raises(ParserLost) as lost:
        await pool.read("acme", PICTURE, wait_s=1)
    assert lost.value.loss is Loss.CRASH
    assert len(parent.killed) == 1
    await talking


async def test_a_process_without_its_filter_gets_no_picture(pool: OcrPool, parent: ScriptedParent) -> None:
    talking = asyncio.create_task(conversation(parent, sandboxed=False))
    with pytest.raises(Unavailable) as told:
        await pool.read("acme", PICTURE, wait_s=1)
    assert told.value.reason == "OCR_UNAVAILABLE"
    assert await talking == b""
    assert len(parent.killed) == 1


async def test_a_slot_is_free_again_whatever_happened(pool: OcrPool, parent: ScriptedParent) -> None:
    for _ in range(3):
        cancelled = asyncio.create_task(pool.read("acme", PICTURE, wait_s=1))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    while parent.theirs:
        parent.theirs.pop().close()
    found, _ = await asyncio.gather(
        pool.read("other", PICTURE, wait_s=1), conversation(parent, answer=wire.answer(Reading(())))
    )
    assert found == Reading(())
