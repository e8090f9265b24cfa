"""Webhooks hear how jobs ended: a real worker, a real ledger, a real receiver."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pagemesh.summarizer.v1 import job_service_pb2 as service_pb2
from services.webhooks.signature import secret_text
from tests.integration.ledger.receivers import Receiver, open_receiver
from tests.integration.summarizer.conftest import Start, World, until_so
from tests.integration.summarizer.hooks import heard, hooked
from tests.integration.summarizer.job_calls import Jobs, jobs_at, worker_of
from tests.integration.summarizer.test_jobs import many


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


@pytest.fixture
async def jobs(world: World, start: Start) -> AsyncIterator[Jobs]:
    client = await start()
    async with jobs_at(world, client.target) as calls:
        yield calls


@pytest.fixture
async def secret(world: World, receiver: Receiver) -> AsyncIterator[str]:
    async with hooked(world, receiver) as told:
        yield told


async def test_a_batch_and_its_jobs_are_told_signed_and_with_their_cost(
    world: World, jobs: Jobs, receiver: Receiver, secret: str
) -> None:
    receiver.statuses = [500, 302]
    batch = await jobs.batch([*many(world, 2), "documents/" + "f" * 32])
    async with worker_of(world):
        await until_so(lambda: heard(receiver, 3 + 1 + 2))
    told = {
        headers["webhook-id"]: message
        for (headers, _), message in zip(receiver.got, receiver.told(secret), strict=True)
    }
    assert len(told) == 4, "what was sent again has its id"
    by_type: dict[str, list[dict[str, Any]]] = {}
    for message in told.values():
        by_type.setdefault(message["type"], []).append(message["data"])
    assert {kind: len(found) for kind, found in by_type.items()} == {
        "job.succeeded": 2,
        "job.failed": 1,
        "batch.ended": 1,
    }
    (failed,), (ended,) = by_type["job.failed"], by_type["batch.ended"]
    assert (failed["state"], failed["reason"]) == ("FAILED", "DOCUMENT_NOT_FOUND")
    assert (ended["batch"], ended["succeeded"], ended["failed"], ended["cancelled"]) == (batch.name, 2, 1, 0)
    costs = [data["cost_micros"] for data in by_type["job.succeeded"]]
    assert sum(costs) == sum(cost for *_, cost in await world.ledger.events())
    assert all(cost > 0 for cost in costs)
    assert (ended["currency"], ended["cost_micros"]) == ("USD", sum(costs))
    found = (await jobs.call("GetBatch", service_pb2.GetBatchRequest(name=batch.name))).batch
    assert (found.spent.currency, found.spent.micros) == ("USD", sum(costs))
    assert {data["batch"] for data in (*by_type["job.succeeded"], failed)} == {batch.name}
    assert {data["tenant"] for message in told.values() for data in [message["data"]]} == {f"tenants/{world.tenant}"}


async def test_the_receiver_of_the_docs_checks_a_message(
    world: World, jobs: Jobs, receiver: Receiver, secret: str
) -> None:
    await jobs.cancel((await jobs.create(*many(world, 1))).name)
    await until_so(lambda: heard(receiver, 1))
    ((headers, body),) = receiver.got
    page = (Path(__file__).parents[3] / "docs/webhooks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    space: dict[str, Any] = {}
    exec(example, space)  # the page's own example
    verify: Callable[[str, dict[str, str], bytes], dict[str, Any]] = space["verify"]
    assert verify(secret, headers, body)["type"] == "job.cancelled"
    for wrong in (
        (secret_text(b"another"), headers, body),
        (secret, headers, body.replace(b"cancelled", b"succeeded")),
        (secret, {**headers, "webhook-timestamp": "1"}, body),
        (secret, {**headers, "webhook-id": "another"}, body),
    ):
        with pytest.raises(ValueError, match="webhook"):
            verify(*wrong)
