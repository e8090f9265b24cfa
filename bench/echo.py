"""The barest gRPC server: it answers with the bytes that it was started with, over mTLS, and does nothing else.

`python -m bench.echo TLS_DIR BYTES` prints its port and serves until its standard input ends.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

METHOD = "/bench.Echo/Echo"


async def serve(tls: Path, size: int) -> None:
    """Until standard input ends."""
    answer = bytes(size)

    async def echo(_: bytes, __: Any) -> bytes:
        return answer

    ca, key, certificate = [(tls / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    )
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


@contextlib.contextmanager
def running_echo(tls: Path, size: int) -> Iterator[int]:
    """A process of its own; answers its port."""
    command = [sys.executable, "-m", "bench.echo", str(tls), str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
