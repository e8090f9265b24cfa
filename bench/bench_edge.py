"""What the edge costs a call: WhoAmI through Envoy, as gRPC and as JSON, against the same call to the ledger itself.

Through the edge a call is TLS, authenticated by the ledger's Check, limited, perhaps transcoded, and mTLS again; the
direct one is mTLS alone, with the identity that the edge would have set. One call at a time, from one client.
"""

import asyncio
import http.client
import ssl

import grpc

from bench.report import alternate_p50_us, report
from bench.running_stack import RunningStack, running_stack
from pagemesh.ledger.v1 import identity_service_pb2, identity_service_pb2_grpc

ROUNDS = 1500
# Check is a second call, to a Python service, for each one that the edge lets through: about two of the direct calls,
# and TLS, two hops and JSON come on top.
GOAL = 5.0


async def measure(stack: RunningStack) -> None:
    folder = stack.tls_dir("edge")
    direct = grpc.aio.secure_channel(
        f"127.0.0.1:{stack.ports['ledger']}",
        grpc.ssl_channel_credentials(
            (folder / "ca.crt").read_bytes(), (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
        ),
        options=[("grpc.ssl_target_name_override", "ledger.pagemesh.local")],
    )
    edge = grpc.aio.secure_channel(
        f"localhost:{stack.ports['edge']}", grpc.ssl_channel_credentials(stack.ca_file.read_bytes())
    )
    context = ssl.create_default_context(cafile=str(stack.ca_file))
    web = http.client.HTTPSConnection("localhost", stack.ports["edge"], context=context, timeout=10)
    request = identity_service_pb2.WhoAmIRequest()
    credential = (("authorization", f"Bearer {stack.key}"),)
    identity = (("x-pagemesh-tenant", "bench"), ("x-pagemesh-actor", "apiKeys/bench"))

    async def direct_grpc() -> None:
        await identity_service_pb2_grpc.IdentityServiceStub(direct).WhoAmI(request, metadata=identity, timeout=10)

    async def edge_grpc() -> None:
        await identity_service_pb2_grpc.IdentityServiceStub(edge).WhoAmI(request, metadata=credential, timeout=10)

    async def edge_json() -> None:
        web.request("GET", "/v1/whoami", headers=dict(credential))
        response = web.getresponse()
        response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"the edge answered {response.status}")

    direct_us, grpc_us, json_us = await alternate_p50_us(ROUNDS, direct_grpc, edge_grpc, edge_json)
    await asyncio.gather(direct.close(), edge.close())
    detail = {
        "direct_grpc_p50_us": round(direct_us),
        "edge_grpc_p50_us": round(grpc_us),
        "edge_json_p50_us": round(json_us),
        "edge_grpc_ratio": round(grpc_us / direct_us, 3),
        "rounds": ROUNDS,
    }
    report("edge_json_over_direct_grpc", ratio=json_us / direct_us, goal=GOAL, better="lower", detail=detail)


if __name__ == "__main__":
    with running_stack() as running:
        asyncio.run(measure(running))
