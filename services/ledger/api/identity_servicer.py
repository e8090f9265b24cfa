"""pagemesh.ledger.v1.IdentityService."""

from dataclasses import dataclass
from typing import Any

import grpc

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceServicer
from services.ledger.api import mapping
from services.ledger.api.identity_mapping import (
    bare_id,
    changes_of,
    key_message,
    plan_message,
    project_message,
    role_message,
    role_of,
    tenant_message,
    user_message,
)
from services.ledger.domain.directory import Projects, Standings, Tenants, Users
from services.ledger.domain.key_ring import DEFAULT_OVERLAP, KeyRing

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class IdentityUseCases:
    """What the service asks."""

    keys: KeyRing
    tenants: Tenants
    projects: Projects
    users: Users
    standings: Standings


class IdentityServicer(IdentityServiceServicer):
    """Translates between the contract and the use cases; each acts for the caller's own tenant."""

    def __init__(self, use_cases: IdentityUseCases) -> None:
        self._keys = use_cases.keys
        self._tenants = use_cases.tenants
        self._projects = use_cases.projects
        self._users = use_cases.users
        self._standings = use_cases.standings

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        """Makes a key."""
        expires = mapping.time_of(request.expire_time, "expire_time") if request.HasField("expire_time") else None
        key, credential = await self._keys.create(
            mapping.caller(),
            request.display_name,
            frozenset(request.scopes),
            expires,
            project=bare_id(request.project),
            user=bare_id(request.user),
            within=mapping.session(context),
        )
        return pb.CreateApiKeyResponse(api_key=key_message(key), secret=credential)

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: Context) -> pb.GetApiKeyResponse:
        """Tells of a key."""
        key = await self._keys.get(mapping.caller(), bare_id(request.name))
        return pb.GetApiKeyResponse(api_key=key_message(key))

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        """Tells of all keys."""
        part = await self._keys.list(mapping.caller(), request.page_size, request.page_token)
        return pb.ListApiKeysResponse(
            api_keys=[key_message(key) for key in part.items], next_page_token=part.next_page_token
        )

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: Context) -> pb.RotateApiKeyResponse:
        """Gives a key a new secret."""
        overlap = mapping.ttl_of(request.overlap) if request.HasField("overlap") else DEFAULT_OVERLAP
        key, credential = await self._keys.rotate(
            mapping.caller(), bare_id(request.name), overlap, within=mapping.session(context)
        )
        return pb.RotateApiKeyResponse(api_key=key_message(key), secret=credential)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        """Ends a key."""
        key = await self._keys.revoke(mapping.caller(), bare_id(request.name))
        return pb.RevokeApiKeyResponse(api_key=key_message(key))

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """Says who calls."""
        caller = mapping.caller()
        standing = await self._standings.of(caller)
        return pb.WhoAmIResponse(
            tenant=f"tenants/{caller.tenant}",
            actor=caller.actor,
            scopes=sorted(caller.scopes),
            project=caller.project,
            user=standing.user,
            role=role_message(standing.role),
            plan=standing.plan,
        )

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.GetTenantResponse:
        """Tells of the caller's tenant."""
        tenant = await self._tenants.own(mapping.caller(), bare_id(request.name))
        plans = [plan_message(plan) for plan in await self._tenants.plans() if plan.plan_id == tenant.plan]
        return pb.GetTenantResponse(tenant=tenant_message(tenant), plan=plans[0] if plans else None)

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> pb.UpdateTenantResponse:
        """Changes the caller's tenant."""
        changes = changes_of(request.tenant, request.update_mask)
        tenant = await self._tenants.update_own(mapping.caller(), bare_id(request.tenant.name), changes)
        return pb.UpdateTenantResponse(tenant=tenant_message(tenant))

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Context) -> pb.CreateProjectResponse:
        """Makes a project."""
        project = await self._projects.create(mapping.caller(), request.project_id, request.display_name)
        return pb.CreateProjectResponse(project=project_message(project))

    async def GetProject(self, request: pb.GetProjectRequest, context: Context) -> pb.GetProjectResponse:
        """Tells of a project."""
        project = await self._projects.get(mapping.caller(), bare_id(request.name))
        return pb.GetProjectResponse(project=project_message(project))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Context) -> pb.ListProjectsResponse:
        """Tells of all projects."""
        part = await self._projects.list(mapping.caller(), request.page_size, request.page_token)
        return pb.ListProjectsResponse(
            projects=[project_message(project) for project in part.items], next_page_token=part.next_page_token
        )

    async def UpdateProject(self, request: pb.UpdateProjectRequest, context: Context) -> pb.UpdateProjectResponse:
        """Changes a project."""
        changes = changes_of(request.project, request.update_mask)
        project = await self._projects.update(mapping.caller(), bare_id(request.project.name), changes)
        return pb.UpdateProjectResponse(project=project_message(project))

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        """Makes a user."""
        role = role_of(request.role, "role")
        user = await self._users.create(mapping.caller(), request.email, request.display_name, role)
        return pb.CreateUserResponse(user=user_message(user))

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        """Tells of a user."""
        user = await self._users.get(mapping.caller(), bare_id(request.name))
        return pb.GetUserResponse(user=user_message(user))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        """Tells of all users."""
        part = await self._users.list(mapping.caller(), request.page_size, request.page_token)
        return pb.ListUsersResponse(
            users=[user_message(user) for user in part.items], next_page_token=part.next_page_token
        )

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        """Changes a user."""
        changes = changes_of(request.user, request.update_mask)
        user = await self._users.update(mapping.caller(), bare_id(request.user.name), changes)
        return pb.UpdateUserResponse(user=user_message(user))
