"""What the operator does with tenants, and the quotas of their plans, over real mTLS and real Postgres."""

import asyncio
import base64
import uuid
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2

from pagemesh.ledger.v1 import audit_service_pb2, user_pb2
from pagemesh.ledger.v1 import identity_service_pb2 as pb
from pagemesh.ledger.v1 import operator_service_pb2 as ops
from pagemesh.ledger.v1.tenant_pb2 import Tenant as TenantMessage
from tests.integration.ledger.conftest import ALL_SCOPES, Connect, LedgerProcess, Peer, eventually, refused
from tests.integration.ledger.identity_calls import new_key, told
from tests.integration.ledger.test_access import check_request

Code = grpc.StatusCode


async def test_only_the_operator_administers_tenants(service: LedgerProcess, connect: Connect, admin: Peer) -> None:
    for identity in ("edge", "summarizer", "extractor"):
        peer = connect(service, identity, admin.tenant, scopes=ALL_SCOPES)
        name = f"tenants/{admin.tenant}"
        for method, request in (
            (peer.operator.CreateTenant, ops.CreateTenantRequest(tenant_id="mine")),
            (peer.operator.ListTenants, ops.ListTenantsRequest()),
            (peer.operator.SuspendTenant, ops.SuspendTenantRequest(name=name)),
            (peer.operator.ActivateTenant, ops.ActivateTenantRequest(name=name)),
            (peer.operator.SetTenantPlan, ops.SetTenantPlanRequest(name=name, plan="plans/unlimited")),
            (peer.operator.ListPlans, ops.ListPlansRequest()),
        ):
            async with refused(Code.PERMISSION_DENIED, "METHOD_NOT_ALLOWED"):
                await peer.call(method, request)


async def test_a_tenant_that_the_operator_lets_in(service: LedgerProcess, connect: Connect, operator: Peer) -> None:
    request = ops.CreateTenantRequest(
        tenant_id="fresh", display_name="Fresh Inc.", domain="Fresh.Example", admin_email="Ada@Fresh.Example"
    )
    made = await operator.call(operator.operator.CreateTenant, request)
    assert (made.tenant.name, made.tenant.domain, made.tenant.plan) == ("tenants/fresh", "fresh.example", "plans/free")
    edge = connect(service, "edge", "")
    assert (await told(edge, made.secret))["scopes"] == ALL_SCOPES
    mine = connect(service, "edge", "fresh", actor=made.api_key.name)
    known = await mine.call(mine.identity.GetTenant, pb.GetTenantRequest(name="tenants/fresh"))
    assert (known.tenant, known.plan.name) == (made.tenant, made.tenant.plan)
    about = await mine.call(mine.identity.WhoAmI, pb.WhoAmIRequest())
    assert (about.user, about.role, about.plan) == (made.api_key.user, user_pb2.ROLE_ADMIN, "plans/free")
    async with refused(Code.ALREADY_EXISTS, "TENANT_EXISTS"):
        await operator.call(operator.operator.CreateTenant, request)
    request.tenant_id = "fresh-2"
    async with refused(Code.ALREADY_EXISTS, "DOMAIN_TAKEN"):
        await operator.call(operator.operator.CreateTenant, request)
    # What the operator decides is not the tenant's to change, whatever the mask says.
    for path in ("active", "plan"):
        change = pb.UpdateTenantRequest(tenant=made.tenant, update_mask=FieldMask(paths=[path]))
        async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD"):
            await mine.call(mine.identity.UpdateTenant, change)
    moved = TenantMessage(name="tenants/fresh", domain="moved.example")
    change = pb.UpdateTenantRequest(tenant=moved, update_mask=FieldMask(paths=["domain"]))
    assert (await mine.call(mine.identity.UpdateTenant, change)).tenant.domain == "moved.example"


