"""The pool against parser processes that fail to start, or were taken over by what they read."""

import asyncio
import contextlib
import errno
import math
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters import page_bounds
from services.extractor.adapters import parser_protocol as wire
from services.extractor.adapters.parser_parent import ParserParent
from services.extractor.adapters.parser_pool import ParserPool
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import Loss, ParserEvent, ParserLost, Part
from services.extractor.domain.ports import ParseTask
from services.runtime.errors import Unavailable
from tests.unit.extractor.scripted_parent import ScriptedParent, frame, order_of, pool_of


@pytest.fixture
def parent() -> ScriptedParent:
    return ScriptedParent()


@pytest.fixture
async def pool(parent: ScriptedParent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ParserPool]:
    made = pool_of(parent, monkeypatch)
    await made.start()
    yield made
    await made.stop()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("fault", [OSError(errno.EAGAIN, "no more processes"), ValueError("unforeseen")])
async def test_a_fork_that_fails_does_not_end_the_search_for_a_process(
    pool: ParserPool, parent: ScriptedParent, fault: Exception
) -> None:
    parent.faults = [fault]
    pool._idle.clear()
    pool._spare_wanted.set()
    await eventually(lambda: not parent.faults)
    pool._spare_wanted.set()
    await eventually(lambda: len(parent.theirs) == 2)


async def test_the_watch_goes_on_after_what_it_did_not_foresee(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def look(process: object) -> None:
        looks.append("look")
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(pool, "_hold_to_limits", look)
    pool._busy[pool._idle[0]] = "acme"
    await eventually(lambda: len(looks) > 2)
    pool._busy.clear()


async def test_a_process_that_does_not_get_ready_is_unavailable(
    pool: ParserPool, parent: ScriptedParent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.extractor.adapters.parser_pool._READY_TIMEOUT_S", 0.01)
    parent.first_words = b""
    with pytest.raises(Unavailable) as told:
        await pool._spawn()
    assert told.value.reason == "PARSER_UNAVAILABLE"


async def test_a_parent_that_cannot_be_started_is_unavailable_and_keeps_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    descriptors = psutil.Process().num_fds()
    for operation in (ParserParent.start, ParserParent.fork):
        with pytest.raises(Unavailable) as told:
            await operation(ParserParent(memory_bytes=1 << 30, on_exit=lambda *_: None))
        assert told.value.reason == "PARSER_UNAVAILABLE"
    assert psutil.Process().num_fds() == descriptors


@contextlib.asynccontextmanager
async def parsing(
    pool: ParserPool, parent: ScriptedParent
) -> AsyncIterator[tuple[socket.socket, AsyncIterator[ParserEvent]]]:
    """A task that has begun, and the process's end of the conversation."""
    with tempfile.TemporaryFile() as file:
        task = ParseTask("acme", file, MediaType.PDF, 1, 3, Part.TEXT, wait_s=5)
        async with pool.parse(task) as events:
            order_of(parent.theirs[0])
            yield parent.theirs[0], events


def page_of(number: int, **fields: Any) -> bytes:
    return wire.page(number, page_pb2.Page(number=number, **fields).SerializeToString())


async def test_a_process_that_keeps_to_the_rules_is_kept(pool: ParserPool, parent: ScriptedParent) -> None:
    async with parsing(pool, parent) as (theirs, events):
        theirs.sendall(wire.opened(2, 0) + page_of(1) + page_of(2) + wire.done())
        assert len([event async for event in events]) == 3
    assert parent.killed == []


NOWHERE = page_pb2.BoundingBox(x0=math.nan)
LIES = {
    "opened twice": wire.opened(2, 0),
    "ready twice": wire.ready(sandboxed=True),
    "done too early": wire.done(),
    "another page": page_of(2),
    "another number inside": wire.page(1, page_pb2.Page(number=2).SerializeToString()),
    "no message": wire.page(1, b"\xff\xff"),
    "an unknown frame": frame(99),
    "too long a frame": struct.pack("<IB", 1 << 30, 2),
    "too many words": page_of(1, words=[page_pb2.Word(text="a")] * (page_bounds.MAX_WORDS + 1)),
    "too long a word": page_of(1, words=[page_pb2.Word(text="a" * (page_bounds.MAX_WORD_CHARS + 1))]),
    "a word in no block": page_of(1, words=[page_pb2.Word(text="a", block=-1)]),
    "a word nowhere": page_of(1, words=[page_pb2.Word(text="a", box=NOWHERE)]),
    "a block nowhere": page_of(1, blocks=[page_pb2.Block(text="a", box=NOWHERE)]),
    "too long a text": page_of(1, text="a" * (page_bounds.MAX_TEXT_CHARS + 1)),
    "an endless page": page_of(1, width_pt=math.inf),
    "a page of less than nothing": page_of(1, height_pt=-1.0),
    "an unknown flag": page_of(1, flags=[7]),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_process_that_says_what_no_parser_says_is_killed(
    pool: ParserPool, parent: ScriptedParent, lie: bytes
) -> None:
    with pytest.raises(ParserLost) as lost:
        async with asyncio.timeout(10), parsing(pool, parent) as (theirs, events):
            theirs.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(theirs, wire.opened(2, 0) + lie)
            async for _ in events:
                pass
    assert lost.value.loss is Loss.CRASH
    assert parent.killed[0] == os.getpid()


@pytest.mark.parametrize("first", [wire.done(), wire.opened(0, 0), wire.opened(1 << 40, 0), page_of(1)])
async def test_a_task_begins_with_a_document(pool: ParserPool, parent: ScriptedParent, first: bytes) -> None:
    with pytest.raises(ParserLost):
        async with asyncio.timeout(10), parsing(pool, parent) as (theirs, events):
            theirs.sendall(first)
            async for _ in events:
                pass
    assert parent.killed[0] == os.getpid()


@pytest.mark.parametrize("words", [wire.done(), wire.ready(sandboxed=True), b"\x01"], ids=["done", "ready", "half"])
async def test_a_process_that_speaks_without_a_task_is_killed(
    pool: ParserPool, parent: ScriptedParent, words: bytes
) -> None:
    parent.theirs[0].sendall(words)
    await eventually(lambda: parent.killed)
    assert parent.killed == [os.getpid()]
    await eventually(lambda: len(pool._idle) == 1 and len(parent.theirs) == 2)


async def test_a_process_that_works_without_a_task_is_killed(
    parent: ScriptedParent, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(parent, monkeypatch, page_cpu_s=0.01)
    await pool.start()
    try:
        async with asyncio.timeout(10):
            while not parent.killed:
                sum(range(100_000))  # the process that is measured is this one
                await asyncio.sleep(0)
        assert parent.killed[0] == os.getpid()
    finally:
        await pool.stop()


async def test_without_its_filter_no_process_gets_a_file(
    parent: ScriptedParent, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent.first_words = wire.ready(sandboxed=False)
    with pytest.raises(Unavailable) as told:
        await pool_of(parent, monkeypatch).start()
    assert "PAGEMESH_PARSER_SANDBOX=off" in str(told.value)
    assert parent.killed == [os.getpid()]
    without = pool_of(parent, monkeypatch, needs_sandbox=False)
    await without.start()
    await without.stop()
