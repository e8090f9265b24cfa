"""Hundreds of jobs while their workers are killed every second: each ends once, and the bill stays in the books.

`PAGEMESH_CRASHED_JOBS=50` makes it shorter."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from pagemesh.common.v1 import money_pb2
from pagemesh.summarizer.v1 import job_pb2
from tests.fakes.mistral_server import MistralServer
from tests.integration.ledger.receivers import open_receiver
from tests.integration.summarizer.conftest import BEES, MODEL, Start, World, until_so
from tests.integration.summarizer.hooks import heard, hooked
from tests.integration.summarizer.job_books import (
    bill_is_in_the_books,
    everything_is_told,
    spent_is_what_the_books_say,
)
from tests.integration.summarizer.job_calls import FAILED, SUCCEEDED, Jobs, WorkerProcess, jobs_at, worker_of
from tests.integration.summarizer.peers import Script
from tests.integration.summarizer.test_jobs import all_done, each_ended_once, many

_JOBS = int(os.environ.get("PAGEMESH_CRASHED_JOBS", "500"))
_WORKERS = 3
_DONE_S = 1800.0
_CHANCE = random.Random(6)


@pytest.fixture
async def jobs(world: World, start: Start) -> AsyncIterator[Jobs]:
    client = await start()
    async with jobs_at(world, client.target) as calls:
        yield calls


@pytest.mark.timeout(3600)
async def test_workers_killed_every_second(world: World, jobs: Jobs, mistral: MistralServer, tmp_path: Path) -> None:
    batch = await jobs.batch(many(world, _JOBS), max_attempts=20)
    mistral.script(*(f"slow:{_CHANCE.uniform(0, 0.2):.3f}" for _ in range(3 * _JOBS)))
    async with _killed_workers(world, mistral, tmp_path) as killing:
        await until_so(lambda: _over(jobs, batch.name, killing), timeout_s=_DONE_S, poll_s=0.5)
        assert await all_done(jobs, batch.name, _JOBS), await jobs.counts(batch.name)
        # What the last calls owe is told by a worker that lives.
        killing.cancel()
        await each_ended_once(world, jobs, batch.name, mistral)
        await bill_is_in_the_books(world, mistral)


@pytest.mark.timeout(3600)
async def test_no_killed_worker_spends_more_than_the_jobs_bound(
    world: World, jobs: Jobs, mistral: MistralServer, tmp_path: Path
) -> None:
    """There is room for two calls whose end nobody knows."""
    first = await jobs.create(*many(world, 1))
    async with worker_of(world, **_paid(mistral)):
        assert (await jobs.ended(first.name)).state == SUCCEEDED
    ((most,),) = await world.ledger._rows("SELECT amount_micros FROM ledger.holds WHERE tenant = %s")
    bound = money_pb2.Money(currency="USD", micros=2 * most + most // 2)
    count = min(_JOBS, 100)
    batch = await jobs.batch(many(world, count), max_attempts=20, max_cost=bound)
    mistral.script(*(f"slow:{_CHANCE.uniform(0.2, 1):.3f}" for _ in range(5 * count)))
    async with _killed_workers(world, mistral, tmp_path) as killing:
        await until_so(lambda: _over(jobs, batch.name, killing), timeout_s=_DONE_S, poll_s=0.5)
        killing.cancel()
        await everything_is_told(world)
    found = await jobs.listed(batch=batch.name)
    for job in found:
        if job.state == FAILED:
            assert "MAX_COST_EXCEEDED" in str(job.error), job.error
            assert job.spent.micros > most, "something was under way when its workers died"
    assert {job.state for job in found} <= {SUCCEEDED, FAILED}
    await spent_is_what_the_books_say(world, jobs, batch.name)
    await bill_is_in_the_books(world, mistral)


@pytest.mark.timeout(600)
async def test_a_document_that_kills_its_workers_is_given_up_and_the_others_are_done(
    world: World, jobs: Jobs, tmp_path: Path
) -> None:
    poison, *good = many(world, 4)
    world.extractor.documents[world.tenant, poison] = Script((BEES,), hang_after=0)
    worker = WorkerProcess(world, tmp_path / "worker.log", job_lease_s=1, job_tenant_places=50)
    bad = await jobs.create(poison, max_attempts=3)
    try:
        for attempt in range(1, 4):
            worker.start()
            await until_so(lambda attempt=attempt: _tried(jobs, bad.name, attempt), timeout_s=120)  # type: ignore[misc]
            worker.kill()
        worker.start()
        others = [await jobs.create(document) for document in good]
        given_up = await jobs.ended(bad.name, timeout_s=120)
        assert [(await jobs.ended(job.name)).state for job in others] == [SUCCEEDED] * len(good)
    finally:
        worker.kill()
    assert (given_up.state, given_up.attempts) == (FAILED, 3)
    assert "worker died" in given_up.error.message
    kinds = [event.kind for event in await jobs.events(bad.name)]
    assert kinds.count(job_pb2.JOB_EVENT_KIND_WORKER_LOST) == 2
    assert kinds.count(job_pb2.JOB_EVENT_KIND_ENDED) == 1


async def test_a_worker_that_is_killed_between_end_and_message_loses_none(
    world: World, jobs: Jobs, tmp_path: Path
) -> None:
    async with open_receiver() as receiver, hooked(world, receiver) as secret:
        worker = WorkerProcess(world, tmp_path / "worker.log")
        async with world.ledger.pool.connection() as connection:
            # Messages can be written to nobody while this is held; whoever tells the ledger waits, or fails.
            await connection.execute("LOCK TABLE ledger.webhooks IN ACCESS EXCLUSIVE MODE")
            worker.start()
            try:
                job = await jobs.create(*many(world, 1))
                assert (await jobs.ended(job.name)).state == SUCCEEDED
            finally:
                worker.kill()
            assert receiver.got == []
            await connection.rollback()
        await until_so(lambda: heard(receiver, 1))
        async with worker_of(world):
            other = await jobs.create(*many(world, 1))
            await until_so(lambda: heard(receiver, 2))
        found = {message["data"]["job"] for message in receiver.told(secret)}
        assert found == {job.name, other.name}
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2


def _paid(mistral: MistralServer) -> dict[str, object]:
    return {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}


@asynccontextmanager
async def _killed_workers(world: World, mistral: MistralServer, folder: Path) -> AsyncIterator["asyncio.Task[None]"]:
    """Workers, and who kills one of them again and again, until he is cancelled."""
    workers = [
        WorkerProcess(world, folder / f"worker-{number}.log", **_paid(mistral), job_lease_s=1, job_tenant_places=50)
        for number in range(_WORKERS)
    ]
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.callback(worker.kill)
            worker.start()
        killing = asyncio.create_task(_kill_again_and_again(workers, _CHANCE))
        stack.callback(killing.cancel)
        yield killing


async def _tried(jobs: Jobs, name: str, attempts: int) -> bool:
    """Whether a worker is at it for so many times."""
    job = await jobs.get(name)
    return (job.state, job.attempts) == (job_pb2.JOB_STATE_RUNNING, attempts)


async def _over(jobs: Jobs, batch: str, killing: "asyncio.Task[None]") -> bool:
    if killing.done():
        killing.result()
    counts = await jobs.counts(batch)
    return counts.queued + counts.running == 0


async def _kill_again_and_again(workers: list[WorkerProcess], chance: random.Random) -> None:
    """One of them each second after it is ready, so that there is work to be lost."""
    while True:
        worker = chance.choice(workers)
        await until_so(worker.ready, timeout_s=120)
        await asyncio.sleep(1)
        worker.kill()
        worker.start()
