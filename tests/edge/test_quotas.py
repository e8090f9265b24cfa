"""The hourly quota of a plan through the real edge, for gRPC and for JSON callers."""

import uuid

import grpc
import psycopg
import pytest

from pagemesh.ledger.v1 import operator_service_pb2 as ops
from pagemesh.ledger.v1.operator_service_pb2_grpc import OperatorServiceStub
from tests.conftest import RunningStack
from tests.edge import files
from tests.edge.calling import Outcome
from tests.edge.conftest import UPLOAD, World, chunks

QUOTA = 10


def new_key(stack: RunningStack, plan: str) -> str:
    """The first key of a new tenant."""
    folder = stack.data.root / "pki" / "tls" / "operator"
    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    )
    with grpc.secure_channel(f"localhost:{stack.state.ports['ledger']}", credentials) as channel:
        request = ops.CreateTenantRequest(tenant_id=f"free-{uuid.uuid4().hex}", plan=plan)
        return str(OperatorServiceStub(channel).CreateTenant(request, timeout=60).secret)


@pytest.fixture
def free_key(stack: RunningStack) -> str:
    """The first key of a new tenant on the free plan."""
    return new_key(stack, "plans/free")


@pytest.mark.parametrize("over", ["grpc", "json"])
def test_an_upload_past_the_quota_is_refused_with_the_time_to_wait(world: World, free_key: str, over: str) -> None:
    def upload() -> Outcome:
        if over == "grpc":
            return world.edge.grpc(UPLOAD, chunks(files.good()), free_key)
        return world.edge.json(UPLOAD, {}, free_key, body=files.good())

    outcomes = []
    # An hour may end on the way, and another begin.
    for _ in range(2 * QUOTA + 1):
        outcomes.append(upload())
        if outcomes[-1].code != "OK":
            break
    assert {outcome.code for outcome in outcomes[:QUOTA]} == {"OK"}
    refused = outcomes[-1]
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert refused.http == (429 if over == "json" else 0)
    if over == "json":
        assert "grpc-status-details-bin" not in refused.headers, "its details are in the body"
    assert "10 uploads" in refused.message
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    # Whoever has no uploads left may go on with what else there is.
    assert world.edge.grpc("pagemesh.ledger.v1.IdentityService/WhoAmI", {}, free_key).code == "OK"


@pytest.mark.parametrize("over", ["grpc", "json"])
def test_a_file_that_is_larger_than_the_plan_allows_is_refused(world: World, stack: RunningStack, over: str) -> None:
    file = files.good()
    plan = f"narrow-{uuid.uuid4().hex}"
    with psycopg.connect(stack.superuser_dsn, autocommit=True) as connection:
        insert = "INSERT INTO ledger.plans (id, max_upload_bytes) VALUES (%s, %s)"
        connection.execute(insert, (plan, len(file)))
    key = new_key(stack, f"plans/{plan}")

    def upload(content: bytes) -> Outcome:
        if over == "grpc":
            return world.edge.grpc(UPLOAD, chunks(content), key)
        # What a client says of its own plan does not count.
        return world.edge.json(UPLOAD, {}, key, body=content, headers={"x-pagemesh-max-upload-bytes": "999999999"})

    assert upload(file).code == "OK"
    refused = upload(file + b"\n")
    assert (refused.code, refused.reason, refused.fields) == ("INVALID_ARGUMENT", "FILE_TOO_LARGE", ["content"])
    assert str(len(file)) in refused.message
