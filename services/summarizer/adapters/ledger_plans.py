"""What the ledger says of tenants' plans."""

import uuid

from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from services.runtime.clients import MeshClient
from services.summarizer.adapters.acting import act_as
from services.summarizer.domain.values import Caller

_CAP_S = 2.0
_ACTOR = "system/worker"


class LedgerPlans:
    """Plans on IdentityService.GetTenant, asked for the tenant itself."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = IdentityServiceStub(client.channel)

    async def most_running(self, tenant: str) -> int | None:
        """`max_concurrent_jobs` of its plan."""
        request = pb.GetTenantRequest(name=f"tenants/{tenant}")
        with act_as(Caller(tenant, _ACTOR, "", frozenset(), str(uuid.uuid4()))):
            answer: pb.GetTenantResponse = await self._client.unary(self._stub.GetTenant, request, cap_s=_CAP_S)
        return answer.plan.max_concurrent_jobs if answer.plan.HasField("max_concurrent_jobs") else None
