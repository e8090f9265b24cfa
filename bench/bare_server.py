"""What the barest servers have in common: one method over mTLS, in a process of its own that prints its port."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc


async def serve(tls: Path, method: str, handler: Any) -> None:
    """Answers `/package.Service/Method` until standard input ends."""
    service, _, name = method.removeprefix("/").partition("/")
    ca, key, certificate = [(tls / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    )
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


@contextlib.contextmanager
def running(module: str, *arguments: str) -> Iterator[int]:
    """`python -m module` while the block runs; answers its port."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(timeout=10)
