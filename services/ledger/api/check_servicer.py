"""envoy.service.auth.v3.Authorization: Envoy asks it about every request before anything else sees it."""

import base64
import hashlib
import re
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf import struct_pb2
from google.rpc import code_pb2, status_pb2
from prometheus_client import Counter

from services.ledger.api.browser_session_servicer import CLEARED_COOKIE, PROVIDER_HEADER
from services.ledger.domain.browser_sessions import cookies_in
from services.ledger.domain.clients import ClientHasher
from services.ledger.domain.gate import Gate, Request
from services.ledger.domain.identity import Denial, Principal
from services.ledger.domain.quotas import Exhausted, Quotas
from services.ledger.domain.request_signatures import Message
from services.runtime import status
from services.runtime.call import Identity, current_call, enter
from services.runtime.errors import PagemeshError, QuotaViolation, ResourceExhausted
from xdsapi.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from xdsapi.envoy.service.auth.v3.external_auth_pb2 import (
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    OkHttpResponse,
)
from xdsapi.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationServicer
from xdsapi.envoy.type.v3.http_status_pb2 import HttpStatus, StatusCode

log = structlog.get_logger()
Context = grpc.aio.ServicerContext[Any, Any]

_CHECKS = Counter("pagemesh_ledger_checks", "Checks for the edge, by `ok` or why not.", ["outcome"])
UPLOAD_BYTES_HEADER = "x-pagemesh-max-upload-bytes"
"""The largest file that the tenant's plan allows; absent where it says nothing."""
_CREDENTIAL_HEADERS = ("authorization", "x-api-key", "cookie", "x-csrf-token")
_GRPC = "application/grpc"
_UPLOADS = ("/v1/documents:upload", "/pagemesh.extractor.v1.ExtractorService/UploadDocument")
_ENDS = re.compile(
    r"/v1/(apiKeys|sessions)/[0-9a-z]+:(revoke|rotate)"
    r"|/v1/browserSessions/[0-9a-z]+"
    r"|/pagemesh\.ledger\.v1\.(IdentityService/(Revoke|Rotate)ApiKey|CredentialService/RevokeSession"
    r"|BrowserSessionService/DeleteBrowserSession)"
)
"""What a stolen credential is ended with: a thief who spends the hour's quota is not to prevent it."""
_DENIED_TEXT = "API key is missing, unknown, expired or revoked"
"""One text for all reasons: which of them it was would help only somebody who guesses."""

_TOLD = {
    Denial.CREDENTIAL_TWICE: "The request has a session cookie and another credential. Send one of them; sign out to "
    "use the other.",
    Denial.CROSS_SITE: "A page of another site sent the request. A session cookie counts for pages of its own site.",
    Denial.CSRF_TOKEN_WRONG: "With a session cookie every method but GET needs the session's csrf_token in the header "
    "x-csrf-token. GET /v1/browserSessions:current tells it.",
    Denial.REQUEST_UNSIGNED: "This key demands signed requests (RFC 9421), and this one is not signed.",
    Denial.SIGNATURE_MALFORMED: "The request needs one signature, with created, keyid (apiKeys/...), a nonce of 16 to "
    "128 characters, and alg ed25519 if any.",
    Denial.SIGNATURE_INCOMPLETE: "The signature must cover @method, @authority and @path, @query where there is one, "
    "and content-digest where there is a body.",
    Denial.SIGNATURE_EXPIRED: "The signature was created more than five minutes ago or a minute from now. Look at the "
    "clock, and sign each request anew.",
    Denial.SIGNATURE_WRONG: "The signature is not that of the key's signing key over this request.",
    Denial.SIGNATURE_REPLAYED: "The signature's nonce was used before. Sign each request anew.",
}
"""Whoever hears this has shown the credential itself, or two of them: the reason helps nobody else."""


class CheckServicer(AuthorizationServicer):
    """Answers 200 with who it is, 401, or 429 where the hour's quota is used up. A failure of ours fails the RPC, and
    Envoy answers 503."""

    def __init__(self, gate: Gate, quotas: Quotas, clients: ClientHasher) -> None:
        self._gate = gate
        self._quotas = quotas
        self._clients = clients

    async def Check(self, request: CheckRequest, context: Context) -> CheckResponse:
        """Who sends the request that Envoy describes."""
        asked = request.attributes.request.http
        headers = asked.headers
        # The log line of this call belongs to the request that it lets in, or not.
        enter(replace(current_call(), request_id=headers.get("x-request-id", current_call().request_id)))
        try:
            presented = _request(request)
            found = await self._gate.admit(presented)
            used_up = None
            if isinstance(found, Principal) and not _ENDS.fullmatch(asked.path):
                used_up = await self._quotas.take(found, upload=_is_upload(asked.path))
        except PagemeshError as exc:
            _CHECKS.labels(exc.reason.lower()).inc()
            raise
        if isinstance(found, Denial):
            _CHECKS.labels(found.value).inc()
            log.info("denied", why=found.value)
            return _denied(_TOLD.get(found), cookie=bool(cookies_in(headers.get("cookie", ""))))
        if used_up is not None:
            _CHECKS.labels("quota_exceeded").inc()
            log.info("quota_exceeded", tenant=found.tenant, kind=used_up.kind.value)
            return _over_quota(found, used_up, over_grpc=headers.get("content-type", "").startswith(_GRPC))
        _CHECKS.labels("ok").inc()
        enter(replace(current_call(), identity=Identity(found.tenant, found.actor, found.project, found.scopes)))
        # Of the connection, or of x-forwarded-for as far as the edge believes it; it goes no further than here.
        address = request.attributes.source.address.socket_address.address
        told = _identity(found, presented.certificate, self._clients.hash(found.tenant, address))
        if _is_upload(asked.path) and found.plan.max_upload_bytes is not None:
            told[UPLOAD_BYTES_HEADER] = str(found.plan.max_upload_bytes)
        return _ok(found, told)


