"""The offline provider's processes: they never hold up the event loop, and they end with the service."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from services.runtime.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from services.summarizer.adapters.offline import MODEL, OfflineProvider
from tests.unit.summarizer.text.papers import chunk, map_prompt

TEXT = "The garden had been left alone for so many years that nobody remembered who had planted it. " * 3
PROMPT = map_prompt(chunk(TEXT))
LONG = map_prompt(
    chunk(
        "".join(f"Sentence {n} tells of the tree {n % 97} and of bird {n % 89} in the garden. " for n in range(4_000))
    )
)


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


async def test_another_language_is_refused_by_name(offline: OfflineProvider) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await offline.complete(map_prompt(chunk(TEXT), language="de"))
    assert refused.value.reason == "LANGUAGE_NOT_SUPPORTED"
    assert [field.field for field in refused.value.fields] == ["options.language"]
    assert refused.value.metadata["sent"] == "no"
    assert (await offline.complete(map_prompt(chunk(TEXT), language="en-US"))).claims


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


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    async with OfflineProvider(timeout_s=0.001) as hurried:
        with pytest.raises(DeadlineExceeded) as late:
            await hurried.complete(LONG)
    assert late.value.reason == "PROVIDER_TIMEOUT"


async def test_closing_ends_the_processes() -> None:
    async with OfflineProvider() as provider:
        await provider.complete(PROMPT)
        (worker,) = workers_of(os.getpid())
    eventually(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


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


def eventually(condition: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends_at_s
        time.sleep(0.01)


def test_the_model_has_the_name_that_its_price_has() -> None:
    assert OfflineProvider().models() == (MODEL,) == ("lexrank",)
