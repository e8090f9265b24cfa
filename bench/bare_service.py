"""The least that a service can be: gRPC and mTLS before PyMuPDF in processes, and nothing else.

It opens files by their path, without limits, sandbox, database, store, index, identity, log or metrics, and is
measured beside the extractor (bench_extract) as the limit of what a Python service can reach on the same cores.
`python -m bench.bare_service TLS_DIR` prints its port and serves until its standard input ends.
"""

import asyncio
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import pymupdf

from pagemesh.extractor.v1 import extractor_service_pb2 as pb

METHOD = "/bench.Bare/Pages"
_AT_ONCE = 16


def work(connection: Connection) -> None:
    """One process: paths in; lists of texts out, then None."""
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    while path := connection.recv():
        with pymupdf.open(path) as document:
            texts: list[str] = []
            for page in document:
                texts.append(page.get_text("text"))
                if len(texts) == _AT_ONCE:
                    connection.send(texts)
                    texts = []
        connection.send(texts)
        connection.send(None)


class BareService:
    """Hands each file to a process that is free."""

    def __init__(self, processes: int) -> None:
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        context = multiprocessing.get_context("spawn")
        for _ in range(processes):
            ours, theirs = context.Pipe()
            context.Process(target=work, args=(theirs,), daemon=True).start()
            self._free.put_nowait(ours)

    async def pages(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        """The texts of all pages of the file with that path, in bursts."""
        process = await self._free.get()
        process.send(request.decode())
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(process.fileno(), readable.set)
        number = 0
        try:
            while True:
                await readable.wait()
                readable.clear()
                texts = process.recv()
                if texts is None:
                    return
                message = pb.ExtractPagesResponse()
                for text in texts:
                    number += 1
                    page = message.burst.events.add().page
                    page.number, page.text = number, text
                yield message.SerializeToString()
        finally:
            loop.remove_reader(process.fileno())
            self._free.put_nowait(process)


async def serve(tls: Path) -> None:
    """Until standard input ends."""
    ca, key, certificate = [(tls / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    server = grpc.aio.server()
    handler: Any = grpc.unary_stream_rpc_method_handler(BareService(os.cpu_count() or 1).pages)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", {"Pages": handler}),))
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    )
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