def _request(request: CheckRequest) -> Request:
    http = request.attributes.request.http
    return Request(
        credential=_credential(http.headers),
        message=Message(http.method, http.host, http.path, dict(http.headers)),
        port=request.attributes.destination.address.socket_address.port_value,
        certificate=_fingerprint(request.attributes.source.certificate),
    )


def _fingerprint(certificate: str) -> str:
    """The SHA-256 of a certificate, in hex, out of PEM that is quoted as in URLs; empty where there is none."""
    if not certificate:
        return ""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(urllib.parse.unquote(certificate))).hexdigest()


def _credential(headers: Mapping[str, str]) -> str:
    """What follows `Bearer` in authorization, else x-api-key; empty where neither is there.

    Envoy gives header names in lower case. An authorization header that is not a Bearer is no credential of ours and
    does not hide an x-api-key.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key", "").strip()


def _identity(principal: Principal, certificate: str, client: str) -> dict[str, str]:
    """The headers that tell the services whom they serve."""
    provider = {PROVIDER_HEADER: principal.provider} if principal.provider else {}
    return {
        **provider,
        "x-pagemesh-tenant": principal.tenant,
        "x-pagemesh-actor": principal.actor,
        "x-pagemesh-project": principal.project,
        "x-pagemesh-scopes": " ".join(sorted(principal.scopes)),
        "x-pagemesh-client": client,
        "x-pagemesh-session": principal.session,
        "x-pagemesh-certificate": certificate,
    }


def _ok(principal: Principal, told: Mapping[str, str]) -> CheckResponse:
    # For rate limits, access log and rules of the edge.
    metadata = struct_pb2.Struct()
    metadata.update(
        {
            "tenant": principal.tenant,
            "actor": principal.actor,
            "project": principal.project,
            "scopes": sorted(principal.scopes),
        }
    )
    return CheckResponse(
        status=status_pb2.Status(code=code_pb2.OK),
        ok_response=OkHttpResponse(
            headers=[_overwrite(name, value) for name, value in told.items()],
            headers_to_remove=_CREDENTIAL_HEADERS,
        ),
        dynamic_metadata=metadata,
    )


def _denied(told: str | None, *, cookie: bool) -> CheckResponse:
    if told is not None:
        return CheckResponse(
            status=status_pb2.Status(code=code_pb2.PERMISSION_DENIED),
            denied_response=DeniedHttpResponse(
                status=HttpStatus(code=StatusCode.Forbidden),
                headers=[_overwrite("content-type", "text/plain")],
                body=told,
            ),
        )
    # A cookie that lets nobody in would stand in the way of signing in anew.
    forget = [_overwrite("set-cookie", CLEARED_COOKIE)] if cookie else []
    return CheckResponse(
        status=status_pb2.Status(code=code_pb2.UNAUTHENTICATED),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=StatusCode.Unauthorized),
            headers=[_overwrite("www-authenticate", "Bearer"), _overwrite("content-type", "text/plain"), *forget],
            body=_DENIED_TEXT,
        ),
    )


def _is_upload(path: str) -> bool:
    # However it is spelled: the edge unescapes what it looks a path up by.
    return unquote(path.partition("?")[0]) in _UPLOADS


def _over_quota(principal: Principal, used_up: Exhausted, *, over_grpc: bool) -> CheckResponse:
    plan, kind = principal.plan, used_up.kind
    error = ResourceExhausted(
        "QUOTA_EXCEEDED",
        f"The hour's quota of {plan.per_hour(kind)} {kind.value} is used up. Wait as long as retry-after says, or ask"
        " the operator for a larger plan.",
        retry_after_s=used_up.retry_after_s,
        quota=QuotaViolation(f"tenants/{principal.tenant}", f"{kind.value} per hour of {plan.name}"),
    )
    headers = {"retry-after": str(used_up.retry_after_s), "content-type": "text/plain"}
    if over_grpc:
        # In this header alone does a gRPC caller look for details; a JSON caller gets them from the edge's own words.
        rich = status.to_status(error)
        headers["grpc-status-details-bin"] = base64.b64encode(rich.SerializeToString()).decode().rstrip("=")
    return CheckResponse(
        status=status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED),
        denied_response=DeniedHttpResponse(
            status=HttpStatus(code=StatusCode.TooManyRequests),
            headers=[_overwrite(name, value) for name, value in headers.items()],
            body=error.message,
        ),
    )


def _overwrite(name: str, value: str) -> HeaderValueOption:
    # Takes the place of what the client sent under that name, also where the value is empty.
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value), append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    )
