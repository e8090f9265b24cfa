"""Projects, users, keys, tenants and quotas over real mTLS and real Postgres, on two replicas where it matters."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1 import operator_service_pb2 as ops
from pagemesh.ledger.v1 import user_pb2
from pagemesh.ledger.v1.project_pb2 import Project
from pagemesh.ledger.v1.tenant_pb2 import Tenant as TenantMessage
from pagemesh.ledger.v1.user_pb2 import User
from tests.integration.ledger.conftest import Admit, Connect, LedgerProcess, Peer, eventually, refused
from tests.integration.ledger.identity_calls import change_user, new_key, new_project, new_user, switch_project, told
from tests.integration.ledger.test_access import passes

Code = grpc.StatusCode
MEMBER = "documents.read documents.write projects.read summaries.create usage.read"


async def test_a_key_tells_its_project_and_what_its_users_role_allows(
    service: LedgerProcess, connect: Connect, admin: Peer
) -> None:
    edge = connect(service, "edge", "")
    project, user = await new_project(admin), await new_user(admin)
    made = await new_key(admin, MEMBER, project=project, user=user)
    assert (made.api_key.project, made.api_key.user) == (project, user)
    headers = await told(edge, made.secret)
    assert {name: headers[name] for name in ("tenant", "actor", "project", "scopes")} == {
        "tenant": admin.tenant,
        "actor": made.api_key.name,
        "project": project,
        "scopes": MEMBER,
    }
    mine = connect(service, "edge", admin.tenant, actor=made.api_key.name, project=project, scopes=MEMBER)
    about = await mine.call(mine.identity.WhoAmI, pb.WhoAmIRequest())
    assert (about.project, about.user, about.role, about.plan) == (
        project,
        user,
        user_pb2.ROLE_MEMBER,
        "plans/unlimited",
    )
    # Who logs in at an identity provider acts as the user, without a key.
    herself = connect(service, "edge", admin.tenant, actor=user, scopes=MEMBER)
    about = await herself.call(herself.identity.WhoAmI, pb.WhoAmIRequest())
    assert (about.actor, about.user, about.role, about.plan) == (user, user, user_pb2.ROLE_MEMBER, "plans/unlimited")
    await change_user(admin, user, "role", role=user_pb2.ROLE_AUDITOR)

    async def less() -> bool:
        return (await told(edge, made.secret))["scopes"] == "projects.read usage.read"

    await eventually(less)


@pytest.mark.parametrize("what", ["tenant", "project", "user", "key"])
async def test_what_is_switched_off_is_out_on_every_replica(
    edges: list[Peer], admin: Peer, operator: Peer, what: str
) -> None:
    project, user = await new_project(admin), await new_user(admin)
    made = await new_key(admin, project=project, user=user)
    for edge in edges:
        assert await passes(edge, made.secret)

    async def switch(active: bool) -> None:
        tenant = f"tenants/{admin.tenant}"
        if what == "tenant" and active:
            await operator.call(operator.operator.ActivateTenant, ops.ActivateTenantRequest(name=tenant))
        elif what == "tenant":
            await operator.call(operator.operator.SuspendTenant, ops.SuspendTenantRequest(name=tenant))
        elif what == "project":
            await switch_project(admin, project, active=active)
        elif what == "user":
            await change_user(admin, user, "active", active=active)
        elif not active:
            await admin.call(admin.identity.RevokeApiKey, pb.RevokeApiKeyRequest(name=made.api_key.name))

    async def agree(wanted: bool) -> None:
        for edge in edges:

            async def so(edge: Peer = edge) -> bool:
                return await passes(edge, made.secret) == wanted

            # They remember it for 30 s: only the notice changes it earlier.
            await eventually(so, within_s=20)

    await switch(False)
    await agree(False)
    await switch(True)
    await agree(what != "key")


async def test_both_secrets_of_a_rotated_key_work_until_it_is_revoked(edges: list[Peer], admin: Peer) -> None:
    made = await new_key(admin)
    assert all([await passes(edge, made.secret) for edge in edges])
    rotated = await admin.call(admin.identity.RotateApiKey, pb.RotateApiKeyRequest(name=made.api_key.name))
    assert rotated.secret != made.secret
    key = rotated.api_key
    assert (key.name, key.scopes) == (made.api_key.name, made.api_key.scopes)
    overlap = key.previous_secret_expire_time.ToDatetime() - key.rotate_time.ToDatetime()
    assert overlap.total_seconds() == 24 * 3600
    for _ in range(3):
        for edge in edges:
            assert (await told(edge, made.secret))["actor"] == (await told(edge, rotated.secret))["actor"] == key.name
    await admin.call(admin.identity.RevokeApiKey, pb.RevokeApiKeyRequest(name=key.name))
    for edge in edges:
        for secret in (made.secret, rotated.secret):

            async def out(edge: Peer = edge, secret: str = secret) -> bool:
                return not await passes(edge, secret)

            await eventually(out)
    async with refused(Code.FAILED_PRECONDITION, "KEY_ENDED"):
        await admin.call(admin.identity.RotateApiKey, pb.RotateApiKeyRequest(name=key.name))


async def test_without_an_overlap_the_old_secret_is_out_on_every_replica(edges: list[Peer], admin: Peer) -> None:
    made = await new_key(admin)
    assert all([await passes(edge, made.secret) for edge in edges])
    request = pb.RotateApiKeyRequest(name=made.api_key.name, overlap=Duration(seconds=0))
    rotated = await admin.call(admin.identity.RotateApiKey, request)
    for edge in edges:

        async def out(edge: Peer = edge) -> bool:
            return not await passes(edge, made.secret)

        await eventually(out)
        assert await passes(edge, rotated.secret)


@pytest.mark.parametrize("seconds", [-1, 604801])
async def test_an_overlap_has_bounds(admin: Peer, seconds: int) -> None:
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
        request = pb.RotateApiKeyRequest(name=admin.actor, overlap=Duration(seconds=seconds))
        await admin.call(admin.identity.RotateApiKey, request)
    assert told.fields == ["overlap"]


async def test_nobody_grants_more_than_they_have(service: LedgerProcess, connect: Connect, admin: Peer) -> None:
    member, auditor = await new_user(admin), await new_user(admin, user_pb2.ROLE_AUDITOR)
    for user, scopes in ((member, "usage.read keys.admin"), (auditor, "documents.read")):
        async with refused(Code.PERMISSION_DENIED, "SCOPE_NOT_GRANTABLE"):
            await new_key(admin, scopes, user=user)
    # One that may handle keys, and nothing else, gets no more by rotating another's, nor by making an admin.
    poor = connect(service, "edge", admin.tenant, scopes="keys.admin users.admin")
    async with refused(Code.PERMISSION_DENIED, "SCOPE_NOT_GRANTABLE"):
        await poor.call(poor.identity.RotateApiKey, pb.RotateApiKeyRequest(name=admin.actor))
    for role in (user_pb2.ROLE_ADMIN, user_pb2.ROLE_MEMBER):
        async with refused(Code.PERMISSION_DENIED, "ROLE_NOT_GRANTABLE"):
            await new_user(poor, role)
    async with refused(Code.PERMISSION_DENIED, "ROLE_NOT_GRANTABLE"):
        await change_user(poor, member, "active", active=False)
    worker = connect(service, "edge", admin.tenant, scopes=MEMBER)
    for call, request in (
        (worker.identity.CreateApiKey, pb.CreateApiKeyRequest(display_name="x", scopes=["usage.read"])),
        (worker.identity.RotateApiKey, pb.RotateApiKeyRequest(name=admin.actor)),
        (
            worker.identity.CreateUser,
            pb.CreateUserRequest(email="a@b.example", display_name="x", role=user_pb2.ROLE_ADMIN),
        ),
        (worker.identity.UpdateUser, pb.UpdateUserRequest(user=User(name=member, role=user_pb2.ROLE_ADMIN))),
        (worker.identity.CreateProject, pb.CreateProjectRequest(project_id="x", display_name="x")),
        (worker.identity.UpdateTenant, pb.UpdateTenantRequest()),
    ):
        async with refused(Code.PERMISSION_DENIED, "SCOPE_MISSING"):
            await worker.call(call, request)


async def test_a_key_of_a_project_stays_in_it(service: LedgerProcess, connect: Connect, admin: Peer) -> None:
    red, blue = await new_project(admin, "red"), await new_project(admin, "blue")
    bound = connect(service, "edge", admin.tenant, project=red)
    assert (await new_key(bound)).api_key.project == red
    assert (await new_key(bound, project=red)).api_key.project == red
    async with refused(Code.PERMISSION_DENIED, "PROJECT_NOT_GRANTABLE"):
        await new_key(bound, project=blue)
    free = await new_key(admin)
    async with refused(Code.PERMISSION_DENIED, "PROJECT_NOT_GRANTABLE"):
        await bound.call(bound.identity.RotateApiKey, pb.RotateApiKeyRequest(name=free.api_key.name))


async def test_the_last_admin_stays(admin: Peer) -> None:
    first = await new_user(admin, user_pb2.ROLE_ADMIN)
    for paths, fields in ((("active",), {"active": False}), (("role",), {"role": user_pb2.ROLE_MEMBER})):
        async with refused(Code.FAILED_PRECONDITION, "LAST_ADMIN"):
            await change_user(admin, first, *paths, **fields)
    second = await new_user(admin, user_pb2.ROLE_ADMIN)
    assert not (await change_user(admin, first, "active", active=False)).active
    async with refused(Code.FAILED_PRECONDITION, "LAST_ADMIN"):
        await change_user(admin, second, "active", active=False)


async def everything(read: Callable[[str], Awaitable[Any]], field: str) -> list[str]:
    """The names in a list that is read two at a time."""
    names, token = [], ""
    for _ in range(20):
        part = await read(token)
        names += [item.name for item in getattr(part, field)]
        token = part.next_page_token
        if not token:
            return names
        assert len(getattr(part, field)) == 2
    raise AssertionError("a list without an end")


async def test_lists_come_in_parts_and_leave_nothing_out(admin: Peer) -> None:
    identity = admin.identity
    projects = [await new_project(admin, name) for name in ("c", "a", "e", "b", "d")]
    users = [await new_user(admin, email=f"{name}@acme.example") for name in "abcde"]
    keys = [(await new_key(admin)).api_key.name for _ in range(4)]
    lists = {
        "projects": (identity.ListProjects, pb.ListProjectsRequest, sorted(projects)),
        "users": (identity.ListUsers, pb.ListUsersRequest, users),
        "api_keys": (identity.ListApiKeys, pb.ListApiKeysRequest, [*reversed(keys), admin.actor]),
    }
    tokens = {}
    for field, (method, request, wanted) in lists.items():

        async def read(token: str, method: Any = method, request: Any = request) -> Any:
            return await admin.call(method, request(page_size=2, page_token=token))

        assert await everything(read, field) == wanted
        tokens[field] = (await read("")).next_page_token
        for wrong in ("x", "AAAA", *(t for name, t in tokens.items() if name != field)):
            async with refused(Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN") as told:
                await read(wrong)
            assert told.fields == ["page_token"]


async def test_another_tenants_things_are_not_found(
    service: LedgerProcess, connect: Connect, admit: Admit, admin: Peer
) -> None:
    theirs = await admit()
    stranger = connect(service, "edge", theirs.name, actor=theirs.api_key)
    project, user = await new_project(admin), await new_user(admin)
    mask = FieldMask(paths=["display_name"])
    tenant = f"tenants/{admin.tenant}"
    identity = stranger.identity
    for reason, method, request in (
        ("KEY_NOT_FOUND", identity.GetApiKey, pb.GetApiKeyRequest(name=admin.actor)),
        ("KEY_NOT_FOUND", identity.RotateApiKey, pb.RotateApiKeyRequest(name=admin.actor)),
        ("KEY_NOT_FOUND", identity.RevokeApiKey, pb.RevokeApiKeyRequest(name=admin.actor)),
        ("TENANT_NOT_FOUND", identity.GetTenant, pb.GetTenantRequest(name=tenant)),
        (
            "TENANT_NOT_FOUND",
            identity.UpdateTenant,
            pb.UpdateTenantRequest(tenant=TenantMessage(name=tenant, display_name="x"), update_mask=mask),
        ),
        ("PROJECT_NOT_FOUND", identity.GetProject, pb.GetProjectRequest(name=project)),
        (
            "PROJECT_NOT_FOUND",
            identity.UpdateProject,
            pb.UpdateProjectRequest(project=Project(name=project, display_name="x"), update_mask=mask),
        ),
        ("USER_NOT_FOUND", identity.GetUser, pb.GetUserRequest(name=user)),
        (
            "USER_NOT_FOUND",
            identity.UpdateUser,
            pb.UpdateUserRequest(user=User(name=user, display_name="x"), update_mask=mask),
        ),
    ):
        async with refused(Code.NOT_FOUND, reason):
            await stranger.call(method, request)
    async with refused(Code.NOT_FOUND, "PROJECT_NOT_FOUND"):
        await new_key(stranger, project=project)
    async with refused(Code.NOT_FOUND, "USER_NOT_FOUND"):
        await new_key(stranger, user=user)
    assert not (await stranger.call(identity.ListProjects, pb.ListProjectsRequest())).projects
    assert not (await stranger.call(identity.ListUsers, pb.ListUsersRequest())).users
    listed = (await stranger.call(identity.ListApiKeys, pb.ListApiKeysRequest())).api_keys
    assert [key.name for key in listed] == [theirs.api_key]


NAMES = {
    "injection": ("'; DROP TABLE ledger.projects; --", True),
    "placeholders": ("%s %(id)s {key}", True),
    "other scripts": ("проект 計画 مشروع 👩‍👩‍👧", True),
    "right to left override": ("txt\u202egpj", False),
    "isolate": ("a\u2067b", False),
    "nul": ("a\0b", False),
    "escape": ("a\x1b[31mb", False),
    "line feed": ("a\nb", False),
    "paragraph": ("a\u2029b", False),
    "next line": ("a\x85b", False),
    "spaces": ("   ", False),
}


@pytest.mark.parametrize("case", NAMES)
async def test_a_name_is_data_or_refused(admin: Peer, case: str) -> None:
    text, good = NAMES[case]
    mask = FieldMask(paths=["display_name"])
    project, user = await new_project(admin), await new_user(admin)
    own = f"tenants/{admin.tenant}"
    identity = admin.identity
    email = f"{uuid.uuid4().hex}@acme.example"
    calls: list[tuple[Any, Any, str]] = [
        (identity.CreateProject, pb.CreateProjectRequest(project_id="other", display_name=text), "project"),
        (identity.CreateUser, pb.CreateUserRequest(email=email, display_name=text, role=user_pb2.ROLE_MEMBER), "user"),
        (identity.CreateApiKey, pb.CreateApiKeyRequest(display_name=text, scopes=["usage.read"]), "api_key"),
        (
            identity.UpdateProject,
            pb.UpdateProjectRequest(project=Project(name=project, display_name=text), update_mask=mask),
            "project",
        ),
        (identity.UpdateUser, pb.UpdateUserRequest(user=User(name=user, display_name=text), update_mask=mask), "user"),
        (
            identity.UpdateTenant,
            pb.UpdateTenantRequest(tenant=TenantMessage(name=own, display_name=text), update_mask=mask),
            "tenant",
        ),
    ]
    for method, request, field in calls:
        if good:
            assert getattr(await admin.call(method, request), field).display_name == text
        else:
            async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
                await admin.call(method, request)
            assert told.fields[0].endswith("display_name")
