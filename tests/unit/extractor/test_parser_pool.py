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
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pagemesh.common.v1 import page_pb2
from pagemesh.extractor.v1 import extraction_pb2
from services.extractor.adapters import page_bounds
from services.extractor.adapters import parser_protocol as wire
from services.extractor.adapters.parser_parent import ParserParent
from services.extractor.adapters.parser_pool import ParserPool
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import Loss, ParserEvent, ParserLost, Part
from services.extractor.domain.ports import ParseTask
from services.runtime.errors import Unavailable
from tests.bursts import each
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
            yield parent.theirs[0], each(events)


def page_of(number: int, **fields: Any) -> bytes:
    return wire.page(number, page_pb2.Page(number=number, **fields).SerializeToString())


async def test_a_process_that_keeps_to_the_rules_is_kept(pool: ParserPool, parent: ScriptedParent) -> None:
    async with parsing(pool, parent) as (theirs, events):
        theirs.sendall(wire.opened(2, 0) + page_of(1) + page_of(2) + wire.done())
        assert len([event async for event in events]) == 3
    assert parent.killed == []


def table_of(*rows: list[str]) -> page_pb2.Table:
    return page_pb2.Table(rows=[page_pb2.TableRow(cells=cells) for cells in rows])


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
    "a flag of others": page_of(1, flags=[page_pb2.PAGE_FLAG_OCR]),
    "a language": page_of(1, language="en"),
    "too long a markdown": page_of(1, markdown="a" * (page_bounds.MAX_TEXT_CHARS + 1)),
    "too many tables": page_of(1, tables=[page_pb2.Table()] * (page_bounds.MAX_TABLES + 1)),
    "a ragged table": page_of(1, tables=[table_of(["a"], ["a", "b"])]),
    "too wide a table": page_of(1, tables=[table_of(["a"] * (page_bounds.MAX_TABLE_COLUMNS + 1))]),
    "too long a cell": page_of(1, tables=[table_of(["a" * (page_bounds.MAX_CELL_CHARS + 1)])]),
    "a table nowhere": page_of(1, tables=[page_pb2.Table(box=NOWHERE)]),
    "another image": page_of(1, images=[page_pb2.PageImage(index=1)]),
    "an image of less than nothing": page_of(1, images=[page_pb2.PageImage(width_px=-1)]),
    "an image nowhere": page_of(1, images=[page_pb2.PageImage(box=NOWHERE)]),
    "a link to nowhere": page_of(1, links=[page_pb2.Link()]),
    "a link to no page": page_of(1, links=[page_pb2.Link(page=0)]),
    "a link from nowhere": page_of(1, links=[page_pb2.Link(page=1, box=NOWHERE)]),
    "too long a link": page_of(1, links=[page_pb2.Link(uri="a" * (page_bounds.MAX_URI_CHARS + 1))]),
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


def info_of(**fields: Any) -> bytes:
    return extraction_pb2.ExtractionStart(**fields).SerializeToString()


LONG = "a" * (page_bounds.MAX_METADATA_CHARS + 1)
INFO_LIES = {
    "no message": b"\xff\xff",
    "what the service says": info_of(page_count=1),
    "too long a title": info_of(metadata=extraction_pb2.DocumentMetadata(title=LONG)),
    "too long a format": info_of(metadata=extraction_pb2.DocumentMetadata(format=LONG)),
    "no time": info_of(metadata=extraction_pb2.DocumentMetadata(document_create_time=Timestamp(seconds=1 << 60))),
    "too long an outline": info_of(outline=[extraction_pb2.OutlineItem(level=1)] * (page_bounds.MAX_OUTLINE + 1)),
    "no level": info_of(outline=[extraction_pb2.OutlineItem(title="a")]),
    "too long an entry": info_of(outline=[extraction_pb2.OutlineItem(level=1, title=LONG)]),
    "no page": info_of(outline=[extraction_pb2.OutlineItem(level=1, page=-1)]),
}


@pytest.mark.parametrize("info", INFO_LIES.values(), ids=INFO_LIES)
async def test_what_a_document_says_of_itself_is_checked(pool: ParserPool, parent: ScriptedParent, info: bytes) -> None:
    with pytest.raises(ParserLost):
        async with asyncio.timeout(10), parsing(pool, parent) as (theirs, events):
            theirs.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(theirs, wire.opened(2, 0, info) + page_of(1))
            async for _ in events:
                pass
    assert parent.killed[0] == os.getpid()


async def test_the_password_follows_its_order_and_is_said_nowhere_else(
    pool: ParserPool, parent: ScriptedParent
) -> None:
    password = "pässword" * 20
    with tempfile.TemporaryFile() as file:
        task = ParseTask("acme", file, MediaType.PDF, 1, 3, Part.TEXT, wait_s=5, password=password)
        assert "pässword" not in repr(task)
        async with pool.parse(task):
            order = order_of(parent.theirs[0])
            said = parent.theirs[0].recv(order.password_bytes, socket.MSG_WAITALL)
            assert said.decode() == password[:127]
            assert "pässword" not in repr(order)


async def test_the_loop_turns_while_a_large_page_is_checked(pool: ParserPool, parent: ScriptedParent) -> None:
    loop_thread = threading.get_ident()
    threads: list[int] = []

    def seen(page: page_pb2.Page, number: int) -> None:
        threads.append(threading.get_ident())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.extractor.adapters.parser_run.check_page", seen)
        async with asyncio.timeout(10), parsing(pool, parent) as (theirs, events):
            theirs.setblocking(False)
            large = page_of(2, text="a" * 300_000)
            await asyncio.get_running_loop().sock_sendall(theirs, wire.opened(2, 0) + page_of(1) + large + wire.done())
            assert len([event async for event in events]) == 3
    small, big = threads
    assert small == loop_thread
    assert big != loop_thread


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
