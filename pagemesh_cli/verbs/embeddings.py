"""`pagemesh embed`."""

from pagemesh.summarizer.v1 import embedding_pb2
from pagemesh_cli.client import STREAM_TIMEOUT_S
from pagemesh_cli.counting import counted
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.money import MaxCost, money
from pagemesh_cli.verbs.options import Access, Json, Timeout, connected, connecting
from pagemesh_cli.verbs.upload import Source, document_name


@connecting
def embed(
    source: Source,
    *,
    max_cost: MaxCost = None,
    as_json: Json = False,
    timeout: Timeout = STREAM_TIMEOUT_S,
    access: Access,
) -> None:
    """Let searches and questions find a document by its meaning. What was paid for is not paid again."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        document = document_name(client, output, source, timeout_s=timeout)
        with output.progress("embedding"):
            request = embedding_pb2.EmbedDocumentRequest(document=document, max_cost=max_cost)
            done = client.unary(client.summarizer.EmbedDocument, request, timeout_s=timeout)
        if as_json:
            output.result({"embedded": message_json(done), "requestId": client.request_id})
            return
        used = done.consumption
        cost = money(used.cost) if used.provider_calls else "nothing"
        failed = f", {counted(len(done.failed_pages), 'page')} cannot be read" if done.failed_pages else ""
        what = f"{counted(done.page_count, 'page')} in {counted(done.passage_count, 'passage')}"
        output.write(f"{what} by {done.model}, for {cost}{failed}\n")
