"""The edge alone: a real Envoy in front of small real services. One for the session, for tests that leave it as it is;
`new_edge` for those that need other limits, other services, or a restart."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pagemesh_cli.stack.certificates import CertificateAuthority
from tests.edge.envoy.edge import Edge
from tests.edge.envoy.upstreams import Mesh


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(mesh_pki: CertificateAuthority) -> AsyncIterator[Mesh]:
    """The services behind `edge`."""
    services = Mesh(mesh_pki.tls_dir)
    await services.start()
    yield services
    await services.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def session_edge(mesh: Mesh, mesh_pki: CertificateAuthority) -> AsyncIterator[Edge]:
    """The Envoy behind `edge`."""
    with tempfile.TemporaryDirectory(prefix="pm-edge-") as directory:
        envoy = Edge(Path(directory), mesh, tls_dir=mesh_pki.tls_dir("edge"), ca_file=mesh_pki.ca_file)
        await envoy.start()
        yield envoy
        await asyncio.to_thread(envoy.stop)


@pytest_asyncio.fixture(loop_scope="session")
async def edge(session_edge: Edge) -> Edge:
    """An edge without rate limits. The services answer its health checks only while a test awaits something: after
    tests that do not, it has to find them again."""
    await session_edge.wait_all_healthy()
    return session_edge


@pytest.fixture
def clean(mesh: Mesh) -> Mesh:
    """The services behind `edge`, with nothing noted and nothing held back."""
    mesh.journal.calls.clear()
    mesh.authorizer.asked.clear()
    mesh.extracting.gate.set()
    mesh.summarizing.gate.set()
    mesh.summarizing.cancelled.clear()
    mesh.identities.fail_next.clear()
    return mesh


@pytest.fixture
def new_edge(short_dir: Path, mesh_pki: CertificateAuthority) -> Iterator[Callable[..., Awaitable[Edge]]]:
    """`await new_edge(mesh, limits=…)` starts another Envoy, which ends with the test.

    `healthy=False` does not wait for the services.
    """
    started: list[Edge] = []

    async def start(mesh: Mesh, *, healthy: bool = True, **options: Any) -> Edge:
        options.setdefault("tls_dir", mesh_pki.tls_dir("edge"))
        envoy = Edge(short_dir / f"edge{len(started)}", mesh, ca_file=mesh_pki.ca_file, **options)
        started.append(envoy)
        await envoy.start()
        if healthy:
            await envoy.wait_all_healthy()
        return envoy

    yield start
    for envoy in started:
        envoy.stop()
