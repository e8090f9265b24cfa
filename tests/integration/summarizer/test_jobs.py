"""Jobs in the real service, with real workers, Postgres and ledger, and a provider that keeps its own bill."""

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf import json_format, timestamp_pb2

from pagemesh.common.v1 import money_pb2
from pagemesh.summarizer.v1 import job_pb2, job_work_pb2
from pagemesh.summarizer.v1 import job_service_pb2 as service_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as summarizer_pb2
from services.runtime import status
from services.runtime.errors import NotFound, PermissionDenied, ResourceExhausted, Unavailable
from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import (
    BEES,
    DANCES,
    DOCUMENT,
    Start,
    World,
    connected,
    metadata,
    until,
    until_so,
)
from tests.integration.summarizer.job_calls import (
    CANCELLED,
    ENDED,
    FAILED,
    SUCCEEDED,
    Jobs,
    WorkerProcess,
    worker_of,
)
from tests.integration.summarizer.peers import Script

pytestmark = pytest.mark.usefixtures("document")
EXTRACT = job_pb2.JobWork(extract=job_pb2.ExtractPagesWork())


def many(world: World, count: int) -> list[str]:
    """New documents, each with a text of its own."""
    made = [f"documents/{uuid.uuid4().hex}" for _ in range(count)]
    for document in made:
        world.extractor.documents[world.tenant, document] = Script((f"{document} is here. {BEES}", DANCES))
    return made


async def usage_by_job(world: World) -> dict[str, int]:
    """What was paid for each job in micro-units."""
    rows = await world.ledger._rows(
        "SELECT job, sum(cost_micros)::bigint FROM ledger.usage_records WHERE tenant = %s AND input_tokens > 0 "
        "GROUP BY job"
    )
    return dict(rows)


async def test_a_job_is_done_paid_on_its_account_and_told(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object], start: Start
) -> None:
    job = await jobs.create(DOCUMENT, priority=job_pb2.JOB_PRIORITY_URGENT)
    assert (job.state, job.document, job.actor) == (job_pb2.JOB_STATE_QUEUED, DOCUMENT, "apiKeys/0123456789abcdef")
    watching = asyncio.create_task(jobs.events(job.name))
    async with worker_of(world, **paid):
        done = await jobs.ended(job.name)
    assert done.state == SUCCEEDED, done.error
    assert done.result.summary.text
    assert done.result.summary.document == DOCUMENT
    assert done.progress.page_count == 2
    events = await watching
    assert [event.sequence for event in events] == list(range(1, done.last_sequence + 1))
    assert [events[0].kind, events[1].kind, events[-1].kind] == [
        job_pb2.JOB_EVENT_KIND_QUEUED, job_pb2.JOB_EVENT_KIND_STARTED, job_pb2.JOB_EVENT_KIND_ENDED
    ]  # fmt: skip
    for after in range(done.last_sequence + 1):
        assert await jobs.events(job.name, after=after) == events[after:]
    assert list(await usage_by_job(world)) == [job.name]
    cost = done.result.summary.consumption.cost.micros
    assert (await usage_by_job(world))[job.name] == cost > 0
    assert mistral.calls == 1
    (listed,) = await jobs.listed(document=DOCUMENT)
    assert (listed.name, listed.HasField("result")) == (job.name, False)
    # Whoever asks for the same finds it in the cache: jobs warm it.
    asked = await start(**paid)
    while not (warm := await asked.summarize()).cached:  # on a busy machine the cache may miss its 50 ms
        assert warm.consumption.cost.micros == 0
    assert warm.text == done.result.summary.text
    assert mistral.calls == 1


