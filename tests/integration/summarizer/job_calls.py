"""Jobs as a client asks for them, and workers in this process or in their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc

from pagemesh.summarizer.v1 import job_pb2
from pagemesh.summarizer.v1 import job_service_pb2 as service_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as summarizer_pb2
from pagemesh.summarizer.v1.job_service_pb2_grpc import JobServiceStub
from pagemesh_cli.stack.ports import pick_free_port
from services.runtime import status
from services.runtime.tls import TlsFolder
from services.summarizer.__main__ import work
from services.summarizer.config import WorkerSettings
from tests.integration.summarizer.conftest import World, metadata, until_so
from tests.integration.summarizer.service_process import ServiceProcess, environment

SUCCEEDED, FAILED, CANCELLED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED
ENDED = (SUCCEEDED, FAILED, CANCELLED)


class Jobs:
    """The JobService as the edge calls it; errors come back as ours."""

    def __init__(self, stub: Any, tenant: str) -> None:
        self.stub, self.tenant = stub, tenant

    async def call(self, method: str, request: Any, *, tenant: str = "") -> Any:
        try:
            return await getattr(self.stub, method)(request, timeout=30, metadata=metadata(tenant or self.tenant))
        except grpc.aio.AioRpcError as exc:
            raise status.from_rpc_error(exc, service="summarizer") from exc

    async def create(self, document: str, **values: Any) -> job_pb2.Job:
        request = service_pb2.CreateJobRequest(document=document, **with_work(values))
        job: job_pb2.Job = (await self.call("CreateJob", request)).job
        return job

    async def batch(self, documents: list[str], **values: Any) -> job_pb2.JobBatch:
        request = service_pb2.BatchCreateJobsRequest(documents=documents, **with_work(values))
        batch: job_pb2.JobBatch = (await self.call("BatchCreateJobs", request)).batch
        return batch

    async def get(self, name: str, *, tenant: str = "") -> job_pb2.Job:
        job: job_pb2.Job = (await self.call("GetJob", service_pb2.GetJobRequest(name=name), tenant=tenant)).job
        return job

    async def listed(self, **values: Any) -> list[job_pb2.Job]:
        request = service_pb2.ListJobsRequest(page_size=1000, **values)
        return list((await self.call("ListJobs", request)).jobs)

    async def counts(self, name: str) -> job_pb2.JobCounts:
        counts: job_pb2.JobCounts = (await self.call("GetBatch", service_pb2.GetBatchRequest(name=name))).batch.counts
        return counts

    async def cancel(self, name: str) -> job_pb2.Job:
        job: job_pb2.Job = (await self.call("CancelJob", service_pb2.CancelJobRequest(name=name))).job
        return job

    def watch(self, name: str, *, after: int = 0) -> Any:
        request = service_pb2.WatchJobRequest(name=name, after_sequence=after)
        return self.stub.WatchJob(request, timeout=60, metadata=metadata(self.tenant))

    async def events(self, name: str, *, after: int = 0) -> list[job_pb2.JobEvent]:
        """To the end of the job."""
        return [answer.event async for answer in self.watch(name, after=after) if answer.HasField("event")]

    async def ended(self, name: str, *, timeout_s: float = 60) -> job_pb2.Job:
        """The job, when it has."""
        await until_so(lambda: self._has_ended(name), timeout_s=timeout_s)
        return await self.get(name)

    async def _has_ended(self, name: str) -> bool:
        return (await self.get(name)).state in ENDED


def with_work(values: dict[str, Any]) -> dict[str, Any]:
    values.setdefault("work", job_pb2.JobWork(summarize=summarizer_pb2.SummaryOptions()))
    return values


@contextlib.asynccontextmanager
async def jobs_at(world: World, target: str) -> AsyncIterator[Jobs]:
    credentials = TlsFolder(world.pki.tls_dir("edge")).channel_credentials()
    options = [("grpc.ssl_target_name_override", "summarizer.pagemesh.local"), ("grpc.enable_retries", 0)]
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield Jobs(JobServiceStub(channel), world.tenant)


@contextlib.asynccontextmanager
async def worker_of(world: World, **changes: Any) -> AsyncIterator[Callable[[], None]]:
    """A worker in this process; what is answered makes it stop."""
    listen = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    settings = WorkerSettings(**{**world.environment, **listen, "job_progress_s": 0.05, **changes})
    started, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(work(settings, started=started, stop=stop))
    try:
        async with asyncio.timeout(30):
            await started.wait()
        yield stop.set
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await task


class WorkerProcess(ServiceProcess):
    """A worker as a process of its own, that may be killed and started again."""

    def __init__(self, world: World, log: Path, **changes: Any) -> None:
        http_port = pick_free_port()
        listen = {"grpc_listen": f"127.0.0.1:{pick_free_port()}", "http_listen": f"127.0.0.1:{http_port}"}
        settings = environment(world.environment, **listen, **changes)
        super().__init__(settings, http_port=http_port, log=log, arguments=("worker",))
