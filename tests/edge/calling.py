"""One call, made in both ways that a caller of the edge has: gRPC, and JSON as the contract's google.api.http says."""

import http.client
import json
import re
import ssl
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.api import annotations_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pagemesh.extractor.v1 import extractor_service_pb2
from pagemesh.ledger.v1 import (
    audit_service_pb2,
    browser_session_service_pb2,
    credential_service_pb2,
    identity_service_pb2,
    ledger_service_pb2,
)
from pagemesh.summarizer.v1 import (
    job_service_pb2,
    model_policy_service_pb2,
    schema_service_pb2,
    summarizer_service_pb2,
)

TIMEOUT_S = 60.0
_FILES = (
    extractor_service_pb2,
    summarizer_service_pb2,
    schema_service_pb2,
    job_service_pb2,
    model_policy_service_pb2,
    ledger_service_pb2,
    identity_service_pb2,
    audit_service_pb2,
    credential_service_pb2,
    browser_session_service_pb2,
)
METHODS: dict[str, MethodDescriptor] = {
    f"{service.full_name}/{method.name}": method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass
class Outcome:
    """What came back: `code` is gRPC's name for it, `http` the HTTP status (0 over gRPC), `messages` as JSON."""

    code: str
    http: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)
    message: str = ""
    reason: str = ""
    fields: list[str] = field(default_factory=list)
    retry_after: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    """Over HTTP, what the messages were read from, or what is none."""


@dataclass(frozen=True)
class Edge:
    """Where the edge is and which CA signs for it."""

    host: str
    port: int
    ca_file: Path

    def grpc(
        self, rpc: str, request: Mapping[str, Any] | Iterable[Message], key: str, *, timeout_s: float = TIMEOUT_S
    ) -> Outcome:
        """The call over gRPC; `request` is JSON-like, or the messages themselves for an upload."""
        method = METHODS[rpc]
        credentials = grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        options = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]
        with grpc.secure_channel(f"{self.host}:{self.port}", credentials, options) as channel:
            call = _bind(channel, method)
            sent: Any = _sent(method, request)
            try:
                answer = call(sent, timeout=timeout_s, metadata=_credential(key))
                got = list(answer) if method.server_streaming else [answer]
            except grpc.RpcError as error:
                return _grpc_error(error)
        return Outcome("OK", messages=[json_format.MessageToDict(m) for m in got])

    def json(
        self,
        rpc: str,
        request: Mapping[str, Any],
        key: str,
        *,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Outcome:
        """The call over JSON; `body` is the raw body of an upload, chunked where it is an iterator."""
        verb, path, payload = _http_form(METHODS[rpc], dict(request))
        content = body if body is not None else payload
        sent = {**dict(_credential(key)), **(headers or {})}
        if content is not None:
            sent.setdefault("content-type", "application/json" if body is None else "application/octet-stream")
        return self.http(verb, path, content, sent)

    def http(
        self,
        verb: str,
        path: str,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Any request over HTTP/1.1."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection(self.host, self.port, context=context, timeout=TIMEOUT_S)
        try:
            connection.request(verb, path, content, dict(headers or {}), encode_chunked=True)
            response = connection.getresponse()
            return _http_outcome(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


def _sent(method: MethodDescriptor, request: Any) -> Any:
    if method.client_streaming:
        return iter(request)
    return json_format.ParseDict(request, _new(method.input_type))


def _credential(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),) if key else ()


def _new(descriptor: Any) -> Message:
    return message_factory.GetMessageClass(descriptor)()


def _bind(channel: grpc.Channel, method: MethodDescriptor) -> Any:
    incoming = "stream" if method.client_streaming else "unary"
    outgoing = "stream" if method.server_streaming else "unary"
    response = message_factory.GetMessageClass(method.output_type)
    return getattr(channel, f"{incoming}_{outgoing}")(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )


def _grpc_error(error: Any) -> Outcome:
    outcome = Outcome(error.code().name, message=error.details() or "")
    outcome.headers = {k: v for k, v in error.trailing_metadata() or () if isinstance(v, str)}
    outcome.retry_after = outcome.headers.get("retry-after", "")
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            outcome.reason = info.reason
        elif detail.Unpack(bad):
            outcome.fields = [violation.field for violation in bad.field_violations]
    return outcome


def _http_form(method: MethodDescriptor, request: dict[str, Any]) -> tuple[str, str, bytes | None]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")

    def fill(match: re.Match[str]) -> str:
        *outer, last = match[1].split(".")
        holder = request
        for step in outer:
            holder[step] = dict(holder[step])
            holder = holder[step]
        return urllib.parse.quote(str(holder.pop(last)), safe="/")

    path = re.sub(r"\{([\w.]+)(?:=[^}]*)?\}", fill, getattr(rule, verb))
    if rule.body == "*":
        return verb.upper(), path, json.dumps(request).encode()
    content = json.dumps(request.pop(rule.body)).encode() if rule.body in request else None
    query = urllib.parse.urlencode(list(_parameters(request)))
    return verb.upper(), f"{path}?{query}" if query else path, content


def _parameters(request: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields of messages by their path, repeated ones again and again, as google.api.http has them."""
    for name, value in request.items():
        if isinstance(value, dict):
            yield from _parameters(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((prefix + name, item) for item in value)
        elif value is not None:
            yield prefix + name, value


def _http_outcome(status: int, headers: dict[str, str], body: bytes) -> Outcome:
    documents = _documents(headers.get("content-type", ""), body)
    outcome = Outcome("OK", http=status, headers=headers, retry_after=headers.get("retry-after", ""), body=body)
    if status < 300:
        outcome.messages = documents
        return outcome
    error = documents[0] if documents else {}
    outcome.code = grpc_code(int(error.get("code", 2)))
    outcome.message = error.get("message", "")
    for detail in error.get("details", []):
        if detail.get("@type", "").endswith("ErrorInfo"):
            outcome.reason = detail.get("reason", "")
        elif detail.get("@type", "").endswith("BadRequest"):
            outcome.fields = [
                v.get("field", "") for v in detail.get("fieldViolations", detail.get("field_violations", []))
            ]
    return outcome


def grpc_code(number: int) -> str:
    """NOT_FOUND for 5."""
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


def _documents(content_type: str, body: bytes) -> list[dict[str, Any]]:
    if content_type.startswith("text/event-stream"):
        lines = [line.removeprefix(b"data:").strip() for line in body.splitlines() if line.startswith(b"data:")]
    else:
        lines = [line for line in body.splitlines() if line.strip()]
        if not content_type.startswith("application/json"):
            return []
        try:
            return [json.loads(body)]
        except json.JSONDecodeError:
            pass  # newline-delimited
    return [json.loads(line) for line in lines]
