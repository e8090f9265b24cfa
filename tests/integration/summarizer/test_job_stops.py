"""A worker that is told to stop under load hands everything back, and loses, repeats and pays nothing."""

from pathlib import Path

import pytest

from pagemesh.summarizer.v1 import job_pb2
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import MODEL, World, until, until_so
from tests.integration.summarizer.job_books import bill_is_in_the_books, everything_is_told
from tests.integration.summarizer.job_calls import Jobs, WorkerProcess
from tests.integration.summarizer.test_jobs import all_done, each_ended_once, many

_JOBS, _PLACES = 30, 6


@pytest.mark.timeout(600)
async def test_a_worker_that_stops_under_load_hands_everything_back(
    world: World, jobs: Jobs, mistral: MistralServer, tmp_path: Path
) -> None:
    paid = {"default_model": MODEL, "mistral_api_key": "a key", "mistral_url": mistral.url}
    batch = await jobs.batch(many(world, _JOBS), max_attempts=1)
    mistral.script(*(["ok"] * 3 + ["hang"] * _PLACES))
    places = {"job_places": _PLACES, "job_tenant_places": 50, "shutdown_s": 1}
    worker = WorkerProcess(world, tmp_path / "first.log", **paid, **places)
    worker.start()
    try:
        await until(lambda: mistral.calls == 3 + _PLACES, timeout_s=120)
        worker.terminate()
        await until(lambda: worker.exit_code() is not None, timeout_s=60)
        assert worker.exit_code() == 0
    finally:
        worker.kill()
    counts = await jobs.counts(batch.name)
    assert (counts.succeeded, counts.queued, counts.running, counts.failed) == (3, _JOBS - 3, 0, 0)
    back = [job for job in await jobs.listed(batch=batch.name) if job.attempts and not job.HasField("end_time")]
    assert len(back) == _PLACES
    assert {job.state for job in back} == {job_pb2.JOB_STATE_QUEUED}
    second = WorkerProcess(world, tmp_path / "second.log", **paid, **places)
    second.start()
    try:
        # One attempt is all that they have: what was handed back was none.
        await until_so(lambda: all_done(jobs, batch.name, _JOBS), timeout_s=120)
        await everything_is_told(world)
    finally:
        second.kill()
    await each_ended_once(world, jobs, batch.name, mistral)
    await bill_is_in_the_books(world, mistral)
    assert mistral.calls == _JOBS + _PLACES
