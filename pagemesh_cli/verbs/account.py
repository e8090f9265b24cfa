"""`pagemesh usage`, `pagemesh keys` and `pagemesh whoami`: the tenant's own books and keys."""

import datetime as dt
from typing import Annotated

import typer

from pagemesh.ledger.v1 import identity_service_pb2, ledger_service_pb2
from pagemesh_cli.client import Client
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.bill import print_usage
from pagemesh_cli.verbs.money import money
from pagemesh_cli.verbs.options import Access, Json, connected, connecting
from pagemesh_cli.verbs.times import duration, when

keys = typer.Typer(no_args_is_help=True, help="Make and end API keys.")
SCOPES = (
    "documents.read",
    "documents.write",
    "summaries.create",
    "usage.read",
    "keys.admin",
    "budgets.read",
    "budgets.admin",
)
_LARGEST_PAGE = 1000


@connecting
def usage(
    *,
    since: Annotated[dt.datetime | None, when("From then on")] = None,
    until: Annotated[dt.datetime | None, when("Until before then")] = None,
    document: Annotated[str, typer.Option(help="Only calls for this document, `documents/{id}`.")] = "",
    request_id: Annotated[str, typer.Option(help="Only calls for this request.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many records.")] = 50,
    as_json: Json = False,
    access: Access,
) -> None:
    """Print what was used and what it cost, newest first, with the total of the whole selection."""
    output = Output(as_json=as_json)
    request = ledger_service_pb2.QueryUsageRequest(document=document, request_id=request_id)
    if since is not None:
        request.start_time.FromDatetime(since)
    if until is not None:
        request.end_time.FromDatetime(until)
    with connected(output, access) as client:
        answer = _query(client, request, limit)
        if as_json:
            output.result(message_json(answer))
            return
        print_usage(output, answer.records)
        output.write(f"{answer.total_records} records, {money(answer.total_cost)}; held {money(answer.held)}\n")


def _query(
    client: Client, request: ledger_service_pb2.QueryUsageRequest, limit: int
) -> ledger_service_pb2.QueryUsageResponse:
    """Pages joined until `limit` records are there; the totals are those of the first page."""
    request.page_size = min(limit, _LARGEST_PAGE)
    answer = page = client.unary(client.ledger.QueryUsage, request)
    while page.next_page_token and len(answer.records) < limit:
        request.page_token = page.next_page_token
        request.page_size = min(limit - len(answer.records), _LARGEST_PAGE)
        page = client.unary(client.ledger.QueryUsage, request)
        answer.records.extend(page.records)
        answer.next_page_token = page.next_page_token
    return answer


@keys.command("create")
@connecting
def create(
    display_name: Annotated[str, typer.Argument(help="What people will call the key.")],
    *,
    scope: Annotated[list[str], typer.Option(help=f"What it may do; repeat for more. One of {', '.join(SCOPES)}.")],
    expires_in: Annotated[
        str, typer.Option(help="When it stops working: 30m, 12h or 90d from now; never by default.")
    ] = "",
    as_json: Json = False,
    access: Access,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = identity_service_pb2.CreateApiKeyRequest(display_name=display_name, scopes=scope)
        if expires_in:
            request.expire_time.FromDatetime(dt.datetime.now(dt.UTC) + duration(expires_in))
        made = client.unary(client.identity.CreateApiKey, request)
        if as_json:
            output.result(message_json(made))
        else:
            output.write(f"{made.secret}\n")
            output.note(f"{made.api_key.name}: {', '.join(made.api_key.scopes)}. It cannot be shown again.")


@keys.command("revoke")
@connecting
def revoke(
    name: Annotated[str, typer.Argument(metavar="KEY", help="`apiKeys/{id}`.")],
    *,
    as_json: Json = False,
    access: Access,
) -> None:
    """End a key, at once and for good."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = identity_service_pb2.RevokeApiKeyRequest(name=name)
        revoked = client.unary(client.identity.RevokeApiKey, request)
        if as_json:
            output.result(message_json(revoked))
        else:
            output.write(f"{revoked.api_key.name} revoked {revoked.api_key.revoke_time.ToJsonString()}\n")


@connecting
def whoami(
    *,
    as_json: Json = False,
    access: Access,
) -> None:
    """Print who the key makes you."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        answer = client.unary(client.identity.WhoAmI, identity_service_pb2.WhoAmIRequest())
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{answer.actor} of {answer.tenant}: {', '.join(answer.scopes)}\n")
