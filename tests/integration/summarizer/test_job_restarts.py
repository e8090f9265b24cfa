"""Postgres itself is restarted under running jobs: once in good order, and once as if the power had failed."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pagemesh.summarizer.v1 import job_pb2
from pagemesh_cli.stack.checkout import SERVICES
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.postgres import PostgresServer
from pagemesh_cli.stack.process import Process
from services.runtime.errors import PagemeshError
from tests.conftest import _ROLES, Databases
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import MODEL, Start, World, until, until_so
from tests.integration.summarizer.job_calls import Jobs, WorkerProcess, jobs_at
from tests.integration.summarizer.test_jobs import many

_JOBS = 24


@dataclass
class OwnServer:
    """A PostgreSQL that nobody else has."""

    databases: Databases
    process: Process
    folder: Path

    async def restart(self, how: signal.Signals) -> None:
        """SIGINT breaks off what runs and writes everything; SIGQUIT goes at once, and the log is read at the start."""
        os.kill(self.process.pid, how)
        await asyncio.to_thread(self.process.stop)
        # By this thread: a server ends with the thread that started it.
        self.process = Process(self.databases.server.spec())
        await asyncio.to_thread(self.process.wait_ready, self.databases.server.check, timeout_s=60)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    folder = tmp_path_factory.mktemp("own-postgres")
    password, passwords = secrets.token_hex(16), {service: secrets.token_hex(16) for service in SERVICES}
    server = PostgresServer(
        directory=folder / "postgres", port=pick_free_port(), password=password, log=folder / "postgres.log"
    )
    server.initialise()
    own = OwnServer(Databases(server, password, passwords), Process(server.spec()), folder)
    try:
        own.process.wait_ready(server.check, timeout_s=60)
        server.ensure_database("with_roles")
        server.apply_roles(_ROLES, passwords, database="with_roles")
        yield own
    finally:
        own.process.stop()
        server.close()


@pytest.fixture(scope="module")
def postgres_server(own_server: OwnServer) -> Databases:
    """In the place of the one that all tests share."""
    return own_server.databases


@pytest.fixture
async def jobs(world: World, start: Start) -> AsyncIterator[Jobs]:
    client = await start()
    async with jobs_at(world, client.target) as calls:
        yield calls


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["in good order", "at once"])
async def test_postgres_is_restarted_under_running_jobs(
    world: World, jobs: Jobs, mistral: MistralServer, own_server: OwnServer, how: signal.Signals
) -> None:
    paid = {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}
    before = mistral.calls
    batch = await jobs.batch(many(world, _JOBS), max_attempts=20)
    mistral.script(*(f"slow:{0.1 * (number % 5)}" for number in range(4 * _JOBS)))
    async with AsyncExitStack() as stack:
        for number in range(2):
            worker = WorkerProcess(world, own_server.folder / f"{how.name}-{number}.log", **paid, job_tenant_places=50)
            stack.callback(worker.kill)
            worker.start()
        await until(lambda: mistral.calls >= before + 5, timeout_s=300)
        await own_server.restart(how)
        await until_so(lambda: _over(jobs, batch.name), timeout_s=600, poll_s=0.5)
        assert (await jobs.counts(batch.name)).succeeded == _JOBS
    for job in await jobs.listed(batch=batch.name):
        events = await jobs.events(job.name)
        assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
        assert [event.kind for event in events].count(job_pb2.JOB_EVENT_KIND_ENDED) == 1
    # What a call brought while the database was away was kept until it was back: nothing was bought once more.
    settled = [event for event in await world.ledger.events() if event[1]]
    assert len(settled) == mistral.calls - before == _JOBS


async def _over(jobs: Jobs, batch: str) -> bool:
    counts = job_pb2.JobCounts(queued=1)
    with contextlib.suppress(PagemeshError):  # the database is away for a moment
        counts = await jobs.counts(batch)
    return counts.queued + counts.running == 0
