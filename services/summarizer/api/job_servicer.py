"""JobService: requests in, use cases, answers out."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from pagemesh.summarizer.v1 import job_batches_pb2 as batches_pb2
from pagemesh.summarizer.v1 import job_estimates_pb2 as estimates_pb2
from pagemesh.summarizer.v1 import job_queues_pb2 as queues_pb2
from pagemesh.summarizer.v1 import job_service_pb2 as service_pb2
from pagemesh.summarizer.v1 import job_service_pb2_grpc
from services.runtime.call import current_identity
from services.runtime.stream_errors import with_error_event
from services.summarizer.api import job_mapping as mapping
from services.summarizer.api.caller import current_caller, current_deadline
from services.summarizer.api.estimate_mapping import from_jobs
from services.summarizer.domain.estimate_jobs import EstimateJobs
from services.summarizer.domain.job_batches import BatchDesk
from services.summarizer.domain.job_desk import JobDesk, Silence
from services.summarizer.domain.job_limits import LimitBook
from services.summarizer.domain.jobs import Batch, JobEvent, Selection

Context = grpc.aio.ServicerContext
Watched = AsyncGenerator[JobEvent | Silence | Batch, None]
R = TypeVar("R")
_TOP = 20


class JobServicer(job_service_pb2_grpc.JobServiceServicer):
    """Translates; decides nothing."""

    def __init__(self, desk: JobDesk, batches: BatchDesk, queues: LimitBook, estimates: EstimateJobs) -> None:
        self._estimates = estimates
        self._desk = desk
        self._batches = batches
        self._queues = queues

    async def CreateJob(
        self, request: service_pb2.CreateJobRequest, context: "Context[Any, Any]"
    ) -> service_pb2.CreateJobResponse:
        """One job."""
        job = await self._desk.create(mapping.to_order(current_caller(), request, (request.document,)))
        return service_pb2.CreateJobResponse(job=mapping.from_job(job))

    async def BatchCreateJobs(
        self, request: service_pb2.BatchCreateJobsRequest, context: "Context[Any, Any]"
    ) -> service_pb2.BatchCreateJobsResponse:
        """Many jobs."""
        order = mapping.to_order(current_caller(), request, tuple(request.documents))
        return service_pb2.BatchCreateJobsResponse(batch=mapping.from_batch(await self._desk.create_batch(order)))

    async def EstimateJobs(
        self, request: estimates_pb2.EstimateJobsRequest, context: "Context[Any, Any]"
    ) -> estimates_pb2.EstimateJobsResponse:
        """What jobs would cost."""
        work = mapping.to_work(request.work)
        found = await self._estimates(current_caller(), request.documents, work, deadline=current_deadline())
        return from_jobs(found)

    async def GetJob(
        self, request: service_pb2.GetJobRequest, context: "Context[Any, Any]"
    ) -> service_pb2.GetJobResponse:
        """A job with its result."""
        job = await self._desk.get(_tenant(), _id(request.name))
        return service_pb2.GetJobResponse(job=mapping.from_job(job))

    async def ListJobs(
        self, request: service_pb2.ListJobsRequest, context: "Context[Any, Any]"
    ) -> service_pb2.ListJobsResponse:
        """A page of jobs."""
        selection = Selection(mapping.to_state(request.state), _id(request.batch), request.document)
        jobs, token = await self._desk.list(
            _tenant(), selection, page_size=request.page_size, page_token=request.page_token
        )
        return service_pb2.ListJobsResponse(
            jobs=[mapping.from_job(job, listed=True) for job in jobs], next_page_token=token
        )

    async def GetBatch(
        self, request: service_pb2.GetBatchRequest, context: "Context[Any, Any]"
    ) -> service_pb2.GetBatchResponse:
        """A batch."""
        batch = await self._desk.batch(_tenant(), _id(request.name))
        return service_pb2.GetBatchResponse(batch=mapping.from_batch(batch))

    async def ListBatches(
        self, request: batches_pb2.ListBatchesRequest, context: "Context[Any, Any]"
    ) -> batches_pb2.ListBatchesResponse:
        """A page of batches."""
        batches, token = await self._batches.list(
            _tenant(),
            mapping.to_batch_selection(request),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return batches_pb2.ListBatchesResponse(batches=map(mapping.from_batch, batches), next_page_token=token)

    async def CancelBatch(
        self, request: batches_pb2.CancelBatchRequest, context: "Context[Any, Any]"
    ) -> batches_pb2.CancelBatchResponse:
        """Ends the jobs of a batch."""
        batch, count = await self._batches.cancel(_tenant(), _id(request.name))
        return batches_pb2.CancelBatchResponse(batch=mapping.from_batch(batch), cancelled_count=count)

    async def RetryBatch(
        self, request: batches_pb2.RetryBatchRequest, context: "Context[Any, Any]"
    ) -> batches_pb2.RetryBatchResponse:
        """Queues jobs of a batch once more."""
        batch, count = await self._batches.retry(
            current_caller(), _id(request.name), cancelled=request.include_cancelled
        )
        return batches_pb2.RetryBatchResponse(batch=mapping.from_batch(batch), queued_count=count)

    async def CancelJob(
        self, request: service_pb2.CancelJobRequest, context: "Context[Any, Any]"
    ) -> service_pb2.CancelJobResponse:
        """Ends a job."""
        job = await self._desk.cancel(_tenant(), _id(request.name))
        return service_pb2.CancelJobResponse(job=mapping.from_job(job))

    async def RetryJob(
        self, request: service_pb2.RetryJobRequest, context: "Context[Any, Any]"
    ) -> service_pb2.RetryJobResponse:
        """Queues a job once more."""
        job = await self._desk.retry(current_caller(), _id(request.name), max_cost=mapping.to_bound(request))
        return service_pb2.RetryJobResponse(job=mapping.from_job(job))

    async def TopTenantQueues(
        self, request: queues_pb2.TopTenantQueuesRequest, context: "Context[Any, Any]"
    ) -> queues_pb2.TopTenantQueuesResponse:
        """Whose jobs wait."""
        found = await self._queues.top(request.limit or _TOP)
        return queues_pb2.TopTenantQueuesResponse(queues=map(mapping.from_queue, found))

    async def WatchJob(
        self, request: service_pb2.WatchJobRequest, context: "Context[Any, Any]"
    ) -> AsyncIterator[service_pb2.WatchJobResponse]:
        """The events of a job."""
        watched = self._desk.watch(_tenant(), _id(request.name), after=request.after_sequence)
        responses = with_error_event(
            _translated(watched, mapping.from_watched),
            make=lambda status: service_pb2.WatchJobResponse(error=status),
        )
        # Closed here, so that a caller who hangs up ends the watch at once; it closes the stream that it passes on.
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def WatchBatch(
        self, request: service_pb2.WatchBatchRequest, context: "Context[Any, Any]"
    ) -> AsyncIterator[service_pb2.WatchBatchResponse]:
        """The events of a batch."""
        watched = self._desk.watch_batch(_tenant(), _id(request.name), after=request.after_sequence)
        responses = with_error_event(
            _translated(watched, mapping.from_watched_batch),
            make=lambda status: service_pb2.WatchBatchResponse(error=status),
        )
        async with aclosing(responses):
            async for response in responses:
                yield response


async def _translated(
    watched: Watched, translate: Callable[[JobEvent | Silence | Batch], R]
) -> AsyncGenerator[R, None]:
    async with aclosing(watched):
        async for item in watched:
            yield translate(item)


def _tenant() -> str:
    return current_identity().tenant


def _id(name: str) -> str:
    """The id in a resource name; empty of an empty one."""
    return name.rpartition("/")[2]
