"""What the tests of identity do again and again."""

import uuid
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1 import user_pb2
from pagemesh.ledger.v1.project_pb2 import Project
from pagemesh.ledger.v1.user_pb2 import User
from tests.integration.ledger.conftest import Peer
from tests.integration.ledger.test_access import check


async def new_project(admin: Peer, project_id: str = "red") -> str:
    request = pb.CreateProjectRequest(project_id=project_id, display_name="Red")
    return str((await admin.call(admin.identity.CreateProject, request)).project.name)


async def new_user(admin: Peer, role: "user_pb2.Role.ValueType" = user_pb2.ROLE_MEMBER, email: str = "") -> str:
    email = email or f"{uuid.uuid4().hex}@acme.example"
    request = pb.CreateUserRequest(email=email, display_name="Ada", role=role)
    return str((await admin.call(admin.identity.CreateUser, request)).user.name)


async def new_key(
    admin: Peer, scopes: str = "usage.read", *, project: str = "", user: str = ""
) -> pb.CreateApiKeyResponse:
    request = pb.CreateApiKeyRequest(display_name="robot", scopes=scopes.split(), project=project, user=user)
    made: pb.CreateApiKeyResponse = await admin.call(admin.identity.CreateApiKey, request)
    return made


async def told(edge: Peer, credential: str) -> dict[str, str]:
    """The headers that a credential becomes, without their prefix."""
    answer = await check(edge, authorization=f"Bearer {credential}")
    headers = {option.header.key: option.header.value for option in answer.ok_response.headers}
    return {name.removeprefix("x-pagemesh-"): value for name, value in headers.items()}


async def switch_project(admin: Peer, name: str, *, active: bool) -> None:
    change = pb.UpdateProjectRequest(project=Project(name=name, active=active), update_mask=FieldMask(paths=["active"]))
    await admin.call(admin.identity.UpdateProject, change)


async def change_user(admin: Peer, name: str, *paths: str, **fields: Any) -> User:
    change = pb.UpdateUserRequest(user=User(name=name, **fields), update_mask=FieldMask(paths=paths))
    answer: pb.UpdateUserResponse = await admin.call(admin.identity.UpdateUser, change)
    return answer.user
