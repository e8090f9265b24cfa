"""The urgent calls of a tenant go first in front of a model."""

import asyncio

import pytest

from services.summarizer.adapters.guarded import GuardedProvider
from tests.unit.summarizer.text.test_guarded import PROMPT, Scripted, Waits


@pytest.fixture
def waits() -> Waits:
    return Waits()


async def test_an_urgent_call_does_not_wait_for_the_jobs_of_its_tenant(waits: Waits) -> None:
    provider = Scripted()
    provider.gate.clear()
    rank = [2]
    guarded = GuardedProvider(
        provider,
        remaining_s=lambda: None,
        tenant=lambda: "acme",
        rank=lambda: rank[0],
        concurrency=3,
        sleep=waits.sleep,
    )
    jobs = [asyncio.create_task(guarded.complete(PROMPT)) for _ in range(10)]
    while provider.running < 2:
        await asyncio.sleep(0)
    rank[0] = 0
    urgent = [asyncio.create_task(guarded.complete(PROMPT)) for _ in range(2)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert provider.running == 3, "one begins at once, on the place that jobs do not take"
    provider.gate.set()
    await asyncio.wait(urgent)
    assert not all(job.done() for job in jobs)
    await asyncio.gather(*jobs, *urgent)
    assert provider.most_running == 3
