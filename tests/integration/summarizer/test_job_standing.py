"""Jobs of those who may not have them done any more."""

import pytest

from pagemesh.summarizer.v1 import job_pb2
from pagemesh.summarizer.v1 import job_service_pb2 as service_pb2
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import DOCUMENT, World, until_so
from tests.integration.summarizer.job_calls import Jobs, worker_of
from tests.integration.summarizer.peers import ALL_SCOPES

pytestmark = pytest.mark.usefixtures("document")


async def test_a_job_of_a_key_that_ended_is_not_done_and_one_of_a_suspended_tenant_waits(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    key = world.ledger.identity.key
    revoked, narrowed, waiting = [await jobs.create(DOCUMENT) for _ in range(3)]
    key.revoke_time.FromSeconds(1_700_000_000)
    async with worker_of(world, **paid):
        ended = await jobs.ended(revoked.name)
        assert (ended.state, ended.attempts) == (job_pb2.JOB_STATE_FAILED, 1)
        assert "was revoked" in ended.error.message
        await jobs.ended(narrowed.name)
        await jobs.ended(waiting.name)
        key.ClearField("revoke_time")
        key.scopes[:] = ["jobs.create"]
        await jobs.call("RetryJob", service_pb2.RetryJobRequest(name=narrowed.name))
        assert "summaries.create" in (await jobs.ended(narrowed.name)).error.message
        key.scopes[:] = ALL_SCOPES
        world.ledger.identity.tenant_active = False
        await jobs.call("RetryJob", service_pb2.RetryJobRequest(name=waiting.name))

        async def postponed() -> bool:
            job = await jobs.get(waiting.name)
            return job.attempts == 2 and job.state == job_pb2.JOB_STATE_QUEUED

        await until_so(postponed)
    assert mistral.calls == 0
