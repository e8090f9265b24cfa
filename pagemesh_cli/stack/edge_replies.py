"""What the edge says itself, when no service answers: one row for each thing that can go wrong there.

Envoy takes two mappers for a row. A JSON caller gets google.rpc.Status as the services' transcoded errors show it; a
gRPC caller gets the message as text and, where the words are ours, the same Status in `grpc-status-details-bin`.
"""

import base64
from dataclasses import dataclass

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "pagemesh"
_INFO_TYPE = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_TYPE = "type.googleapis.com/google.rpc.RetryInfo"
_CEL_FILTER_TYPE = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"

Json = dict[str, object]

# A parameter `password`. The transcoder unescapes names, so that any letter may be written as its number.
PASSWORD_IN_ADDRESS = r"[^?]*\?(.*&)?{}([=&].*)?".format(
    "".join(f"({letter}|%(?i:{ord(letter):x}))" for letter in "password")
)


@dataclass(frozen=True)
class Reply:
    """`code` is google.rpc.Code. A row fits where all of these fit: `status` (HTTP), `flag` (Envoy's response flag),
    `path` (a regular expression for all of the address), `why` (one for how Envoy's response code details begin).
    """

    reason: str
    code: int
    message: str | None = None
    """None passes on what the ledger or the transcoder said."""
    status: int | None = None
    flag: str | None = None
    path: str | None = None
    why: str | None = None
    answer_status: int | None = None
    """HTTP status for JSON callers where Envoy's own is not the one that clients expect."""
    grpc_code: int | None = None
    """The code for gRPC callers where it is not `code`."""
    retry: bool = False
    """Whether Envoy sets retry-after."""


# The first row that fits is taken.
REPLIES = (
    Reply("AUTHORIZER_UNAVAILABLE", 14, "The authorizer cannot be reached. Try again.", status=503, flag="UAEX"),
    Reply("UPSTREAM_UNAVAILABLE", 14, "The service cannot be reached. Try again.", status=503),
    Reply("UPSTREAM_UNAVAILABLE", 14, "The service broke the connection. Try again.", status=502),
    Reply("DEADLINE_EXCEEDED", 4, "The deadline passed before the answer was there.", flag="DT", answer_status=504),
    Reply("DEADLINE_EXCEEDED", 4, "The service did not answer in time.", status=504),
    Reply("REQUEST_TIMEOUT", 4, "The request did not arrive in time.", status=408),
    Reply("BODY_TOO_LARGE", 3, "The body is larger than this path allows.", status=413),
    Reply("HEADERS_TOO_LARGE", 3, "The headers are too many or too large.", status=431),
    Reply("QUOTA_EXCEEDED", 8, status=429, flag="UAEX", retry=True),
    Reply("RATE_LIMITED", 8, "Too many requests. Wait as long as retry-after says.", status=429, retry=True),
    Reply("NO_ROUTE", 5, "There is nothing at this path, or not for this method.", status=404, grpc_code=12),
    Reply("POST_ONLY", 12, "This is the path of a gRPC method, which is called with POST.", status=405),
    Reply("HOST_UNKNOWN", 5, "The edge does not answer for this host.", status=421),
    Reply("UNAUTHENTICATED", 16, "The API key is missing, unknown, expired or revoked.", status=401),
    Reply("PERMISSION_DENIED", 7, status=403),
    Reply(
        "PASSWORD_IN_ADDRESS",
        3,
        "A password does not belong in the address, which proxies log. Send it in the body.",
        status=400,
        path=PASSWORD_IN_ADDRESS,
    ),
    Reply(
        "INVALID_REQUEST",
        3,
        "The path can be read in two ways. Write it without #, %2F, %5C and %00.",
        status=400,
        why="path_normalization_failed",
    ),
    Reply("INVALID_REQUEST", 3, "The Host header is missing.", status=400, why="missing_host_header"),
    Reply(
        "INVALID_REQUEST",
        3,
        "The name of a header has an underscore in it. Write a dash.",
        status=400,
        why="http[123][.]unexpected_underscore",
    ),
    Reply("INVALID_REQUEST", 3, "This is not valid HTTP.", status=400, why="http[123][.]"),
    Reply("INVALID_REQUEST", 3, "HTTP/1.0 is not spoken here. Use HTTP/1.1 or HTTP/2.", status=426),
    # These say themselves what is wrong.
    Reply("INVALID_REQUEST", 3, status=400, why="lua_response|(early_)?grpc_json_transcode_failure|ext_authz"),
    Reply(
        "INVALID_REQUEST",
        3,
        "The edge does not take this request; its access log has the reason beside the request id.",
        status=400,
    ),
    Reply("EDGE_ERROR", 13, "The edge could not handle the request."),
)


