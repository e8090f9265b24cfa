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
import uvloop

from bench.bare_server import serve
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
        os.set_blocking(process.fileno(), True)  # the loop made it otherwise, and a Connection reads whole messages
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


async def main(tls: Path) -> None:
    pages = BareService(os.cpu_count() or 1).pages
    await serve(tls, METHOD, grpc.unary_stream_rpc_method_handler(pages))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
