"""The barest gRPC server: it answers with as many bytes as it was told to, over mTLS, and does nothing else.

`python -m bench.echo TLS_DIR BYTES` prints its port and serves until its standard input ends.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc

from bench.bare_server import serve

METHOD = "/bench.Echo/Echo"


async def main(tls: Path, size: int) -> None:
    answer = bytes(size)

    async def echo(_: bytes, __: Any) -> bytes:
        return answer

    await serve(tls, METHOD, grpc.unary_unary_rpc_method_handler(echo))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
