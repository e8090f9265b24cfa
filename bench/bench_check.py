"""What it costs to ask who a key is (Check), against a bare gRPC call, and against its limit of one millisecond.

All on one machine, one call at a time, from one Python client over mTLS. The peer is a gRPC server of the same kind in
a process of its own, with the same certificates, no concerns and an answer of the same size. The key is in the cache,
as it is for all but the first call of 30 s; one of the two tenants has a plan whose calls are counted. The service's
own time is what it writes into its log: from the call's arrival, through every concern, to its answer.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from bench.report import alternate_p50_us, report
from bench.running_stack import RunningStack, running_stack
from pagemesh_cli.stack.ports import pick_free_port
from xdsapi.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from xdsapi.envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub

ROUNDS = 2_000
# Two thirds of a call of Python's gRPC are its own; concerns, HMAC, cache and headers may take as much again.
ECHO_GOAL = 2.5
LIMIT_MS = 1.0
ECHO = "/bench.Echo/Echo"
METHOD = "/envoy.service.auth.v3.Authorization/Check"


def channel(tls_dir: Path, port: int) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        (tls_dir / "ca.crt").read_bytes(), (tls_dir / "tls.key").read_bytes(), (tls_dir / "tls.crt").read_bytes()
    )
    options = [("grpc.ssl_target_name_override", "ledger.pagemesh.local")]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


async def serve_echo(tls_dir: Path, port: int, size: int) -> None:
    """Answers `size` bytes to whatever is asked, until stopped."""
    pair = ((tls_dir / "tls.key").read_bytes(), (tls_dir / "tls.crt").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], (tls_dir / "ca.crt").read_bytes(), require_client_auth=True)
    answer = bytes(size)

    async def echo(_: bytes, __: Any) -> bytes:
        return answer

    handler = grpc.method_handlers_generic_handler("bench.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    await server.wait_for_termination()


@contextlib.contextmanager
def running_echo(stack: RunningStack, size: int) -> Iterator[int]:
    port = pick_free_port()
    arguments = ["echo", str(stack.tls_dir("ledger")), str(port), str(size)]
    with subprocess.Popen([sys.executable, "-m", "bench.bench_check", *arguments]) as process:
        try:
            yield port
        finally:
            process.terminate()


def key_with_quotas(stack: RunningStack) -> str:
    """The key of a tenant whose calls are counted."""
    words = ["tenants", "create", "bench", "--plan", "standard", "--json", "--data-dir", str(stack.root)]
    made = subprocess.run(
        [sys.executable, "-m", "pagemesh_cli", *words], check=True, capture_output=True, text=True, timeout=60
    )
    return str(json.loads(made.stdout)["secret"])


def own_p50_ms(stack: RunningStack) -> float:
    """The median of what the ledger's log says of the last calls."""
    taken = []
    for line in (stack.root / "logs" / "ledger.log").read_text(errors="replace").splitlines():
        if METHOD in line and line.startswith("{"):
            taken.append(float(json.loads(line)["ms"]))
    return statistics.median(taken[-2 * ROUNDS :])


async def measure(stack: RunningStack) -> None:
    checks = channel(stack.tls_dir("edge"), stack.ports["ledger"])
    check = AuthorizationStub(checks).Check

    def asking(key: str) -> CheckRequest:
        request = CheckRequest()
        request.attributes.request.http.headers["authorization"] = f"Bearer {key}"
        request.attributes.request.http.path = "/v1/whoami"
        return request

    plain, counted = asking(stack.key), asking(key_with_quotas(stack))
    answer = await check(plain, timeout=10)
    if not answer.HasField("ok_response"):
        raise RuntimeError("the key is not let in")
    body = plain.SerializeToString()
    with running_echo(stack, answer.ByteSize()) as port:
        echoes = channel(stack.tls_dir("edge"), port)
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = echoes.unary_unary(ECHO)
        await echo(body, timeout=30, wait_for_ready=True)
        plain_us, counted_us, echo_us = await alternate_p50_us(
            ROUNDS,
            lambda: check(plain, timeout=10),
            lambda: check(counted, timeout=10),
            lambda: echo(body, timeout=10),
        )
        await asyncio.gather(checks.close(), echoes.close())
    own_ms = own_p50_ms(stack)
    detail = {
        "check_p50_us": round(plain_us),
        "check_with_quotas_p50_us": round(counted_us),
        "echo_p50_us": round(echo_us),
        "ratio_with_quotas": round(counted_us / echo_us, 3),
        "rounds": ROUNDS,
    }
    report("check_over_echo", ratio=plain_us / echo_us, goal=ECHO_GOAL, better="lower", detail=detail)
    limit = {"own_p50_ms": own_ms, "limit_ms": LIMIT_MS}
    report("check_own_time_over_limit", ratio=own_ms / LIMIT_MS, goal=1.0, better="lower", detail=limit)


if __name__ == "__main__":
    if sys.argv[1:2] == ["echo"]:
        asyncio.run(serve_echo(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
    else:
        with running_stack() as running:
            asyncio.run(measure(running))
