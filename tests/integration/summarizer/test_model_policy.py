"""A tenant's policy of models in the real service, at two replicas and at a worker."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.summarizer.v1 import job_pb2, model_policy_pb2
from pagemesh.summarizer.v1 import model_policy_service_pb2 as pb
from pagemesh.summarizer.v1 import summarizer_service_pb2 as service_pb2
from services.runtime.errors import PermissionDenied, ResourceExhausted
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import DOCUMENT, MODEL, Client, Start, World, metadata
from tests.integration.summarizer.job_calls import FAILED, Jobs, worker_of
from tests.integration.summarizer.peers import Script
from tests.integration.summarizer.test_fields import asked

OFFLINE = "offline/lexrank"


async def update(client: Client, *paths: str, **policy: object) -> model_policy_pb2.ModelPolicy:
    request = pb.UpdateModelPolicyRequest(
        model_policy=model_policy_pb2.ModelPolicy(**policy),  # type: ignore[arg-type]  # tests name what they set
        update_mask=FieldMask(paths=paths),
    )
    answer = await client.policy.UpdateModelPolicy(request, metadata=metadata(client.tenant))
    found: model_policy_pb2.ModelPolicy = answer.model_policy
    return found


async def test_a_tenant_chooses_who_sees_its_documents(
    client: Client, start: Start, paid: dict[str, object], document: Script, mistral: MistralServer
) -> None:
    made = await update(client, default_model=OFFLINE, allowed_models=["offline/*"])
    assert (made.name, made.HasField("update_time")) == ("modelPolicy", True)
    replica = await start(**paid)
    for one in (client, replica):
        summary = await one.summarize()
        assert (summary.model, summary.degraded_from) == (OFFLINE, "")
        with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
            await one.summarize(model=MODEL)
        with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
            await one.summarize(fallback_models=[MODEL])
    request = service_pb2.EstimateRequest(document=DOCUMENT, summary=service_pb2.SummaryOptions(model=MODEL))
    with pytest.raises(PermissionDenied, match="MODEL_NOT_ALLOWED"):
        await asked(client.stub.Estimate, request, client.tenant)
    assert mistral.calls == 0
    cleared = await update(client, "default_model", "allowed_models")
    assert (cleared.default_model, list(cleared.allowed_models)) == ("", [])
    assert (await client.summarize()).model == MODEL


@pytest.mark.usefixtures("document")
async def test_a_job_that_waits_goes_by_the_policy_of_the_day_it_is_done(
    world: World, client: Client, paid: dict[str, object], jobs: Jobs, mistral: MistralServer
) -> None:
    work = job_pb2.JobWork(summarize=service_pb2.SummaryOptions(model=MODEL))
    job = await jobs.create(DOCUMENT, work=work)
    await update(client, allowed_models=["offline/*"])
    async with worker_of(world, **paid):
        ended = await jobs.ended(job.name)
    assert ended.state == FAILED
    assert "does not let" in ended.error.message
    assert mistral.calls == 0


@pytest.mark.usefixtures("document")
async def test_replicas_share_what_a_model_takes_in_a_minute(
    start: Start, paid: dict[str, object], mistral: MistralServer
) -> None:
    first, second = [await start(**paid, model_rates="mistral/*=0:1") for _ in range(2)]
    assert (await first.summarize()).model == MODEL
    with pytest.raises(ResourceExhausted, match="PROVIDER_RATE_LIMITED") as refused:
        await second.summarize(focus="honey", timeout_s=20)
    assert 0 < (refused.value.retry_after_s or 0) <= 60
    assert mistral.calls == 1
    summary = await second.summarize(focus="honey", timeout_s=20, fallback_models=[OFFLINE])
    assert (summary.model, summary.degraded_from) == (OFFLINE, MODEL)
