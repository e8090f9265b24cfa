"""The status table, both ways, for every kind of error."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.runtime import errors, status
from services.runtime.errors import FieldViolation, PagemeshError, QuotaViolation

KINDS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PagemeshError)),
    key=lambda kind: kind.__name__,
)
KINDS.remove(PagemeshError)


def over_the_wire(error: BaseException) -> grpc.aio.AioRpcError:
    """What a client of ours gets to see of `error`."""
    rich = rpc_status.to_status(status.to_status(error))
    trailing = grpc.aio.Metadata(*rich.trailing_metadata)
    return grpc.aio.AioRpcError(rich.code, grpc.aio.Metadata(), trailing, details=rich.details)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_to_another_service(kind: type[PagemeshError]) -> None:
    sent = kind(
        "SOME_REASON",
        "what to do",
        fields=[FieldViolation("options.length", "is too long")],
        retry_after_s=1.5,
        quota=QuotaViolation("tenants/acme", "hard budget"),
        metadata={"limit": "5"},
    )
    got = status.from_rpc_error(over_the_wire(sent), service="ledger")
    assert type(got) is kind
    assert (got.reason, got.fields, got.retry_after_s, got.quota, dict(got.metadata)) == (
        "SOME_REASON",
        (FieldViolation("options.length", "is too long"),),
        1.5,
        QuotaViolation("tenants/acme", "hard budget"),
        {"limit": "5"},
    )


def test_every_kind_has_a_code_of_its_own() -> None:
    codes = {status.code_of(kind("R", "m")) for kind in KINDS}
    assert len(codes) == len(KINDS)


def test_an_unknown_fault_tells_the_caller_nothing() -> None:
    told = status.to_status(ValueError("the secret is pm_abc and the page says hello"))
    assert told.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in str(told)


def test_the_domain_of_a_reason_is_ours() -> None:
    info = error_details_pb2.ErrorInfo()
    status.to_status(errors.NotFound("DOCUMENT_NOT_FOUND", "no")).details[0].Unpack(info)
    assert (info.reason, info.domain) == ("DOCUMENT_NOT_FOUND", "pagemesh")


def test_a_peer_without_details_is_named_after_its_code() -> None:
    bare = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="connection refused"
    )
    got = status.from_rpc_error(bare, service="ledger")
    assert isinstance(got, errors.Unavailable)
    assert got.reason == "LEDGER_UNAVAILABLE"
    assert "connection refused" not in got.message, "gRPC's own words name addresses of the mesh"
