"""Where webhooks arrive."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from services.webhooks.signature import signature


@dataclass
class Receiver:
    """A server that notes what is posted to it, and answers as it is told."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        raw = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        headers["webhook-signature"] = raw["webhook-signature"]
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        status = self.statuses.pop(0) if self.statuses else 204
        writer.write(f"HTTP/1.1 {status} x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    def told(self, secret: str) -> list[dict[str, Any]]:
        """The messages, each of which must be signed with that secret."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        for headers, body in self.got:
            timestamp = int(headers["webhook-timestamp"])
            assert headers["webhook-signature"] == signature(key, headers["webhook-id"], timestamp, body)
        return [json.loads(body) for _, body in self.got]


@contextlib.asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """One that listens on a free port."""
    told = Receiver()
    server = await asyncio.start_server(told.answer, "127.0.0.1", 0)
    told.port = server.sockets[0].getsockname()[1]
    yield told
    server.close()
    await server.wait_closed()
