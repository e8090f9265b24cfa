"""Real servers and clients of the mesh, over mTLS on loopback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pagemesh_cli.stack.certificates import CertificateAuthority
from services.runtime.clients import MeshClient
from services.runtime.config import RuntimeSettings
from services.runtime.health import Health
from services.runtime.server import MeshServer


def settings(tls_dir: Path, **changes: Any) -> RuntimeSettings:
    """Settings of a service on free ports; a test says what differs."""
    values: dict[str, Any] = {
        "grpc_listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
        "tls_dir": tls_dir,
        "peers": "edge,summarizer,operator",
        "database_url": "postgresql://nobody@localhost/none",
        "drain_s": 0,
        "shutdown_s": 2,
    }
    return RuntimeSettings(**{**values, **changes})


class Running:
    """A server that answers, and the switch that stops it."""

    def __init__(self, server: MeshServer, task: "asyncio.Task[None]", stop: asyncio.Event) -> None:
        self.server, self.task, self.stop = server, task, stop

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.grpc_port}"

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(20):
            await self.task


Start = Callable[..., Awaitable[Running]]
Connect = Callable[..., MeshClient]


@pytest.fixture
async def start(mesh_pki: CertificateAuthority) -> AsyncIterator[Start]:
    """`await start((add_to_server, servicer, name), …, health=…, **settings)`."""
    async with AsyncExitStack() as stack:

        async def begin(*services: tuple[Any, object, str], health: Health | None = None, **changes: Any) -> Running:
            changes.setdefault("tls_dir", mesh_pki.tls_dir("ledger"))
            server = MeshServer(name="ledger", settings=settings(**changes), health=health or Health())
            for service in services:
                server.add(*service)
            started, stop = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(server.run(started=started, stop=stop))
            running = Running(server, task, stop)
            waiting = asyncio.create_task(started.wait())
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done():
                await task
            stack.push_async_callback(running.end)
            return running

        yield begin


@pytest.fixture
async def connect(mesh_pki: CertificateAuthority) -> AsyncIterator[Connect]:
    """`connect("summarizer", target)`: a client with that identity."""
    async with AsyncExitStack() as stack:

        def open_client(identity: str, target: str) -> MeshClient:
            client = MeshClient(peer="ledger", target=target, settings=settings(mesh_pki.tls_dir(identity)))
            stack.push_async_callback(client.close)
            return client

        yield open_client
