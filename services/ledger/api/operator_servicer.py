"""pagemesh.ledger.v1.OperatorService: for the operator's certificate alone, and for no tenant."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from pagemesh.ledger.v1 import operator_service_pb2 as pb
from pagemesh.ledger.v1.operator_service_pb2_grpc import OperatorServiceServicer
from services.ledger.api.identity_mapping import bare_id, key_message, plan_message, tenant_message
from services.ledger.domain.directory import Tenants
from services.ledger.domain.onboarding import Onboarding

Context = grpc.aio.ServicerContext[Any, Any]


class OperatorServicer(OperatorServiceServicer):
    """Translates between the contract and the use cases. `tell` writes what was done to a tenant, of that bare id, into
    its audit trail."""

    def __init__(self, *, onboarding: Onboarding, tenants: Tenants, tell: Callable[[str], Awaitable[None]]) -> None:
        self._onboarding = onboarding
        self._tenants = tenants
        self._tell = tell

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.CreateTenantResponse:
        """Lets a tenant in."""
        tenant, key, credential = await self._onboarding.create(
            request.tenant_id,
            request.display_name,
            request.domain,
            plan=bare_id(request.plan),
            admin_email=request.admin_email,
        )
        await self._tell(tenant.tenant_id)
        return pb.CreateTenantResponse(tenant=tenant_message(tenant), api_key=key_message(key), secret=credential)

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        """Tells of all tenants."""
        part = await self._tenants.list(request.page_size, request.page_token)
        return pb.ListTenantsResponse(
            tenants=[tenant_message(tenant) for tenant in part.items], next_page_token=part.next_page_token
        )

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, context: Context) -> pb.SuspendTenantResponse:
        """Switches a tenant off."""
        tenant = await self._tenants.switch(bare_id(request.name), active=False)
        await self._tell(tenant.tenant_id)
        return pb.SuspendTenantResponse(tenant=tenant_message(tenant))

    async def ActivateTenant(self, request: pb.ActivateTenantRequest, context: Context) -> pb.ActivateTenantResponse:
        """Switches a tenant on."""
        tenant = await self._tenants.switch(bare_id(request.name), active=True)
        await self._tell(tenant.tenant_id)
        return pb.ActivateTenantResponse(tenant=tenant_message(tenant))

    async def SetTenantPlan(self, request: pb.SetTenantPlanRequest, context: Context) -> pb.SetTenantPlanResponse:
        """Gives a tenant a plan."""
        tenant = await self._tenants.set_plan(bare_id(request.name), bare_id(request.plan))
        await self._tell(tenant.tenant_id)
        return pb.SetTenantPlanResponse(tenant=tenant_message(tenant))

    async def ListPlans(self, request: pb.ListPlansRequest, context: Context) -> pb.ListPlansResponse:
        """Tells of all plans."""
        return pb.ListPlansResponse(plans=[plan_message(plan) for plan in await self._tenants.plans()])
