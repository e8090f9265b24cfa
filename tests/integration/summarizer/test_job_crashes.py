"""Hundreds of jobs while their workers are killed every second: each ends once, and the bill stays in the books."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.mistral_server import MistralServer
from tests.integration.ledger.receivers import open_receiver
from tests.integration.summarizer.conftest import MODEL, Start, World, until_so
from tests.integration.summarizer.hooks import heard, hooked
from tests.integration.summarizer.job_calls import SUCCEEDED, Jobs, WorkerProcess, jobs_at, worker_of
from tests.integration.summarizer.test_jobs import all_done, each_ended_once, many

_JOBS = int(os.environ.get("PAGEMESH_CRASHED_JOBS", "500"))
_WORKERS = 2
_DONE_S = 1800.0


@pytest.fixture
async def jobs(world: World, start: Start) -> AsyncIterator[Jobs]:
    client = await start()
    async with jobs_at(world, client.target) as calls:
        yield calls


@pytest.mark.timeout(3600)
async def test_workers_killed_every_second(world: World, jobs: Jobs, mistral: MistralServer, tmp_path: Path) -> None:
    chance = random.Random(6)
    paid = {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}
    batch = await jobs.batch(many(world, _JOBS), max_attempts=20)
    mistral.script(*(f"slow:{chance.uniform(0, 0.2):.3f}" for _ in range(3 * _JOBS)))
    workers = [
        WorkerProcess(world, tmp_path / f"worker-{number}.log", **paid, job_lease_s=1, job_tenant_places=50)
        for number in range(_WORKERS)
    ]
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.callback(worker.kill)
            worker.start()
        killing = asyncio.create_task(_kill_again_and_again(workers, chance))
        stack.callback(killing.cancel)
        await until_so(lambda: _over(jobs, batch.name, killing), timeout_s=_DONE_S, poll_s=0.5)
        assert await all_done(jobs, batch.name, _JOBS), await jobs.counts(batch.name)
        # What the last calls owe is told by a worker that lives.
        killing.cancel()
        await each_ended_once(world, jobs, batch.name, mistral)


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
