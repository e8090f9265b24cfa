"""Whether the time of an answer tells that an id is another tenant's: it must not differ from that of an id of nobody.

A tenant has a document, a job and a schema; another one asks for them, and for ids that nobody has, in turns, straight
at the services with the identity that the edge would set. Each is NOT_FOUND. The ratio is that of the medians, of the
kind in which they differ most.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from bench.bench_cached_summary import channel, upload
from bench.report import alternate_p50_us, report
from bench.running_stack import RunningStack, running_stack
from pagemesh.extractor.v1 import extractor_service_pb2, extractor_service_pb2_grpc
from pagemesh.summarizer.v1 import (
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    schema_service_pb2,
    schema_service_pb2_grpc,
)

ROUNDS = 1_000
GOAL = 1.1
_SCOPES = "documents.read documents.write jobs.create jobs.read schemas.read schemas.write"
OWNER = (("x-pagemesh-tenant", "local"), ("x-pagemesh-actor", "apiKeys/bench"), ("x-pagemesh-scopes", _SCOPES))
STRANGER = (("x-pagemesh-tenant", "stranger"), *OWNER[1:])


def refused(method: Any, request: Any) -> Callable[[], Awaitable[None]]:
    """A call of the stranger, which finds nothing."""

    async def call() -> None:
        try:
            await method(request, metadata=STRANGER, timeout=10)
        except grpc.aio.AioRpcError as exc:
            if exc.code() is grpc.StatusCode.NOT_FOUND:
                return
            raise
        raise RuntimeError("the stranger found it")

    return call


async def measure(stack: RunningStack) -> None:
    channels = {service: channel(stack, service) for service in ("summarizer", "extractor")}
    extractor = extractor_service_pb2_grpc.ExtractorServiceStub(channels["extractor"])
    jobs = job_service_pb2_grpc.JobServiceStub(channels["summarizer"])
    schemas = schema_service_pb2_grpc.SchemaServiceStub(channels["summarizer"])
    document = await upload(extractor)
    work = job_pb2.JobWork(extract=job_pb2.ExtractPagesWork())
    asked = job_service_pb2.CreateJobRequest(document=document, work=work)
    job = (await jobs.CreateJob(asked, metadata=OWNER, timeout=30)).job.name
    made = schema_service_pb2.CreateSchemaRequest(schema_id="bench")
    made.json_schema.update({"type": "object", "properties": {"name": {"type": "string"}}})
    await schemas.CreateSchema(made, metadata=OWNER, timeout=30)
    pairs = {
        "documents": [
            refused(extractor.GetDocument, extractor_service_pb2.GetDocumentRequest(name=name))
            for name in (document, f"documents/{'0' * 32}")
        ],
        "jobs": [refused(jobs.GetJob, job_service_pb2.GetJobRequest(name=name)) for name in (job, f"jobs/{'0' * 32}")],
        "schemas": [
            refused(schemas.GetSchema, schema_service_pb2.GetSchemaRequest(name=name))
            for name in ("schemas/bench", "schemas/nobody")
        ],
    }
    detail: dict[str, object] = {"rounds": ROUNDS}
    worst = 1.0
    for kind, calls in pairs.items():
        foreign_us, nobodys_us = await alternate_p50_us(ROUNDS, *calls)
        ratio = max(foreign_us, nobodys_us) / min(foreign_us, nobodys_us)
        detail[kind] = {"foreign_p50_us": round(foreign_us), "nobodys_p50_us": round(nobodys_us)}
        worst = max(worst, ratio)
    await asyncio.gather(*(open_channel.close() for open_channel in channels.values()))
    report("foreign_ids", ratio=worst, goal=GOAL, better="lower", detail=detail)


if __name__ == "__main__":
    with running_stack() as running:
        asyncio.run(measure(running))
