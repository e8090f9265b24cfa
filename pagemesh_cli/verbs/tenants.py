"""`pagemesh tenants`: for the operator of a mesh, who holds its certificate."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pagemesh.ledger.v1 import operator_service_pb2 as pb
from pagemesh.ledger.v1.tenant_pb2 import Tenant
from pagemesh_cli.operator import OperatorClient, resolve_operator
from pagemesh_cli.output import Output, message_json
from pagemesh_cli.verbs.listing import Limit, named, on_off, print_list, read_list, time_cell
from pagemesh_cli.verbs.options import DataDirectory, Json, failing

tenants = typer.Typer(no_args_is_help=True, help="Let tenants in, switch them, give them plans. For the operator.")
TenantName = Annotated[str, typer.Argument(metavar="TENANT", help="Its id, or `tenants/{id}`.")]
Ledger = Annotated[
    str | None,
    typer.Option(
        help="The ledger, as host:port. \\[default: the data directory's stack]", rich_help_panel="Connection"
    ),
]
TlsDir = Annotated[
    Path | None,
    typer.Option(
        help="tls.crt, tls.key and ca.crt of the identity `operator`. \\[default: those of the data directory]",
        rich_help_panel="Connection",
    ),
]


@tenants.command("list")
def list_tenants(
    *,
    limit: Limit = 50,
    as_json: Json = False,
    ledger: Ledger = None,
    tls_dir: TlsDir = None,
    data_dir: DataDirectory = None,
) -> None:
    """List all tenants, by id."""
    output = Output(as_json=as_json)
    with _operating(output, ledger, tls_dir, data_dir) as client:

        def ask(size: int, token: str) -> pb.ListTenantsResponse:
            return client.unary(client.stub.ListTenants, pb.ListTenantsRequest(page_size=size, page_token=token))

        found, more = read_list(ask, lambda page: page.tenants, limit)
        if as_json:
            output.result(message_json(pb.ListTenantsResponse(tenants=found)))
            return
        rows = [
            (t.name, t.display_name, t.domain or "-", t.plan, on_off(t.active), time_cell(t.create_time)) for t in found
        ]
        print_list(output, ("tenant", "name", "domain", "plan", "switched", "made"), rows, more=more, limit=limit)


@tenants.command("create")
def create(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="1 to 63 of [0-9a-z-].")],
    *,
    name: Annotated[str, typer.Option(help="What people call it; its id by default.")] = "",
    domain: Annotated[str, typer.Option(help="The internet domain that is its own.")] = "",
    plan: Annotated[str, typer.Option(help="What it may use; `pagemesh tenants plans` has all.")] = "free",
    admin_email: Annotated[str, typer.Option(help="Its first admin, whose the first key will be.")] = "",
    as_json: Json = False,
    ledger: Ledger = None,
    tls_dir: TlsDir = None,
    data_dir: DataDirectory = None,
) -> None:
    """Let a tenant in and print its first key, which has every scope. It cannot be shown again."""
    output = Output(as_json=as_json)
    with _operating(output, ledger, tls_dir, data_dir) as client:
        request = pb.CreateTenantRequest(
            tenant_id=tenant_id, display_name=name, domain=domain, plan=named("plans", plan), admin_email=admin_email
        )
        made = client.unary(client.stub.CreateTenant, request)
        if as_json:
            output.result(message_json(made))
        else:
            output.write(f"{made.secret}\n")
            output.note(f"{made.tenant.name} on {made.tenant.plan}; {made.api_key.name} cannot be shown again.")


@tenants.command("plan")
def plan(
    tenant: TenantName,
    plan: Annotated[str, typer.Argument(help="Its id, or `plans/{id}`.")],
    *,
    as_json: Json = False,
    ledger: Ledger = None,
    tls_dir: TlsDir = None,
    data_dir: DataDirectory = None,
) -> None:
    """Give a tenant another plan, from within a second on."""
    output = Output(as_json=as_json)
    with _operating(output, ledger, tls_dir, data_dir) as client:
        request = pb.SetTenantPlanRequest(name=named("tenants", tenant), plan=named("plans", plan))
        _tell(output, client.unary(client.stub.SetTenantPlan, request).tenant)


@tenants.command("suspend")
def suspend(
    tenant: TenantName,
    *,
    as_json: Json = False,
    ledger: Ledger = None,
    tls_dir: TlsDir = None,
    data_dir: DataDirectory = None,
) -> None:
    """Switch a tenant off: its keys stop within a second; calls under way still settle."""
    output = Output(as_json=as_json)
    with _operating(output, ledger, tls_dir, data_dir) as client:
        request = pb.SuspendTenantRequest(name=named("tenants", tenant))
        _tell(output, client.unary(client.stub.SuspendTenant, request).tenant)


@tenants.command("activate")
def activate(
    tenant: TenantName,
    *,
    as_json: Json = False,
    ledger: Ledger = None,
    tls_dir: TlsDir = None,
    data_dir: DataDirectory = None,
) -> None:
    """Switch a tenant on again."""
    output = Output(as_json=as_json)
    with _operating(output, ledger, tls_dir, data_dir) as client:
        request = pb.ActivateTenantRequest(name=named("tenants", tenant))
        _tell(output, client.unary(client.stub.ActivateTenant, request).tenant)


@tenants.command("plans")
def plans(
    *, as_json: Json = False, ledger: Ledger = None, tls_dir: TlsDir = None, data_dir: DataDirectory = None
) -> None:
    """List the plans and what each allows."""
    output = Output(as_json=as_json)
    with _operating(output, ledger, tls_dir, data_dir) as client:
        answer = client.unary(client.stub.ListPlans, pb.ListPlansRequest())
        if as_json:
            output.result(message_json(answer))
            return
        rows = [
            (
                p.name,
                _limit(p.uploads_per_hour, p.HasField("uploads_per_hour")),
                _limit(p.calls_per_hour, p.HasField("calls_per_hour")),
                _limit(p.max_upload_bytes, p.HasField("max_upload_bytes")),
                _limit(p.max_concurrent_jobs, p.HasField("max_concurrent_jobs")),
            )
            for p in answer.plans
        ]
        columns = ("plan", "uploads/h", "calls/h", "upload bytes", "jobs at a time")
        print_list(output, columns, rows, more=False, limit=len(rows))


def _limit(value: int, is_set: bool) -> str:
    return f"{value:,}" if is_set else "no limit"


@contextmanager
def _operating(
    output: Output, ledger: str | None, tls_dir: Path | None, data_dir: Path | None
) -> Iterator[OperatorClient]:
    """A client for the block, and its failures told."""
    with failing(output), OperatorClient(resolve_operator(ledger, tls_dir=tls_dir, data_dir=data_dir)) as client:
        yield client


def _tell(output: Output, tenant: Tenant) -> None:
    if output.as_json:
        output.result(message_json(tenant))
    else:
        output.write(f"{tenant.name} ({tenant.display_name}): {tenant.plan}, {on_off(tenant.active)}\n")
