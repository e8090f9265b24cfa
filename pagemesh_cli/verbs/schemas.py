"""`pagemesh schemas`: JSON Schemas that are kept under a name."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

from pagemesh.summarizer.v1 import schema_service_pb2 as pb
from pagemesh_cli.counting import counted
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, json_text, message_json, one_line
from pagemesh_cli.verbs.fields import read_schema
from pagemesh_cli.verbs.listing import Limit, named, print_list, read_list, time_cell
from pagemesh_cli.verbs.options import Access, Json, connected, connecting

_LARGEST_PAGE = 100

schemas = typer.Typer(no_args_is_help=True, help="Keep, see and delete JSON Schemas.")
SchemaName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its id, `schemas/{id}`, or `schemas/{id}@{version}` for one version.")
]


@schemas.command("create")
@connecting
def create(
    schema_id: Annotated[str, typer.Argument(metavar="ID", help="1 to 63 of [a-z0-9-], beginning with a letter.")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file of JSON Schema, draft 2020-12.")],
    *,
    as_json: Json = False,
    access: Access,
) -> None:
    """Keep a schema; other content under the same id is its next version."""
    output = Output(as_json=as_json)
    request = pb.CreateSchemaRequest(schema_id=schema_id)
    with connected(output, access) as client:
        json_format.ParseDict(read_schema(path), request.json_schema)
        answer = client.unary(client.schemas.CreateSchema, request)
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{answer.schema.name}\n")
            output.note("made" if answer.created else "it was there already", "dim")


@schemas.command("list")
@connecting
def list_schemas(
    name: Annotated[str, typer.Argument(metavar="NAME", help="All versions of this one.")] = "",
    *,
    limit: Limit = 50,
    as_json: Json = False,
    access: Access,
) -> None:
    """List the latest version of each schema by id, or all versions of one."""
    output = Output(as_json=as_json)
    versions_of = named("schemas", name) if name else ""
    with connected(output, access) as client:

        def ask(size: int, token: str) -> pb.ListSchemasResponse:
            request = pb.ListSchemasRequest(
                page_size=min(size, _LARGEST_PAGE), page_token=token, versions_of=versions_of
            )
            return client.unary(client.schemas.ListSchemas, request)

        found, more = read_list(ask, lambda page: page.schemas, limit)
        if as_json:
            output.result(message_json(pb.ListSchemasResponse(schemas=found)))
            return
        rows = [(schema.name, schema.digest[:12], time_cell(schema.create_time)) for schema in found]
        print_list(output, ("schema", "digest", "made"), rows, more=more, limit=limit)


@schemas.command("show")
@connecting
def show(name: SchemaName, *, as_json: Json = False, access: Access) -> None:
    """Print a schema: itself, or with --json all that is known of it."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        schema = client.unary(client.schemas.GetSchema, pb.GetSchemaRequest(name=named("schemas", name))).schema
        if as_json:
            output.result(message_json(schema))
        else:
            output.write(f"{json_text(json_format.MessageToDict(schema.json_schema))}\n")


@schemas.command("delete")
@connecting
def delete(
    name: SchemaName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    access: Access,
) -> None:
    """Delete a schema with all its versions. Asks first at a terminal."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        question = f"Delete {one_line(name)} with all its versions?"
        if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
            raise Failure("Nothing was deleted.", ExitCode.INTERRUPTED, "NOT_CONFIRMED")
        answer = client.unary(client.schemas.DeleteSchema, pb.DeleteSchemaRequest(name=named("schemas", name)))
        if as_json:
            output.result(message_json(answer))
        else:
            output.write(f"{counted(answer.versions_deleted, 'version')} deleted\n")
