"""The pool against parser processes that fail to start, or were taken over by what they read."""

import asyncio
import errno
import subprocess
from collections.abc import AsyncIterator, Callable

import psutil
import pytest

from services.extractor.adapters.parser_parent import ParserParent
from services.extractor.adapters.parser_pool import ParserPool
from services.runtime.errors import Unavailable
from tests.unit.extractor.scripted_parent import ScriptedParent, pool_of


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
