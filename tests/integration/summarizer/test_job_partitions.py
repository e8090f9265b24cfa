"""Two workers and a partition: one is cut off or stands still past its lease, and another one takes over."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pagemesh.summarizer.v1 import job_pb2
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import BEES, DOCUMENT, MODEL, Start, World, behind, until, until_so, wire_to
from tests.integration.summarizer.job_books import bill_is_in_the_books, everything_is_told
from tests.integration.summarizer.job_calls import SUCCEEDED, Jobs, WorkerProcess, jobs_at, worker_of
from tests.integration.summarizer.peers import Script

_PARTS = 3
"""Of the document, each a call; after them there is one for all."""
_LATE_S = 25
"""When the first worker's calls are answered: after its turns to buy have run out, and another worker is done."""


@pytest.fixture
async def jobs(world: World, start: Start) -> AsyncIterator[Jobs]:
    client = await start()
    async with jobs_at(world, client.target) as calls:
        yield calls


@pytest.fixture
def paid(mistral: MistralServer) -> dict[str, object]:
    return {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}


def long_document(world: World) -> None:
    """One that takes several calls, and a last one for all of them."""
    pages = tuple(f"Chapter {n} begins here and says something. " + BEES * 5 for n in range(1, 81))
    world.extractor.documents[world.tenant, DOCUMENT] = Script(pages)


async def ended_once(world: World, jobs: Jobs, mistral: MistralServer, name: str) -> None:
    """The second worker made all calls; of the first one there are those alone that it had under way."""
    job = await jobs.get(name)
    events = await jobs.events(name)
    assert (job.state, job.attempts) == (SUCCEEDED, 2), job.error
    assert [event.kind for event in events].count(job_pb2.JOB_EVENT_KIND_ENDED) == 1
    await everything_is_told(world)
    await bill_is_in_the_books(world, mistral)
    assert job.result.summary.consumption.provider_calls == _PARTS + 1
    assert mistral.calls == _PARTS + _PARTS + 1
    operations = [operation for operation, *_ in await world.ledger.events()]
    assert operations.count("summarize.reduce") == 1, "the first worker went on to no further call"


@pytest.mark.timeout(600)
async def test_a_worker_that_is_cut_off_from_the_database_calls_nobody_any_more(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    long_document(world)
    mistral.script(*[f"slow:{_LATE_S}"] * _PARTS)
    async with wire_to(world.database_url) as wire:
        alone = {"database_url": behind(world.database_url, wire), "job_lease_s": 1}
        async with worker_of(world, **paid, **alone):
            job = await jobs.create(DOCUMENT)
            await until(lambda: mistral.calls == _PARTS, timeout_s=60)
            wire.freeze()
            async with worker_of(world, **paid, job_lease_s=1):
                assert (await jobs.ended(job.name, timeout_s=120)).state == SUCCEEDED
                done = mistral.calls
                # Its answers come while it is cut off; then it sees the database again.
                await until(lambda: len(mistral.books.charges) == mistral.calls, timeout_s=120)
                wire.mend()
                await until_so(lambda: _settled(world, mistral.calls), timeout_s=120)
            assert mistral.calls == done
    await ended_once(world, jobs, mistral, job.name)


@pytest.mark.timeout(600)
async def test_a_worker_that_wakes_up_after_its_lease_calls_nobody_any_more(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object], tmp_path: Path
) -> None:
    long_document(world)
    mistral.script(*["slow:2"] * _PARTS)
    sleeper = WorkerProcess(world, tmp_path / "sleeper.log", **paid, job_lease_s=1)
    sleeper.start()
    try:
        job = await jobs.create(DOCUMENT)
        await until(lambda: mistral.calls == _PARTS, timeout_s=120)
        sleeper.send(signal.SIGSTOP)
        async with worker_of(world, **paid, job_lease_s=1):
            assert (await jobs.ended(job.name, timeout_s=120)).state == SUCCEEDED
        done = mistral.calls
        sleeper.send(signal.SIGCONT)
        await until_so(sleeper.ready, timeout_s=60)
        await until_so(lambda: _settled(world, done), timeout_s=60)
        # It is alive, and does what comes next.
        assert (await jobs.ended((await jobs.create(DOCUMENT)).name)).state == SUCCEEDED
        assert mistral.calls == done
    finally:
        sleeper.send(signal.SIGCONT)
        await asyncio.to_thread(sleeper.kill)
    await ended_once(world, jobs, mistral, job.name)


async def _settled(world: World, calls: int) -> bool:
    """Whether the ledger knows of so many calls what they came to."""
    return len([event for event in await world.ledger.events() if event[1]]) == calls