def mappers() -> list[Json]:
    """The table as Envoy's ResponseMapper messages: health first, what envoy/strict_json.lua says whole, then gRPC
    callers, then JSON callers."""
    return [*_health(), _refused(), *(_grpc(reply) for reply in REPLIES), *(_json(reply) for reply in REPLIES)]


def _health() -> list[Json]:
    path = _any([_header(":path", {"exact": exact}) for exact in ("/healthz", "/readyz")])
    ready, not_ready = (_json_body({"ready": state, "time": "%START_TIME%"}) for state in (True, False))
    return [
        {"filter": _all([path, _status(200)]), "body_format_override": ready},
        {"filter": path, "body_format_override": not_ready},
    ]


def _refused() -> Json:
    written = {"content_type": "application/json", "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}
    header: Json = {"header_filter": {"header": {"name": "x-pagemesh-refused", "present_match": True}}}
    return {"filter": header, "body_format_override": written}


def _grpc(reply: Reply) -> Json:
    # A transcoded call has gRPC's content type too, and what it was before in x-envoy-original-path.
    caller: list[Json] = [
        _header("content-type", {"prefix": "application/grpc"}),
        {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": True, "invert_match": True}}},
    ]
    code = reply.code if reply.grpc_code is None else reply.grpc_code
    # Envoy derives a code from the HTTP status unless it finds one.
    headers = {"grpc-status": str(code)}
    if reply.message is not None:
        headers["grpc-status-details-bin"] = _details(code, reply.reason, reply.message)
    return {
        "filter": _all([*caller, *_conditions(reply)]),
        "body_format_override": {"text_format_source": {"inline_string": _words(reply)}},
        "headers_to_add": [{"header": {"key": key, "value": value}} for key, value in headers.items()],
    }


def _details(code: int, reason: str, message: str) -> str:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    status = status_pb2.Status(code=code, message=message, details=[info])
    return base64.b64encode(status.SerializeToString(deterministic=True)).decode().rstrip("=")


def _json(reply: Reply) -> Json:
    details: list[Json] = [{"@type": _INFO_TYPE, "reason": reply.reason, "domain": DOMAIN}]
    if reply.retry:
        details.append({"@type": _RETRY_TYPE, "retryDelay": "%RESP(RETRY-AFTER)%s"})
    mapper: Json = {
        "filter": _all(_conditions(reply)),
        "body_format_override": _json_body({"code": reply.code, "message": _words(reply), "details": details}),
    }
    if reply.answer_status is not None:
        mapper["status_code"] = reply.answer_status
    return mapper


def _words(reply: Reply) -> str:
    """The message as a format of Envoy's, for which a percent sign begins a command."""
    return "%LOCAL_REPLY_BODY%" if reply.message is None else reply.message.replace("%", "%%")


def _conditions(reply: Reply) -> list[Json]:
    conditions: list[Json] = []
    if reply.status is not None:
        conditions.append(_status(reply.status))
    if reply.flag is not None:
        conditions.append({"response_flag_filter": {"flags": [reply.flag]}})
    if reply.path is not None:
        conditions.append(_header(":path", {"safe_regex": {"regex": reply.path}}))
    if reply.why is not None:
        expression = f"response.code_details.matches('^({reply.why})')"
        config = {"@type": _CEL_FILTER_TYPE, "expression": expression}
        name = "envoy.access_loggers.extension_filters.cel"
        conditions.append({"extension_filter": {"name": name, "typed_config": config}})
    return conditions


def _status(status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"edge.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _header(name: str, match: Json) -> Json:
    return {"header_filter": {"header": {"name": name, "string_match": match}}}


def _all(filters: list[Json]) -> Json:
    """Envoy's and_filter wants two filters or more."""
    if not filters:
        return _status_at_least(0)
    return filters[0] if len(filters) == 1 else {"and_filter": {"filters": filters}}


def _any(filters: list[Json]) -> Json:
    return {"or_filter": {"filters": filters}}


def _status_at_least(status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"edge.from_status_{status}"}
    return {"status_code_filter": {"comparison": {"op": "GE", "value": value}}}


def _json_body(body: Json) -> Json:
    return {"content_type": "application/json", "json_format": body}
