"""`pagemesh projects`: parts of a tenant's work, which keys may belong to."""

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1.project_pb2 import Project
from pagemesh_cli.client import Client
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.listing import Limit, named, on_off, print_list, read_list, time_cell
from pagemesh_cli.verbs.options import Access, Json, connected, connecting

projects = typer.Typer(no_args_is_help=True, help="Make, see and switch projects.")
ProjectName = Annotated[str, typer.Argument(metavar="PROJECT", help="Its id, or `projects/{id}`.")]


@projects.command("list")
@connecting
def list_projects(*, limit: Limit = 50, as_json: Json = False, access: Access) -> None:
    """List projects, by id."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:

        def ask(size: int, token: str) -> pb.ListProjectsResponse:
            return client.unary(client.identity.ListProjects, pb.ListProjectsRequest(page_size=size, page_token=token))

        found, more = read_list(ask, lambda page: page.projects, limit)
        if as_json:
            output.result(message_json(pb.ListProjectsResponse(projects=found)))
            return
        rows = [(p.name, p.display_name, on_off(p.active), time_cell(p.create_time)) for p in found]
        print_list(output, ("project", "name", "switched", "made"), rows, more=more, limit=limit)


@projects.command("create")
@connecting
def create(
    project_id: Annotated[str, typer.Argument(metavar="ID", help="1 to 63 of [0-9a-z-].")],
    *,
    name: Annotated[str, typer.Option(help="What people call it; its id by default.")] = "",
    as_json: Json = False,
    access: Access,
) -> None:
    """Make a project."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = pb.CreateProjectRequest(project_id=project_id, display_name=name or project_id)
        _tell(output, client.unary(client.identity.CreateProject, request).project)


@projects.command("rename")
@connecting
def rename(project: ProjectName, name: str, *, as_json: Json = False, access: Access) -> None:
    """Change what people call a project."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        _tell(output, _update(client, Project(name=named("projects", project), display_name=name), "display_name"))


@projects.command("off")
@connecting
def off(project: ProjectName, *, as_json: Json = False, access: Access) -> None:
    """Switch a project off: its keys stop within a second."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        _tell(output, _update(client, Project(name=named("projects", project), active=False), "active"))


@projects.command("on")
@connecting
def on(project: ProjectName, *, as_json: Json = False, access: Access) -> None:
    """Switch a project on again, and its keys with it."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        _tell(output, _update(client, Project(name=named("projects", project), active=True), "active"))


def _update(client: Client, project: Project, *paths: str) -> Project:
    request = pb.UpdateProjectRequest(project=project, update_mask=FieldMask(paths=paths))
    return client.unary(client.identity.UpdateProject, request).project


def _tell(output: Output, project: Project) -> None:
    if output.as_json:
        output.result(message_json(project))
    else:
        output.write(f"{project.name} ({project.display_name}): {on_off(project.active)}\n")
