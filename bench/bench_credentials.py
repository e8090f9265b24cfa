"""What the ledger's Check costs for each credential once it is remembered, against a health check of the same process.

The health check is the cheapest call that there is: the same channel, mTLS, interceptors and server, and no work. Told
are medians of calls in turn, from one caller. A signed request is never remembered: two signatures are checked and its
nonce is written to Postgres.
"""

import asyncio

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.report import alternate_p50_us, report
from bench.running_stack import RunningStack, running_stack
from pagemesh.ledger.v1 import credential_service_pb2 as pb
from pagemesh.ledger.v1 import identity_service_pb2
from pagemesh.ledger.v1.credential_service_pb2_grpc import CredentialServiceStub
from pagemesh.ledger.v1.identity_service_pb2_grpc import IdentityServiceStub
from pagemesh_cli.request_signing import RequestSigner
from xdsapi.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from xdsapi.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub

ROUNDS = 1000
GOAL = 2.0
"""Check reads a larger message, answers one, and looks into three caches."""


def check_request(credential: str, headers: dict[str, str] | None = None) -> CheckRequest:
    request = CheckRequest()
    http = request.attributes.request.http
    http.method, http.host, http.path = "GET", "localhost", "/v1/whoami"
    http.headers.update({"authorization": f"Bearer {credential}", "x-request-id": "bench-check", **(headers or {})})
    return request


async def measure(stack: RunningStack) -> None:
    folder = stack.tls_dir("edge")
    credentials = grpc.ssl_channel_credentials(
        stack.ca_file.read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    )
    options = [("grpc.ssl_target_name_override", "ledger.pagemesh.local")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{stack.ports['ledger']}", credentials, options) as channel:
        authorization, health = AuthorizationStub(channel), health_pb2_grpc.HealthStub(channel)
        known = (await authorization.Check(check_request(stack.key))).ok_response.headers
        caller = tuple((option.header.key, option.header.value) for option in known)
        stub = CredentialServiceStub(channel)
        token = (await stub.ExchangeToken(pb.ExchangeTokenRequest(), metadata=caller)).access_token
        demand = identity_service_pb2.CreateApiKeyRequest(display_name="signed", scopes=["usage.read"])
        made = await IdentityServiceStub(channel).CreateApiKey(demand, metadata=caller)
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        name = made.api_key.name
        await stub.SetSigningKey(pb.SetSigningKeyRequest(name=name, public_key=public), metadata=caller)
        signer = RequestSigner(private, name)

        async def admitted(request: CheckRequest) -> None:
            answer = await authorization.Check(request)
            assert answer.HasField("ok_response"), answer

        async def with_signature() -> None:
            await admitted(check_request(made.secret, signer.headers("GET", "localhost", "/v1/whoami")))

        async def idle() -> None:
            await health.Check(health_pb2.HealthCheckRequest())

        key_request, session_request = check_request(stack.key), check_request(token)
        idle_us, key_us, session_us, signed_us = await alternate_p50_us(
            ROUNDS, idle, lambda: admitted(key_request), lambda: admitted(session_request), with_signature
        )
    times = {"health": idle_us, "key": key_us, "session": session_us, "signed": signed_us}
    detail = {f"{name}_p50_us": round(time_us) for name, time_us in times.items()}
    report("check_credentials", ratio=max(key_us, session_us) / idle_us, goal=GOAL, better="lower", detail=detail)


def main() -> None:
    with running_stack() as stack:
        asyncio.run(measure(stack))


if __name__ == "__main__":
    main()
