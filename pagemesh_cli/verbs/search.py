"""`pagemesh search`."""

import datetime as dt
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from pagemesh.extractor.v1 import extractor_service_pb2 as pb
from pagemesh.extractor.v1 import search_pb2, vectors_pb2
from pagemesh_cli.client import Client
from pagemesh_cli.output import Output, message_json, one_line
from pagemesh_cli.verbs.options import Access, Json, connected, connecting, failing
from pagemesh_cli.verbs.times import when
from pagemesh_cli.verbs.upload import refuse_other_names

_LARGEST_PAGE = 100


@connecting
def search(
    query: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY",
            help='Words, all of which a page must have: `"a phrase"`, `begin*`, `one or other`; `-word`, behind `--`, '
            "excludes.",
        ),
    ],
    *,
    document: Annotated[
        list[str] | None, typer.Option(help="Only in this document, `documents/{id}`; repeat for more.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Only pages in this language, such as `en`; repeat for more.")
    ] = None,
    since: Annotated[dt.datetime | None, when("Only documents stored from then on")] = None,
    until: Annotated[dt.datetime | None, when("Only documents stored before then")] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="Also by meaning, in documents that were embedded; the query is paid for.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many pages.")] = 10,
    as_json: Json = False,
    access: Access,
) -> None:
    """Search the pages of all documents, best first."""
    output = Output(as_json=as_json)
    with failing(output):
        refuse_other_names(document or ())
    request = pb.SearchPagesRequest(query=" ".join(query), documents=document or [], languages=language or [])
    if hybrid:
        request.mode = vectors_pb2.SEARCH_MODE_HYBRID
    if since is not None:
        request.stored_after.FromDatetime(since)
    if until is not None:
        request.stored_before.FromDatetime(until)
    with connected(output, access) as client:
        answer = find(client, request, limit)
        if as_json:
            output.result(message_json(answer))
            return
        for number, hit in enumerate(answer.hits, start=1):
            print_hit(output, number, hit)
        if answer.degraded:
            output.note(f"found by words alone: {answer.degraded_reason}")
        if not answer.hits:
            output.note("nothing was found")
        elif answer.next_page_token:
            output.note(f"there are more; --limit {min(limit * 2, 1000)} shows them", "dim")


def find(client: Client, request: pb.SearchPagesRequest, limit: int) -> pb.SearchPagesResponse:
    """Pages of hits joined until `limit` are there; the token asks for those behind them."""
    answer = pb.SearchPagesResponse()
    while True:
        request.page_size = min(limit - len(answer.hits), _LARGEST_PAGE)
        page = client.unary(client.extractor.SearchPages, request)
        answer.hits.extend(page.hits)
        answer.degraded, answer.degraded_reason = page.degraded, page.degraded_reason
        answer.next_page_token = request.page_token = page.next_page_token
        if not page.next_page_token or len(answer.hits) >= limit:
            return answer


def print_hit(output: Output, number: int, hit: search_pb2.SearchHit) -> None:
    """Document, page and score; then what the page says, with what matched in bold where that can be seen."""
    head = Text(f"{number:>3}. ")
    head.append(one_line(hit.display_name) or hit.document, style="bold")
    head.append(f", page {hit.page}")
    head.append(f"  {hit.score:.2g}  {hit.document}", style="dim")
    output.print(head, soft_wrap=True)
    for snippet in hit.snippets:
        # One character stays one character, so that the ranges hold.
        line = Text(one_line(snippet.text))
        for found in snippet.highlights:
            line.stylize("bold yellow", found.start, found.end)
        if output.console.is_terminal:
            output.print(Padding(line, (0, 0, 0, 5)))
        else:
            output.print(Text("     ").append_text(line), soft_wrap=True)