async def test_what_the_operator_does_to_a_tenant_is_in_its_audit_trail(
    service: LedgerProcess, connect: Connect, operator: Peer, admin: Peer
) -> None:
    stub, tenant_id = operator.operator, f"t-{uuid.uuid4().hex[:8]}"
    name = f"tenants/{tenant_id}"
    await operator.call(stub.CreateTenant, ops.CreateTenantRequest(tenant_id=tenant_id))
    await operator.call(stub.SuspendTenant, ops.SuspendTenantRequest(name=name))
    await operator.call(stub.ActivateTenant, ops.ActivateTenantRequest(name=name))
    await operator.call(stub.SetTenantPlan, ops.SetTenantPlanRequest(name=name, plan="plans/standard"))
    # What does nothing is not told, nor is what is only read.
    await operator.call(stub.ListTenants, ops.ListTenantsRequest())
    async with refused(Code.NOT_FOUND, "PLAN_NOT_FOUND"):
        await operator.call(stub.SetTenantPlan, ops.SetTenantPlanRequest(name=name, plan="plans/golden"))
    async with refused(Code.NOT_FOUND, "TENANT_NOT_FOUND"):
        await operator.call(stub.SuspendTenant, ops.SuspendTenantRequest(name="tenants/nobody-at-all"))
    mine = connect(service, "edge", tenant_id, scopes=ALL_SCOPES)
    chain = await mine.call(mine.audit.ListEvents, audit_service_pb2.ListEventsRequest(actor="system/operator"))
    assert [(record.event.action.rpartition("/")[2], record.event.resource) for record in reversed(chain.records)] == [
        ("CreateTenant", name),
        ("SuspendTenant", name),
        ("ActivateTenant", name),
        ("SetTenantPlan", name),
    ]
    for record in chain.records:
        assert record.event.action.startswith("pagemesh.ledger.v1.OperatorService/")
        assert (record.event.tenant, record.event.code) == (name, 0)
        assert record.event.request_id
    others = await admin.call(admin.audit.ListEvents, audit_service_pb2.ListEventsRequest(actor="system/operator"))
    assert name not in {record.event.resource for record in others.records}


async def test_two_that_want_one_domain_race_and_one_gets_it(operator: Peer) -> None:
    domain = f"{uuid.uuid4().hex}.example"

    async def create(tenant_id: str) -> str:
        request = ops.CreateTenantRequest(tenant_id=tenant_id, domain=domain)
        try:
            await operator.call(operator.operator.CreateTenant, request)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    answers = await asyncio.gather(*(create(f"{domain[:20]}-{number}") for number in range(4)))
    assert sorted(answers) == ["ALREADY_EXISTS"] * 3 + ["OK"]


@pytest.mark.parametrize(
    "domain", ["localhost", "-a.example", "a..b", "a b.example", "'; --", "x" * 254 + ".b", "a\n.b"]
)
async def test_a_domain_is_one(operator: Peer, domain: str) -> None:
    async with refused(Code.INVALID_ARGUMENT, "INVALID_FIELD") as told:
        await operator.call(operator.operator.CreateTenant, ops.CreateTenantRequest(tenant_id="x", domain=domain))
    assert told.fields == ["domain"]


async def test_tenants_are_listed_in_parts(operator: Peer, admin: Peer) -> None:
    names, token = [], ""
    for _ in range(100):
        request = ops.ListTenantsRequest(page_size=3, page_token=token)
        part = await operator.call(operator.operator.ListTenants, request)
        names += [tenant.name for tenant in part.tenants]
        token = part.next_page_token
        if not token:
            break
    assert f"tenants/{admin.tenant}" in names
    assert names == sorted(set(names))
    plans = await operator.call(operator.operator.ListPlans, ops.ListPlansRequest())
    assert {plan.name: plan.calls_per_hour for plan in plans.plans} == {
        "plans/free": 1000,
        "plans/standard": 60_000,
        "plans/unlimited": 0,
    }
    assert not plans.plans[-1].HasField("calls_per_hour")


@pytest.fixture
def tiny(whole_ledger: str) -> str:
    """A plan of 40 calls and 3 uploads."""
    with psycopg.connect(whole_ledger) as database:
        database.execute("INSERT INTO ledger.plans VALUES ('tiny', 3, 40) ON CONFLICT DO NOTHING")
    return "plans/tiny"


async def statuses(edges: list[Peer], secret: str, path: str, count: int, content_type: str = "") -> list[Any]:
    """What the replicas answer in turn."""
    request = check_request(authorization=f"Bearer {secret}", content_type=content_type)
    request.attributes.request.http.path = path
    return [await edges[n % len(edges)].call(edges[n % len(edges)].authorization.Check, request) for n in range(count)]


