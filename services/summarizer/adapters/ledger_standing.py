"""What the ledger knows of those who hand jobs in."""

from datetime import UTC, datetime

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1.identity_pb2 import ApiKey
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from services.runtime.clients import MeshClient
from services.runtime.errors import NotFound
from services.summarizer.domain.job_standing import ended, suspended
from services.summarizer.domain.values import Caller

_CAP_S = 2.0


class LedgerStanding:
    """Standing on the IdentityService: up to four short calls for each attempt of a job."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = IdentityServiceStub(client.channel)

    async def check(self, caller: Caller, scope: str) -> None:
        """Tenant, key with its scopes, user and project."""
        tenant = pb.GetTenantRequest(name=f"tenants/{caller.tenant}")
        if not (await self._client.unary(self._stub.GetTenant, tenant, cap_s=_CAP_S)).tenant.active:
            raise suspended()
        user = caller.actor
        if caller.actor.startswith("apiKeys/"):
            key = await self._key(caller.actor)
            if scope not in key.scopes:
                raise ended(f"{caller.actor} lacks the scope {scope}")
            user = key.user
        if user.startswith("users/"):
            await self._check_user(user)
        if caller.project:
            await self._check_project(caller.project)

    async def _key(self, name: str) -> ApiKey:
        try:
            answer: pb.GetApiKeyResponse = await self._client.unary(
                self._stub.GetApiKey, pb.GetApiKeyRequest(name=name), cap_s=_CAP_S
            )
        except NotFound as exc:
            raise ended(f"{name} is gone") from exc
        key = answer.api_key
        if key.HasField("revoke_time"):
            raise ended(f"{name} was revoked")
        if key.HasField("expire_time") and key.expire_time.ToDatetime(UTC) <= datetime.now(UTC):
            raise ended(f"{name} has expired")
        return key

    async def _check_user(self, name: str) -> None:
        try:
            answer = await self._client.unary(self._stub.GetUser, pb.GetUserRequest(name=name), cap_s=_CAP_S)
        except NotFound as exc:
            raise ended(f"{name} is gone") from exc
        if not answer.user.active:
            raise ended(f"{name} was switched off")

    async def _check_project(self, project: str) -> None:
        name = project if project.startswith("projects/") else f"projects/{project}"
        try:
            answer = await self._client.unary(self._stub.GetProject, pb.GetProjectRequest(name=name), cap_s=_CAP_S)
        except NotFound as exc:
            raise ended(f"{name} is gone") from exc
        if not answer.project.active:
            raise ended(f"{name} was switched off")
