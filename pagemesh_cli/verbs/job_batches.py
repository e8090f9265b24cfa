"""`pagemesh jobs` of whole batches."""

from typing import Annotated

import typer

from pagemesh.summarizer.v1 import job_batches_pb2, job_pb2
from pagemesh_cli.client import Client
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.listing import Limit
from pagemesh_cli.verbs.money import money
from pagemesh_cli.verbs.options import Access, Json, connected, connecting

_PAGE = 100
_STATES = ("queued", "running", "succeeded", "failed", "cancelled")


@connecting
def list_batches(
    *,
    open_only: Annotated[bool, typer.Option("--open", help="Only those of which some job has not ended.")] = False,
    limit: Limit = 20,
    as_json: Json = False,
    access: Access,
) -> None:
    """Print batches, newest first, with how many of their jobs are in which state, and what they spent."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = job_batches_pb2.ListBatchesRequest(page_size=min(limit, _PAGE), open_only=open_only)
        left = limit
        while left > 0:
            page = client.unary(client.jobs.ListBatches, request)
            for batch in page.batches[:left]:
                _print(output, batch, "")
            left -= len(page.batches)
            request.page_token = page.next_page_token
            if not request.page_token:
                break


def cancel_batch(client: Client, output: Output, name: str) -> None:
    """Cancels what has not ended, and tells it."""
    answer = client.unary(client.jobs.CancelBatch, job_batches_pb2.CancelBatchRequest(name=name))
    _print(output, answer.batch, f"{answer.cancelled_count} cancelled now")


def retry_batch(client: Client, output: Output, name: str, *, cancelled: bool) -> None:
    """Queues what failed once more, and what was cancelled if that is wanted, and tells it."""
    request = job_batches_pb2.RetryBatchRequest(name=name, include_cancelled=cancelled)
    answer = client.unary(client.jobs.RetryBatch, request)
    _print(output, answer.batch, f"{answer.queued_count} queued now")


def _print(output: Output, batch: job_pb2.JobBatch, told: str) -> None:
    if output.as_json:
        output.result(message_json(batch))
        return
    counts = [(name, getattr(batch.counts, name)) for name in _STATES]
    states = ", ".join(f"{count} {name}" for name, count in counts if count)
    spent = f", {money(batch.spent)} spent" if batch.HasField("spent") else ""
    output.write(f"{batch.name} {batch.create_time.ToDatetime():%Y-%m-%d %H:%M} {states or 'no jobs'}{spent}\n")
    if told:
        output.note(told)