@pytest.mark.parametrize(
    "path", ["/v1/documents:upload", "/v1/documents%3Aupload?display_name=x", "/v1/documents:%75pload"]
)
async def test_uploads_past_the_hours_quota_are_refused(
    edges: list[Peer], admin: Peer, operator: Peer, tiny: str, path: str
) -> None:
    plan = ops.SetTenantPlanRequest(name=f"tenants/{admin.tenant}", plan=tiny)
    await operator.call(operator.operator.SetTenantPlan, plan)
    made = await new_key(admin, "documents.write")
    # Twice the quota and one more: an hour may end on the way, and another begin.
    answers = await statuses(edges, made.secret, path, 7, "application/grpc")
    assert [answer.status.code for answer in answers[:3]] == [0, 0, 0]
    over = next(answer for answer in answers if answer.status.code != 0)
    assert over.status.code == 8
    assert over.denied_response.status.code == 429
    headers = {option.header.key: option.header.value for option in over.denied_response.headers}
    assert 1 <= int(headers["retry-after"]) <= 3600
    padded = headers["grpc-status-details-bin"] + "=" * (-len(headers["grpc-status-details-bin"]) % 4)
    status = status_pb2.Status.FromString(base64.b64decode(padded))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, retry.retry_delay.seconds) == ("QUOTA_EXCEEDED", int(headers["retry-after"]))
    # Other calls go on, and a larger plan ends it at once.
    assert (await statuses(edges, made.secret, "/v1/whoami", 1))[0].status.code == 0
    plan.plan = "plans/standard"
    await operator.call(operator.operator.SetTenantPlan, plan)

    async def goes_on() -> bool:
        return bool((await statuses(edges, made.secret, path, 1))[0].status.code == 0)

    await eventually(goes_on)


async def test_a_spent_quota_does_not_prevent_ending_what_spent_it(
    edges: list[Peer], admin: Peer, operator: Peer, whole_ledger: str
) -> None:
    with psycopg.connect(whole_ledger, autocommit=True) as database:
        database.execute("INSERT INTO ledger.plans VALUES ('spent', 0, 0)")
    request = ops.SetTenantPlanRequest(name=f"tenants/{admin.tenant}", plan="plans/spent")
    await operator.call(operator.operator.SetTenantPlan, request)
    made = await new_key(admin, "keys.admin")

    async def code(path: str) -> int:
        return int((await statuses(edges, made.secret, path, 1))[0].status.code)

    async def spent() -> bool:
        return await code("/v1/whoami") == 8

    await eventually(spent)
    name = made.api_key.name
    for path in (f"/v1/{name}:revoke", f"/v1/{name}:rotate", "/pagemesh.ledger.v1.IdentityService/RevokeApiKey"):
        assert await code(path) == 0
    for path in (f"/v1/{name}", f"/v1/{name}:revoke/../x", "/pagemesh.ledger.v1.IdentityService/CreateApiKey"):
        assert await code(path) == 8


async def test_a_plan_that_is_changed_is_so_for_its_tenants(
    edges: list[Peer], admin: Peer, operator: Peer, whole_ledger: str
) -> None:
    with psycopg.connect(whole_ledger, autocommit=True) as database:
        database.execute("INSERT INTO ledger.plans VALUES ('growing', 0, NULL)")
        plan = ops.SetTenantPlanRequest(name=f"tenants/{admin.tenant}", plan="plans/growing")
        await operator.call(operator.operator.SetTenantPlan, plan)
        made = await new_key(admin, "documents.write")
        path = "/pagemesh.extractor.v1.ExtractorService/UploadDocument"
        assert [answer.status.code for answer in await statuses(edges, made.secret, path, 2)] == [8, 8]
        database.execute("UPDATE ledger.plans SET uploads_per_hour = 1000000 WHERE id = 'growing'")

    async def passes_everywhere() -> bool:
        return all(answer.status.code == 0 for answer in await statuses(edges, made.secret, path, 2))

    await eventually(passes_everywhere)


async def test_replicas_together_give_out_no_more_than_the_quota(
    edges: list[Peer], admin: Peer, operator: Peer, tiny: str
) -> None:
    plan = ops.SetTenantPlanRequest(name=f"tenants/{admin.tenant}", plan=tiny)
    await operator.call(operator.operator.SetTenantPlan, plan)
    made = await new_key(admin, "documents.write")
    many = await asyncio.gather(*(statuses(edges, made.secret, "/v1/whoami", 20) for _ in range(6)))
    passed = sum(answer.status.code == 0 for answers in many for answer in answers)
    assert passed in (40, 80), "80 where an hour ended on the way"