async def test_fields_and_an_answer_are_made_by_a_worker_and_paid_on_their_jobs(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    schema = {"type": "object", "properties": {"maker": {"type": "string"}}}
    fields = job_pb2.JobWork()
    json_format.ParseDict(schema, fields.extract_fields.json_schema)
    asked = job_pb2.JobWork(ask=job_work_pb2.AskWork(question="What do bees make of nectar?"))
    mistral.script('say:{"fields": [{"pointer": "/maker", "value": "Bees", "quote": "Bees make honey", "page": 1}]}')
    first = await jobs.create(DOCUMENT, work=fields)
    async with worker_of(world, **paid):
        found = await jobs.ended(first.name)
        second = await jobs.create(DOCUMENT, work=asked)
        answered = await jobs.ended(second.name)
        again = await jobs.ended((await jobs.create(DOCUMENT, work=asked)).name)
    assert found.state == SUCCEEDED, found.error
    assert json_format.MessageToDict(found.result.extraction.json) == {"maker": "Bees"}
    assert found.result.extraction.fields[0].grounded
    assert json_format.MessageToDict(found.work.extract_fields.json_schema) == schema
    assert answered.state == SUCCEEDED, answered.error
    assert answered.result.answer.found
    assert again.result.answer.cached
    cost = {
        first.name: found.result.extraction.consumption.cost.micros,
        second.name: answered.result.answer.consumption.cost.micros,
    }
    assert await usage_by_job(world) == cost
    assert min(cost.values()) > 0
    assert mistral.calls == 2
    listed = {job.name: job.work for job in await jobs.listed(document=DOCUMENT)}
    assert not listed[first.name].extract_fields.HasField("json_schema")
    assert listed[second.name].ask.question == asked.ask.question


async def test_a_job_that_ran_into_its_bound_goes_on_with_a_larger_one(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    job = await jobs.create(DOCUMENT, max_cost=money_pb2.Money(currency="USD", micros=1))
    async with worker_of(world, **paid):
        failed = await jobs.ended(job.name)
        assert (failed.state, failed.attempts, failed.spent.micros, mistral.calls) == (FAILED, 1, 0, 0)
        assert "RetryJob with a larger max_cost" in failed.error.message
        more = money_pb2.Money(currency="USD", micros=1_000_000)
        await jobs.call("RetryJob", service_pb2.RetryJobRequest(name=job.name, max_cost=more))
        done = await jobs.ended(job.name)
    assert done.state == SUCCEEDED, done.error
    assert done.max_cost == more
    assert await usage_by_job(world) == {job.name: done.spent.micros}


async def test_jobs_create_alone_has_nothing_done(world: World, jobs: Jobs, mistral: MistralServer) -> None:
    alone = tuple((k, "jobs.create" if k == "x-pagemesh-scopes" else v) for k, v in metadata(world.tenant))
    queued = await jobs.create(DOCUMENT)
    await jobs.cancel(queued.name)
    ask = job_pb2.JobWork(ask=job_work_pb2.AskWork(question="Who?"))
    fields = job_pb2.JobWork(extract_fields=job_work_pb2.ExtractFieldsWork(schema="schemas/any"))
    summarize = job_pb2.JobWork(summarize=summarizer_pb2.SummaryOptions())
    calls: list[tuple[str, Any, str]] = [
        ("RetryJob", service_pb2.RetryJobRequest(name=queued.name), "summaries.create")
    ]
    for work, scope in (
        (summarize, "summaries.create"), (EXTRACT, "documents.read"), (fields, "fields.create"), (ask, "answers.create")
    ):  # fmt: skip
        calls.append(("CreateJob", service_pb2.CreateJobRequest(document=DOCUMENT, work=work), scope))
        calls.append(("BatchCreateJobs", service_pb2.BatchCreateJobsRequest(documents=[DOCUMENT], work=work), scope))
    for method, request, scope in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(jobs.stub, method)(request, timeout=30, metadata=alone)
        error = status.from_rpc_error(refused.value, service="summarizer")
        assert (type(error), error.reason, error.metadata["scope"]) == (PermissionDenied, "SCOPE_MISSING", scope)
    (only,) = await jobs.listed()
    assert (only.name, only.state) == (queued.name, CANCELLED)


async def test_a_batch_its_dead_letter_and_its_retry(world: World, jobs: Jobs, paid: dict[str, object]) -> None:
    documents = many(world, 3)
    missing = world.extractor.documents.pop((world.tenant, documents[1]))
    request_id = str(uuid.uuid4())
    batch = await jobs.batch(documents, work=EXTRACT, request_id=request_id)
    assert await jobs.batch(documents, work=EXTRACT, request_id=request_id) == batch
    assert (batch.counts.total, batch.counts.queued) == (3, 3)
    request = service_pb2.WatchBatchRequest(name=batch.name)
    watch = jobs.stub.WatchBatch(request, timeout=60, metadata=metadata(world.tenant))
    async with worker_of(world, **paid):
        answers = [answer async for answer in watch]
        assert (answers[-1].counts.succeeded, answers[-1].counts.failed) == (2, 1)
        (dead,) = await jobs.listed(batch=batch.name, state=FAILED)
        assert (dead.document, dead.attempts, dead.error.code) == (documents[1], 1, grpc.StatusCode.NOT_FOUND.value[0])
        world.extractor.documents[world.tenant, documents[1]] = missing
        await jobs.call("RetryJob", service_pb2.RetryJobRequest(name=dead.name))
        retried = await jobs.ended(dead.name)
    assert (retried.state, retried.result.extract.pages_read) == (SUCCEEDED, 2)
    assert (await jobs.counts(batch.name)).succeeded == 3


async def test_of_another_tenant_there_is_nothing(world: World, jobs: Jobs) -> None:
    job = await jobs.create(DOCUMENT)
    batch = await jobs.batch([DOCUMENT])
    other = f"t-{uuid.uuid4().hex}"
    calls = [
        ("GetJob", service_pb2.GetJobRequest(name=job.name)),
        ("CancelJob", service_pb2.CancelJobRequest(name=job.name)),
        ("RetryJob", service_pb2.RetryJobRequest(name=job.name)),
        ("GetBatch", service_pb2.GetBatchRequest(name=batch.name)),
        ("CreateJob", service_pb2.CreateJobRequest(document=DOCUMENT, work=EXTRACT)),
    ]
    for method, request in calls:
        with pytest.raises(NotFound):
            await jobs.call(method, request, tenant=other)
    for method, request in [
        ("WatchJob", service_pb2.WatchJobRequest(name=job.name)),
        ("WatchBatch", service_pb2.WatchBatchRequest(name=batch.name)),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in getattr(jobs.stub, method)(request, timeout=30, metadata=metadata(other)):
                pass
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert (await jobs.call("ListJobs", service_pb2.ListJobsRequest(), tenant=other)).jobs == []
    assert (await jobs.get(job.name)).state == job_pb2.JOB_STATE_QUEUED


async def test_a_running_job_is_cancelled_and_its_call_stays_in_the_books(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    mistral.script("hang")
    job = await jobs.create(DOCUMENT)
    async with worker_of(world, **paid, job_lease_s=1):
        await until(lambda: mistral.calls == 1)
        assert (await jobs.cancel(job.name)).state == CANCELLED
        await until(lambda: mistral.books.cancelled == 1, timeout_s=60)
        await until(lambda: not world.extractor.held, timeout_s=60)
    assert (await jobs.get(job.name)).state == CANCELLED
    # Nobody can say whether the call is on the bill.
    assert list((await world.ledger.holds()).values()) == ["HELD"]


async def test_a_worker_that_stops_hands_back_and_another_one_finishes(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    world.extractor.documents[world.tenant, DOCUMENT] = script = Script((BEES, DANCES), hang_after=1)
    job = await jobs.create(DOCUMENT)
    async with worker_of(world, **paid, shutdown_s=0.1):
        await until(lambda: world.extractor.reading == 1)
    assert (await jobs.get(job.name)).state == job_pb2.JOB_STATE_QUEUED
    script.hang_after = None
    async with worker_of(world, **paid):
        done = await jobs.ended(job.name)
    assert (done.state, done.attempts, mistral.calls) == (SUCCEEDED, 2, 1)
    kinds = [event.kind for event in await jobs.events(job.name)]
    assert job_pb2.JOB_EVENT_KIND_HANDED_BACK in kinds


async def test_with_its_document_goes_what_was_to_be_made_of_it(
    world: World, jobs: Jobs, start: Start, mistral: MistralServer, paid: dict[str, object]
) -> None:
    done = await jobs.create(DOCUMENT)
    async with worker_of(world, **paid):
        assert (await jobs.ended(done.name)).HasField("result")
    queued = await jobs.create(DOCUMENT)
    client = await start(**paid)
    async with connected(world.pki, client.target, world.tenant, identity="extractor") as extractor:
        request = summarizer_pb2.PurgeDocumentRequest(document=DOCUMENT)
        await extractor.stub.PurgeDocument(request, metadata=metadata(world.tenant), timeout=20)
    failed = await jobs.get(queued.name)
    assert failed.state == FAILED
    assert "deleted" in failed.error.message
    erased = await jobs.get(done.name)
    assert (erased.state, erased.HasField("result")) == (SUCCEEDED, False)


async def test_a_full_queue_says_when_to_come_again(world: World, jobs: Jobs) -> None:
    later = timestamp_pb2.Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    await jobs.batch(many(world, 99), work=EXTRACT, schedule_time=later)
    await jobs.create(DOCUMENT, schedule_time=later)
    with pytest.raises(ResourceExhausted) as full:
        await jobs.create(DOCUMENT)
    assert (full.value.reason, full.value.retry_after_s) == ("JOB_QUEUE_FULL", 10)


async def test_one_tenants_flood_holds_up_nobody_else(world: World, jobs: Jobs, paid: dict[str, object]) -> None:
    script = Script((BEES,), hang_after=0)
    flood = many(world, 50)
    for document in flood:
        world.extractor.documents[world.tenant, document] = script
    await jobs.batch(flood, work=EXTRACT)
    other = f"t-{uuid.uuid4().hex}"
    await world.ledger.admit(other)
    world.extractor.documents[other, DOCUMENT] = Script((BEES, DANCES))
    async with worker_of(world, **paid, job_places=2, job_tenant_places=1):
        await until(lambda: world.extractor.reading == 1)
        normal = service_pb2.CreateJobRequest(document=DOCUMENT, work=EXTRACT)
        urgent = service_pb2.CreateJobRequest(document=DOCUMENT, work=EXTRACT, priority=job_pb2.JOB_PRIORITY_URGENT)
        names = [(await jobs.call("CreateJob", request, tenant=other)).job.name for request in (normal, urgent)]
        for name in names:

            async def done(name: str = name) -> bool:
                return (await jobs.get(name, tenant=other)).state == SUCCEEDED

            await until_so(done, timeout_s=60)
        assert len(await jobs.listed(state=job_pb2.JOB_STATE_RUNNING)) == 1
        script.hang_after = None
        script.go_on.set()


async def test_the_database_goes_away_and_comes_back(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object]
) -> None:
    mistral.script("slow:1")
    job = await jobs.create(DOCUMENT)
    async with worker_of(world, **paid):
        await until(lambda: mistral.calls == 1)
        watching = asyncio.create_task(jobs.events(job.name))
        await until_so(lambda: _watched(jobs, job.name))
        world.wires["postgres"].cut()
        world.wires["postgres"].mend()
        done = await ended_through_faults(jobs, job.name)
    assert done.state == SUCCEEDED
    events = await _rest(jobs, job.name, watching)
    assert [event.sequence for event in events] == list(range(1, done.last_sequence + 1))
    assert [event.kind for event in events].count(job_pb2.JOB_EVENT_KIND_ENDED) == 1


async def ended_through_faults(jobs: Jobs, name: str) -> job_pb2.Job:
    """The job when it has ended, asked again whenever the service cannot answer."""

    async def ended() -> bool:
        with contextlib.suppress(Unavailable):
            return (await jobs.get(name)).state in ENDED
        return False

    await until_so(ended, timeout_s=60)
    return await jobs.get(name)


async def _watched(jobs: Jobs, name: str) -> bool:
    return (await jobs.get(name)).state == job_pb2.JOB_STATE_RUNNING


async def _rest(jobs: Jobs, name: str, watching: "asyncio.Task[list[job_pb2.JobEvent]]") -> list[job_pb2.JobEvent]:
    """What the watcher saw, or what one sees who comes again."""
    try:
        return await watching
    except grpc.aio.AioRpcError:
        return await jobs.events(name)


@pytest.mark.long
async def test_workers_that_are_killed_lose_nothing_and_pay_nothing_twice(
    world: World, jobs: Jobs, mistral: MistralServer, paid: dict[str, object], tmp_path: Path
) -> None:
    """The short form of test_job_crashes.py."""
    batch = await jobs.batch(many(world, 20), max_attempts=20)
    mistral.script(*(f"slow:{0.05 * (number % 5)}" for number in range(200)))
    worker = WorkerProcess(world, tmp_path / "worker.log", **paid, job_lease_s=1, job_tenant_places=50)
    try:
        for kill in range(3):
            worker.start()
            await until_so(worker.ready, timeout_s=60)
            await until(lambda kill=kill: mistral.calls >= 3 * (kill + 1), timeout_s=60)  # type: ignore[misc]
            worker.kill()
        worker.start()
        await until_so(lambda: all_done(jobs, batch.name, 20), timeout_s=120)
    finally:
        worker.kill()
    await each_ended_once(world, jobs, batch.name, mistral)


async def all_done(jobs: Jobs, batch: str, count: int) -> bool:
    return (await jobs.counts(batch)).succeeded == count


async def each_ended_once(world: World, jobs: Jobs, batch: str, mistral: MistralServer) -> None:
    """Every job ended exactly once, every call on the bill is settled or held, and no answer was bought twice."""
    for job in await jobs.listed(batch=batch):
        events = await jobs.events(job.name)
        assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
        assert [event.kind for event in events].count(job_pb2.JOB_EVENT_KIND_ENDED) == 1

    async def told() -> bool:
        async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
            query = "SELECT count(*) FROM summarizer.outbox WHERE tenant = %s"
            row = await (await connection.execute(query, (world.tenant,))).fetchone()
        return row == (0,)

    await until_so(told)
    states = list((await world.ledger.holds()).values())
    settled = [event for event in await world.ledger.events() if event[1]]
    async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (world.tenant,))
        row = await (await connection.execute("SELECT count(*) FROM summarizer.results")).fetchone()
    # Each answer that was bought was bought once, and stands in the books once.
    assert row == (len(settled),)
    assert states.count("SETTLED") == len(settled)
    assert len(settled) <= mistral.calls <= len(states)
    assert sum(event[1] for event in settled) <= mistral.books.input_tokens
    assert set(await usage_by_job(world)) <= {job.name for job in await jobs.listed(batch=batch)}
