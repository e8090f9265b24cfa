"""`pagemesh keys` and `pagemesh whoami`: the tenant's own keys."""

import datetime as dt
from typing import Annotated

import typer

from pagemesh.common.v1 import access_pb2
from pagemesh.extractor.v1 import extractor_service_pb2
from pagemesh.ledger.v1 import (
    audit_service_pb2,
    credential_service_pb2,
    identity_pb2,
    identity_service_pb2,
    ledger_service_pb2,
)
from pagemesh.summarizer.v1 import summarizer_service_pb2
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.listing import Limit, named, print_list, read_list, time_cell
from pagemesh_cli.verbs.options import Access, Json, connected, connecting
from pagemesh_cli.verbs.times import duration
from pagemesh_cli.verbs.users import role_name

keys = typer.Typer(no_args_is_help=True, help="Make, see, rotate and end API keys.")
SCOPES = tuple(
    sorted(
        {
            scope
            for file in (
                audit_service_pb2,
                credential_service_pb2,
                extractor_service_pb2,
                identity_service_pb2,
                ledger_service_pb2,
                summarizer_service_pb2,
            )
            for service in file.DESCRIPTOR.services_by_name.values()
            for method in service.methods
            if (scope := method.GetOptions().Extensions[access_pb2.access].scope)
        }
    )
)
"""Every scope that a method of the contract asks for."""
KeyName = Annotated[str, typer.Argument(metavar="KEY", help="`apiKeys/{id}`.")]


@keys.command("create")
@connecting
def create(
    display_name: Annotated[str, typer.Argument(help="What people will call the key.")],
    *,
    scope: Annotated[list[str], typer.Option(help=f"What it may do; repeat for more. One of {', '.join(SCOPES)}.")],
    expires_in: Annotated[
        str, typer.Option(help="When it stops working: 30m, 12h or 90d from now; never by default.")
    ] = "",
    project: Annotated[str, typer.Option(help="The project of its calls: its id, or `projects/{id}`.")] = "",
    user: Annotated[str, typer.Option(help="Whose key it is, `users/{id}`: it may do what their role allows.")] = "",
    as_json: Json = False,
    access: Access,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = identity_service_pb2.CreateApiKeyRequest(
            display_name=display_name,
            scopes=scope,
            project=named("projects", project) if project else "",
            user=named("users", user) if user else "",
        )
        if expires_in:
            request.expire_time.FromDatetime(dt.datetime.now(dt.UTC) + duration(expires_in))
        made = client.unary(client.identity.CreateApiKey, request)
        if as_json:
            output.result(message_json(made))
        else:
            output.write(f"{made.secret}\n")
            output.note(f"{made.api_key.name}: {', '.join(made.api_key.scopes)}. It cannot be shown again.")


@keys.command("list")
@connecting
def list_keys(*, limit: Limit = 50, as_json: Json = False, access: Access) -> None:
    """List keys, newest first; ended ones, too."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:

        def ask(size: int, token: str) -> identity_service_pb2.ListApiKeysResponse:
            request = identity_service_pb2.ListApiKeysRequest(page_size=size, page_token=token)
            return client.unary(client.identity.ListApiKeys, request)

        found, more = read_list(ask, lambda page: page.api_keys, limit)
        if as_json:
            output.result(message_json(identity_service_pb2.ListApiKeysResponse(api_keys=found)))
            return
        rows = [_key_row(key) for key in found]
        columns = ("key", "name", "scopes", "project", "user", "made", "expires", "revoked")
        print_list(output, columns, rows, more=more, limit=limit)


@keys.command("rotate")
@connecting
def rotate(
    name: KeyName,
    *,
    overlap: Annotated[str, typer.Option(help="How long the old secret goes on: 30m, 12h, 7d at most, or 0.")] = "24h",
    as_json: Json = False,
    access: Access,
) -> None:
    """Give a key a new secret and print it. It cannot be shown again."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = identity_service_pb2.RotateApiKeyRequest(name=named("apiKeys", name))
        request.overlap.FromTimedelta(dt.timedelta() if overlap == "0" else duration(overlap))
        rotated = client.unary(client.identity.RotateApiKey, request)
        if as_json:
            output.result(message_json(rotated))
            return
        key = rotated.api_key
        output.write(f"{rotated.secret}\n")
        until = time_cell(key.previous_secret_expire_time)
        output.note(f"{key.name}: the old secret works until {until}. The new one cannot be shown again.")


def _key_row(key: identity_pb2.ApiKey) -> tuple[str, ...]:
    times = (time_cell(time) for time in (key.create_time, key.expire_time, key.revoke_time))
    return (key.name, key.display_name, " ".join(key.scopes), key.project or "-", key.user or "-", *times)


@keys.command("revoke")
@connecting
def revoke(
    name: KeyName,
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
            whose = "".join(f", {name}" for name in (answer.project, answer.user) if name)
            role = f" ({role_name(answer.role)})" if answer.user else ""
            told = f"{answer.actor} of {answer.tenant}{whose}{role}"
            output.write(f"{told}: {', '.join(answer.scopes)}\n")
            output.note(f"on {answer.plan}")
