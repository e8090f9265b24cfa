"""`pagemesh users`: the people of a tenant, and what they may do."""

import enum
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1 import user_pb2
from pagemesh.ledger.v1.user_pb2 import User
from pagemesh_cli.client import Client
from pagemesh_cli.failures import ExitCode, Failure
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.listing import Limit, named, on_off, print_list, read_list, time_cell
from pagemesh_cli.verbs.options import Access, Json, connected, connecting

users = typer.Typer(no_args_is_help=True, help="Make, see, change and switch users.")
UserName = Annotated[str, typer.Argument(metavar="USER", help="`users/{id}`, as `pagemesh users list` prints it.")]


class RoleName(enum.StrEnum):
    """What a user may do, at most."""

    ADMIN = "admin"
    OPERATOR = "operator"
    MEMBER = "member"
    AUDITOR = "auditor"

    @property
    def value_of_contract(self) -> "user_pb2.Role.ValueType":
        """The same in the contract."""
        return user_pb2.Role.Value(f"ROLE_{self.name}")


def role_name(role: "user_pb2.Role.ValueType") -> str:
    """The role in one word; a hyphen for one that this command does not know."""
    return user_pb2.Role.Name(role).removeprefix("ROLE_").lower() if role in user_pb2.Role.values() else "-"


@users.command("list")
@connecting
def list_users(*, limit: Limit = 50, as_json: Json = False, access: Access) -> None:
    """List users, by email."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:

        def ask(size: int, token: str) -> pb.ListUsersResponse:
            return client.unary(client.identity.ListUsers, pb.ListUsersRequest(page_size=size, page_token=token))

        found, more = read_list(ask, lambda page: page.users, limit)
        if as_json:
            output.result(message_json(pb.ListUsersResponse(users=found)))
            return
        rows = [
            (u.name, u.email, u.display_name, role_name(u.role), on_off(u.active), time_cell(u.create_time))
            for u in found
        ]
        print_list(output, ("user", "email", "name", "role", "switched", "made"), rows, more=more, limit=limit)


@users.command("create")
@connecting
def create(
    email: Annotated[str, typer.Argument(help="The address; it never changes.")],
    *,
    role: Annotated[RoleName, typer.Option(help="What they may do, at most.")],
    name: Annotated[str, typer.Option(help="What people call them; the address by default.")] = "",
    as_json: Json = False,
    access: Access,
) -> None:
    """Make a user. `pagemesh keys create --user` gives them a key."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        request = pb.CreateUserRequest(email=email, display_name=name or email[:100], role=role.value_of_contract)
        _tell(output, client.unary(client.identity.CreateUser, request).user)


@users.command("update")
@connecting
def update(
    user: UserName,
    *,
    role: Annotated[RoleName | None, typer.Option(help="What they may do from now on, at most.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call them.")] = None,
    as_json: Json = False,
    access: Access,
) -> None:
    """Change a user's role or name. Their keys follow the role within a second."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        changed, paths = User(name=named("users", user)), []
        if role is not None:
            changed.role = role.value_of_contract
            paths.append("role")
        if name is not None:
            changed.display_name = name
            paths.append("display_name")
        if not paths:
            raise Failure("Nothing is to change.", ExitCode.USAGE, "USAGE", advice="Give --role, --name or both.")
        _tell(output, _update(client, changed, *paths))


@users.command("off")
@connecting
def off(user: UserName, *, as_json: Json = False, access: Access) -> None:
    """Switch a user off: their keys stop within a second."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        _tell(output, _update(client, User(name=named("users", user), active=False), "active"))


@users.command("on")
@connecting
def on(user: UserName, *, as_json: Json = False, access: Access) -> None:
    """Switch a user on again, and their keys with them."""
    output = Output(as_json=as_json)
    with connected(output, access) as client:
        _tell(output, _update(client, User(name=named("users", user), active=True), "active"))


def _update(client: Client, user: User, *paths: str) -> User:
    request = pb.UpdateUserRequest(user=user, update_mask=FieldMask(paths=paths))
    return client.unary(client.identity.UpdateUser, request).user


def _tell(output: Output, user: User) -> None:
    if output.as_json:
        output.result(message_json(user))
    else:
        output.write(f"{user.name} ({user.email}): {role_name(user.role)}, {on_off(user.active)}\n")
