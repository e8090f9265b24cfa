"""`pagemesh jobs queues`: whose jobs wait, for the operator of a mesh, who holds its certificate."""

from typing import Annotated

import typer

from pagemesh.summarizer.v1 import job_queues_pb2 as pb
from pagemesh_cli.operator import OperatorClient, resolve_operator
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.listing import print_list
from pagemesh_cli.verbs.options import DataDirectory, Json, failing
from pagemesh_cli.verbs.tenants import TlsDir

MOST = 100
Summarizer = Annotated[
    str | None,
    typer.Option(
        help="A summarizer, as host:port. \\[default: the data directory's stack]", rich_help_panel="Connection"
    ),
]


def list_queues(
    *,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="So many tenants.")] = 20,
    as_json: Json = False,
    summarizer: Summarizer = None,
    tls_dir: TlsDir = None,
    data_dir: DataDirectory = None,
) -> None:
    """List the tenants with the most jobs that wait or run. For the operator."""
    output = Output(as_json=as_json)
    with failing(output):
        connection = resolve_operator(summarizer, tls_dir=tls_dir, data_dir=data_dir, service="summarizer")
        with OperatorClient(connection) as client:
            answer = client.unary(client.jobs.TopTenantQueues, pb.TopTenantQueuesRequest(limit=limit))
        if as_json:
            output.result(message_json(answer))
            return
        columns = ("tenant", "waiting", "of them due", "running", "at most", "oldest")
        print_list(output, columns, [_row(queue) for queue in answer.queues], more=False, limit=limit)


def _row(queue: pb.TenantQueue) -> tuple[str, ...]:
    most = f"{queue.max_running:,}" if queue.HasField("max_running") else "-"
    oldest = f"{queue.oldest_age.ToTimedelta().total_seconds():.0f} s" if queue.HasField("oldest_age") else "-"
    return queue.tenant, f"{queue.queued:,}", f"{queue.due:,}", f"{queue.running:,}", most, oldest
