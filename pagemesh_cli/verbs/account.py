"""`pagemesh keys` and `pagemesh whoami`: the tenant's own keys."""

import datetime as dt
from typing import Annotated

import typer

from pagemesh.ledger.v1 import identity_service_pb2
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.options import Access, Json, connected, connecting
from pagemesh_cli.verbs.times import duration

keys = typer.Typer(no_args_is_help=True, help="Make and end API keys.")
SCOPES = ("documents.read", "documents.write", "summaries.create", "usage.read", "keys.admin")


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
