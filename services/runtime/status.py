"""The one table between our errors and gRPC statuses, both ways."""

import asyncio
import math
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.runtime import errors
from services.runtime.errors import FieldViolation, PagemeshError, QuotaViolation

DOMAIN = "pagemesh"
"""google.rpc.ErrorInfo.domain of every reason that is ours."""

_CODES: dict[type[PagemeshError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
_ERRORS = {code: error for error, code in _CODES.items()}
M = TypeVar("M", bound=Message)
_INTERNAL_MESSAGE = "Something went wrong on our side. Tell the operator the request id."


def known(error: BaseException) -> PagemeshError:
    """What the caller is told of `error`: itself if it is ours, and neutral words otherwise."""
    if isinstance(error, PagemeshError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return errors.Cancelled("CANCELLED", "The call was cancelled.")
    return errors.InternalError("INTERNAL", _INTERNAL_MESSAGE)


def code_of(error: PagemeshError) -> grpc.StatusCode:
    """The status code of one of our errors."""
    return _CODES[type(error)]


def to_status(error: BaseException) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo and, where they apply, BadRequest, RetryInfo, QuotaFailure."""
    ours = known(error)
    info = error_details_pb2.ErrorInfo(reason=ours.reason, domain=DOMAIN, metadata=dict(ours.metadata))
    details: list[Message] = [info]
    if ours.fields:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=f.field, description=f.description) for f in ours.fields
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if ours.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(0, math.ceil(ours.retry_after_s * 1000)))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if ours.quota is not None:
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=ours.quota.subject, description=ours.quota.description
        )
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    status = status_pb2.Status(code=_CODES[type(ours)].value[0], message=ours.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: BaseException) -> NoReturn:
    """Ends the call with the error's status; where a retry helps, `retry-after` (whole seconds) says when."""
    ours = known(error)
    rich = rpc_status.to_status(to_status(ours))
    trailing = tuple(rich.trailing_metadata or ())
    if ours.retry_after_s is not None:
        trailing += (("retry-after", str(max(1, math.ceil(ours.retry_after_s)))),)
    await context.abort(rich.code, rich.details or "", trailing)


def from_rpc_error(error: grpc.aio.AioRpcError, *, service: str) -> PagemeshError:
    """A peer's status as our error, with its details; what has no details is named after its code."""
    kind = _ERRORS.get(error.code(), errors.InternalError)
    reason, metadata = f"{service.upper()}_{error.code().name}", {}
    # gRPC's own words name addresses of the mesh; only what a service of ours said goes on to callers.
    message = f"The {service} service cannot answer ({error.code().name}). Try again."
    fields: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    quota: QuotaViolation | None = None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = _unpack(detail, error_details_pb2.ErrorInfo())
            if info.domain == DOMAIN:
                reason, metadata, message = info.reason, dict(info.metadata), error.details() or message
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = _unpack(detail, error_details_pb2.BadRequest())
            fields = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry_after_s = _unpack(detail, error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() / 1000
        elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            failure = _unpack(detail, error_details_pb2.QuotaFailure())
            if failure.violations:
                quota = QuotaViolation(failure.violations[0].subject, failure.violations[0].description)
    if kind is errors.InternalError:
        message = _INTERNAL_MESSAGE
    return kind(reason, message, fields=fields, retry_after_s=retry_after_s, quota=quota, metadata=metadata)


def _details(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return list(status_pb2.Status.FromString(value).details)
    return []


def _unpack(detail: any_pb2.Any, message: M) -> M:
    detail.Unpack(message)
    return message
