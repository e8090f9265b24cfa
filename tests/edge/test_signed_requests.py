"""Keys that demand signed requests (RFC 9421), through the real edge, over JSON and over gRPC."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pagemesh.ledger.v1.identity_service_pb2 import WhoAmIRequest
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from pagemesh_cli.request_signing import RequestSigner, SignedCalls
from tests.edge.calling import Outcome
from tests.edge.conftest import CREATE_KEY, World

SET_SIGNING_KEY = "pagemesh.ledger.v1.CredentialService/SetSigningKey"


@dataclass
class Caller:
    world: World
    credential: str
    signer: RequestSigner

    @property
    def authority(self) -> str:
        return f"{self.world.edge.host}:{self.world.edge.port}"

    def signed(self, verb: str, path: str, body: bytes | None = None) -> dict[str, str]:
        digest = "" if body is None else f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        return self.signer.headers(verb, self.authority, path, content_digest=digest)

    def send(self, verb: str, path: str, signed: dict[str, str], body: bytes | None = None) -> Outcome:
        headers = {"authorization": f"Bearer {self.credential}", **signed}
        if body is not None:
            headers["content-type"] = "application/json"
        return self.world.edge.http(verb, path, body, headers)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def caller(world: World) -> Caller:
    admin, private = world.keys["admin"], Ed25519PrivateKey.generate()
    request: dict[str, Any] = {"display_name": "signed", "scopes": ["usage.read", "keys.admin"]}
    made = world.edge.grpc(CREATE_KEY, request, admin).messages[0]
    name = made["apiKey"]["name"]
    public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    assert world.edge.json(SET_SIGNING_KEY, {"name": name, "public_key": public}, admin).http == 200
    caller = Caller(world, made["secret"], RequestSigner(private, name))
    wait_for(lambda: caller.send("GET", "/v1/whoami", {}).http == 403)
    return caller


def refusal(outcome: Outcome) -> str:
    assert (outcome.http, outcome.code, outcome.reason) == (403, "PERMISSION_DENIED", "PERMISSION_DENIED"), outcome
    return outcome.message


def test_a_signed_request_passes_once(caller: Caller) -> None:
    assert "not signed" in refusal(caller.send("GET", "/v1/whoami", {}))
    signed = caller.signed("GET", "/v1/whoami")
    assert caller.send("GET", "/v1/whoami", signed).http == 200
    assert "nonce was used" in refusal(caller.send("GET", "/v1/whoami", signed))


def test_a_query_is_signed_as_it_is_sent(caller: Caller) -> None:
    path = "/v1/usage?page_size=3&document=documents%2F" + "0" * 32
    assert caller.send("GET", path, caller.signed("GET", path)).http == 200
    signed = caller.signed("GET", path)
    assert "not that of" in refusal(caller.send("GET", path.replace("size=3", "size=4"), signed))
    assert "must cover" in refusal(caller.send("GET", path, caller.signed("GET", "/v1/usage")))


def test_a_body_needs_its_digest(caller: Caller) -> None:
    path = "/v1/apiKeys"
    body = json.dumps({"displayName": "made by a signed call", "scopes": ["usage.read"]}).encode()
    assert caller.send("POST", path, caller.signed("POST", path, body), body).http == 200
    assert "content-digest" in refusal(caller.send("POST", path, caller.signed("POST", path), body))
    other = {**caller.signed("POST", path, body), "content-digest": caller.signed("POST", path, b"x")["content-digest"]}
    assert "not that of" in refusal(caller.send("POST", path, other, body))


def test_who_has_not_the_key_hears_nothing_of_signatures(caller: Caller) -> None:
    wrong = Caller(caller.world, caller.credential[:-2] + "xx", caller.signer)
    outcome = wrong.send("GET", "/v1/whoami", wrong.signed("GET", "/v1/whoami"))
    assert (outcome.http, outcome.reason) == (401, "UNAUTHENTICATED")
    assert "sign" not in outcome.message


def test_grpc_calls_are_signed_by_their_method(caller: Caller) -> None:
    root = grpc.ssl_channel_credentials(caller.world.edge.ca_file.read_bytes())
    signing = grpc.metadata_call_credentials(SignedCalls(caller.credential, caller.signer))
    with grpc.secure_channel(caller.authority, grpc.composite_channel_credentials(root, signing)) as channel:
        stub = IdentityServiceStub(channel)
        for _ in range(2):
            assert stub.WhoAmI(WhoAmIRequest(), timeout=30).actor.startswith("apiKeys/")
    bearer = grpc.access_token_call_credentials(caller.credential)
    unsigned = grpc.secure_channel(caller.authority, grpc.composite_channel_credentials(root, bearer))
    with unsigned as channel, pytest.raises(grpc.RpcError) as refused:
        IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), timeout=30)
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "not signed" in error.details()
