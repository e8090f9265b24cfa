"""How the command fails: exit codes that scripts can rely on, and words that say what to do."""

import enum
from dataclasses import dataclass, field

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status


class ExitCode(enum.IntEnum):
    """Documented in docs/cli.md; a number never changes its meaning."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    NOT_FOUND = 5
    LIMIT = 6
    TIMED_OUT = 7
    INCOMPLETE = 8
    INTERRUPTED = 130


@dataclass
class Failure(Exception):
    """A command that could not do what it was asked for."""

    message: str
    exit_code: ExitCode = ExitCode.FAILED
    reason: str = "FAILED"
    fields: dict[str, str] = field(default_factory=dict)
    """What is wrong with each field of the request."""
    advice: str = ""
    request_id: str = ""
    retry_after_s: float | None = None
    """When to try again, where the server says it."""

    def __str__(self) -> str:
        return self.message

    def as_json(self) -> dict[str, object]:
        return {
            "error": {
                "reason": self.reason,
                "message": self.message,
                "fields": self.fields,
                "advice": self.advice,
                "requestId": self.request_id,
                "exitCode": int(self.exit_code),
            }
        }


_EXIT_CODES = {
    code_pb2.INVALID_ARGUMENT: ExitCode.USAGE,
    code_pb2.OUT_OF_RANGE: ExitCode.USAGE,
    code_pb2.UNAVAILABLE: ExitCode.UNREACHABLE,
    code_pb2.UNAUTHENTICATED: ExitCode.REFUSED,
    code_pb2.PERMISSION_DENIED: ExitCode.REFUSED,
    code_pb2.NOT_FOUND: ExitCode.NOT_FOUND,
    code_pb2.RESOURCE_EXHAUSTED: ExitCode.LIMIT,
    code_pb2.DEADLINE_EXCEEDED: ExitCode.TIMED_OUT,
    code_pb2.CANCELLED: ExitCode.INTERRUPTED,
}
_ADVICE = {
    ExitCode.UNREACHABLE: "Is the stack up? `pagemesh status` tells; `pagemesh doctor` looks further.",
    ExitCode.REFUSED: "Check the key (--key, PAGEMESH_API_KEY) and what it may do (`pagemesh whoami`).",
    ExitCode.LIMIT: "Wait and try again, or ask for a higher limit or budget.",
    ExitCode.TIMED_OUT: "Try again, or allow more time with --timeout.",
}
_PROVIDER_AWAY = "The model's provider does not do its part, the stack does: try again later, or another --model."
_PROVIDER_BUSY = "The model's provider takes no more now: wait and try again, or try another --model."
_SAVE_ANEW = "Open it in a viewer: if that can, print or save it anew as PDF, and give that file."
_ADVICE_BY_REASON = {
    "DOCUMENT_CORRUPT": _SAVE_ANEW,
    "DOCUMENT_HAS_NO_PAGES": _SAVE_ANEW,
    "DOCUMENT_ENCRYPTED": "Save it without its password, and give that file: only extract and render take passwords.",
    "UNSUPPORTED_MEDIA_TYPE": "Print or save it as PDF, or as a JPEG or PNG picture, and give that file.",
    "DOCUMENT_NOT_FOUND": "`pagemesh documents list` shows what there is; documents expire when their time is over.",
    "BREAKER_OPEN": "Something behind the service keeps failing: try again in a moment.",
    "PROVIDER_UNAVAILABLE": _PROVIDER_AWAY,
    "PROVIDER_CUT": _PROVIDER_AWAY,
    "PROVIDER_INVALID_ANSWER": _PROVIDER_AWAY,
    "PROVIDER_TIMEOUT": "The model's provider was too slow: try again, or allow more time with --timeout.",
    "PROVIDER_QUEUE_TIMEOUT": _PROVIDER_BUSY,
    "PROVIDER_QUEUE_FULL": _PROVIDER_BUSY,
    "PROVIDER_RATE_LIMITED": _PROVIDER_BUSY,
    "PROVIDER_REFUSED": "The model's provider does not take this text: try another --model.",
    "PROVIDER_CREDENTIAL": "The stack's operator has to mend the key for the model's provider; yours is fine.",
}
"""Where the reason, of docs/errors.md, says more than the code."""


def advice_for(reason: str) -> str:
    """What to do at this reason of docs/errors.md; empty where that is not known."""
    return _ADVICE_BY_REASON.get(reason, "")


def from_rpc_error(error: grpc.RpcError) -> Failure:
    """What a call's status means to the person at the terminal."""
    call: object = error  # the error of a call is that call, which its type does not say
    if not isinstance(call, grpc.Call):
        return Failure(str(error))
    sent = [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]
    # Only what came back is of use: a request that reached nobody is in nobody's log.
    request_id = next((str(value) for name, value in sent if name == "x-request-id"), "")
    status = rpc_status.from_call(call)
    if status is None:
        status = _bare_status(call)
    failure = from_status(status, request_id=request_id)
    if "CERTIFICATE_VERIFY_FAILED" in failure.message:
        failure.reason = "UNTRUSTED_CERTIFICATE"
        failure.message = "The server's certificate is not of a CA that is trusted here."
        failure.advice = "Name the stack's CA with --ca-file or PAGEMESH_CA_FILE, and check the address."
    for name, value in sent:
        if name == "retry-after":
            failure.advice = f"Try again in {value!s} s."
            failure.retry_after_s = _seconds(str(value))
    return failure


def _bare_status(call: grpc.Call) -> status_pb2.Status:
    """The status of a call that ended without details. gRPC calls it INTERNAL where the server, or the edge for it, cut
    a stream off; to the caller the server is away."""
    message = call.details() or ""
    if call.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in message:
        return status_pb2.Status(
            code=code_pb2.UNAVAILABLE, message="The answer was cut off: a part of the stack ended."
        )
    return status_pb2.Status(code=call.code().value[0], message=message)


def from_status(status: status_pb2.Status, *, request_id: str) -> Failure:
    """The same for the status that a stream carries as its last message."""
    exit_code = _EXIT_CODES.get(status.code, ExitCode.FAILED)
    failure = Failure(
        message=status.message or f"The call ended with {code_pb2.Code.Name(status.code)}.",
        exit_code=exit_code,
        reason=code_pb2.Code.Name(status.code),
        advice=_ADVICE.get(exit_code, ""),
        request_id=request_id,
    )
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    quota = error_details_pb2.QuotaFailure()
    for detail in status.details:
        if detail.Unpack(info):
            failure.reason = info.reason
            failure.advice = _ADVICE_BY_REASON.get(info.reason, failure.advice)
        elif detail.Unpack(bad_request):
            failure.fields = {item.field: item.description for item in bad_request.field_violations}
        elif detail.Unpack(retry):
            failure.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
            failure.advice = f"Try again in {failure.retry_after_s:g} s."
        elif detail.Unpack(quota):
            failure.fields |= {item.subject: item.description for item in quota.violations}
    return failure


def _seconds(text: str) -> float | None:
    try:
        return max(float(text), 0.0)
    except ValueError:  # the header may carry a date, which no part of a Pagemesh sends
        return None
