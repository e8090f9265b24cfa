"""The priority of jobs holds in the queue in front of a model as well."""

from pagemesh.summarizer.v1 import job_pb2
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import World, until, until_so
from tests.integration.summarizer.job_calls import SUCCEEDED, Jobs, worker_of
from tests.integration.summarizer.test_jobs import many

_PLACES = 9
"""Calls to a model that a process has under way for jobs that are not urgent."""


async def test_an_urgent_job_does_not_wait_for_the_calls_of_its_tenants_batches(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    mistral.script(*["hang"] * _PLACES)
    batch = await jobs.batch(many(world, 12), priority=job_pb2.JOB_PRIORITY_BATCH)
    async with worker_of(world, **paid, job_places=12, job_tenant_places=50, shutdown_s=0.1):
        await until(lambda: mistral.calls == _PLACES)
        await until_so(lambda: _running(jobs, batch.name, 12))
        urgent = await jobs.ended((await jobs.create(*many(world, 1), priority=job_pb2.JOB_PRIORITY_URGENT)).name)
        assert urgent.state == SUCCEEDED, urgent.error
        assert mistral.calls == _PLACES + 1, "all calls of the batch hang, and the others of it wait"
        assert (await jobs.counts(batch.name)).running == 12


async def _running(jobs: Jobs, batch: str, count: int) -> bool:
    return (await jobs.counts(batch)).running == count
