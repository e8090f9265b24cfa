"""The offline provider's processes: they never hold up the event loop, and they end with the service."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from services.runtime.errors import DeadlineExceeded, NotFound, Unavailable
from services.summarizer.adapters.offline import MODEL, OfflineProvider
from tests.unit.summarizer.text.papers import chunk, map_prompt

TEXT = "The garden had been left alone for so many years that nobody remembered who had planted it. " * 3
PROMPT = map_prompt(chunk(TEXT))
LONG = map_prompt(
    chunk(
        "".join(f"Sentence {n} tells of the tree {n % 97} and of bird {n % 89} in the garden. " for n in range(4_000))
    )
)
ENDLESS = map_prompt(chunk(LONG.chunk.text * 50 if LONG.chunk else ""))
"""Keeps a process busy for longer than any test waits."""


@pytest.fixture
async def offline() -> AsyncIterator[OfflineProvider]:
    async with OfflineProvider() as provider:
        yield provider


async def test_the_event_loop_turns_while_sentences_are_chosen(offline: OfflineProvider) -> None:
    await offline.complete(PROMPT)
    call = asyncio.create_task(offline.complete(LONG))
    turns = 0
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await call).claims
    assert turns > 100


async def test_an_unknown_model_is_not_found(offline: OfflineProvider) -> None:
    with pytest.raises(NotFound):
        await offline.complete(map_prompt(chunk(TEXT), model="nonsense"))


async def test_an_empty_document_has_an_empty_answer(offline: OfflineProvider) -> None:
    answer = await offline.complete(map_prompt(chunk("")))
    assert answer.claims == ()
    assert answer.tokens.output_tokens == 0


async def test_a_process_that_dies_costs_its_call_only(offline: OfflineProvider) -> None:
    await offline.complete(PROMPT)
    (worker,) = workers_of(os.getpid())
    call = asyncio.create_task(offline.complete(LONG))
    await asyncio.sleep(0)
    worker.kill()
    with pytest.raises(Unavailable) as died:
        await call
    assert died.value.metadata["sent"] == "no"
    assert (await offline.complete(PROMPT)).claims


async def test_a_call_that_takes_too_long_is_given_up_and_its_process_ends() -> None:
    async with OfflineProvider(processes=1, timeout_s=0.001) as hurried:
        (worker,) = workers_of(os.getpid())
        with pytest.raises(DeadlineExceeded) as late:
            await hurried.complete(LONG)
        assert late.value.reason == "PROVIDER_TIMEOUT"
        await ended(worker)


async def test_who_gives_up_frees_the_process_for_others() -> None:
    async with OfflineProvider(processes=1) as offline:
        (worker,) = workers_of(os.getpid())
        call = asyncio.create_task(offline.complete(ENDLESS))
        waiting = asyncio.create_task(offline.complete(PROMPT))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await waiting).claims
        await ended(worker)


async def test_a_long_call_leaves_a_process_to_the_others(offline: OfflineProvider) -> None:
    call = asyncio.create_task(offline.complete(ENDLESS))
    await asyncio.sleep(0)
    assert (await offline.complete(PROMPT)).claims
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_an_error_of_the_choice_is_told_and_harms_no_other_call(offline: OfflineProvider) -> None:
    with pytest.raises(ValueError, match="needs a chunk"):
        await offline.complete(dataclasses.replace(PROMPT, chunk=None))
    assert (await offline.complete(PROMPT)).claims


async def test_closing_ends_the_processes() -> None:
    async with OfflineProvider() as provider:
        await provider.complete(PROMPT)
        (worker,) = workers_of(os.getpid())
    assert not worker.is_running()


def test_a_service_that_is_killed_leaves_no_process_behind() -> None:
    script = (
        "import asyncio\n"
        "from tests.integration.summarizer.test_offline import PROMPT, OfflineProvider\n"
        "async def main():\n"
        "    async with OfflineProvider() as provider:\n"
        "        await provider.complete(PROMPT)\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(3600)\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        workers = workers_of(service.pid)
        assert workers
        service.send_signal(signal.SIGKILL)
        service.wait(10)
    eventually(lambda: not any(worker.is_running() for worker in workers))


def workers_of(pid: int) -> list[psutil.Process]:
    """Processes that choose sentences; multiprocessing's resource tracker is none of them."""
    children = psutil.Process(pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


async def ended(worker: psutil.Process) -> None:
    async with asyncio.timeout(10):
        while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


def eventually(condition: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends_at_s
        time.sleep(0.01)


def test_the_model_has_the_name_that_its_price_has() -> None:
    assert OfflineProvider().models() == (MODEL,) == ("lexrank",)
