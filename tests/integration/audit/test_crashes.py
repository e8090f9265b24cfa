"""A real extractor and a real ledger, either killed at any moment: what was answered is in the chain, once."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from pagemesh.ledger.v1 import audit_service_pb2 as audit_pb
from pagemesh.ledger.v1.audit_service_pb2_grpc import AuditServiceStub
from pagemesh_cli.audit_chain import verify
from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from services.runtime.errors import PagemeshError
from tests.integration.extractor.conftest import Client, connected
from tests.integration.ledger.conftest import OPTIONS, LedgerProcess, credentials
from tests.integration.summarizer.service_process import ServiceProcess, environment

UPLOAD = "pagemesh.extractor.v1.ExtractorService/UploadDocument"
AUDITOR = (
    ("x-pagemesh-tenant", "acme"),
    ("x-pagemesh-actor", "apiKeys/auditor"),
    ("x-pagemesh-scopes", "audit.read"),
)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)


@dataclass
class Mesh:
    """Both services, each of which may be killed."""

    extractor: ServiceProcess
    ledger: LedgerProcess
    target: str
    pki: CertificateAuthority
    answered: list[tuple[str, str]] = field(default_factory=list)
    """Action and resource of every change that was answered."""

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            while not await self.extractor.ready():  # a process has no event
                await asyncio.sleep(0.05)

    async def lines(self) -> list[bytes]:
        """The tenant's export, after the proof."""
        async with grpc.aio.secure_channel(
            self.ledger.target, credentials(self.pki, "edge"), options=OPTIONS
        ) as channel:
            call: Any = AuditServiceStub(channel).ExportEvents(
                audit_pb.ExportEventsRequest(), timeout=30, metadata=AUDITOR
            )
            body = b"".join([piece.content.data async for piece in call])
        found = body.splitlines(keepends=True)
        verify(found)
        return found

    async def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (await self.lines())[1:-1]]


@pytest.fixture
async def mesh(database: Callable[[str], str], mesh_pki: CertificateAuthority, tmp_path: Path) -> AsyncIterator[Mesh]:
    grpc_port, http_port = pick_free_port(), pick_free_port()
    ledger = LedgerProcess(database("ledger"), mesh_pki, tmp_path / "ledger.log")
    for folder in ("objects", "spool"):
        (tmp_path / folder).mkdir()
    settings = environment(
        {
            "grpc_listen": f"127.0.0.1:{grpc_port}",
            "http_listen": f"127.0.0.1:{http_port}",
            "tls_dir": mesh_pki.tls_dir("extractor"),
            "database_url": database("extractor"),
            "object_store_url": (tmp_path / "objects").as_uri(),
            "spool_dir": tmp_path / "spool",
            "summarizer_target": "127.0.0.1:1",
            "ledger_target": ledger.target,
            "parser_processes": 1,
            "ocr_processes": 0,
            "drain_s": 0,
        }
    )
    extractor = ServiceProcess(settings, http_port=http_port, log=tmp_path / "extractor.log", service="extractor")
    ledger.start()
    extractor.start()
    running = Mesh(extractor, ledger, f"127.0.0.1:{grpc_port}", mesh_pki)
    try:
        await running.ready()
        yield running
    finally:
        extractor.kill()
        ledger.stop()


async def upload_until(mesh: Mesh, client: Client, worker: int, enough: asyncio.Event) -> None:
    """Different documents, each until it is answered."""
    number = 0
    while not enough.is_set():
        # What follows the end of a PNG is the same picture, and other bytes.
        data = PNG + f"{worker}-{number}".encode()
        try:
            made = await client.upload(data)
        except PagemeshError:
            await asyncio.sleep(0.05)
            continue
        mesh.answered.append((UPLOAD, made.document.name))
        number += 1


async def assert_all_told(mesh: Mesh) -> None:
    """Everything that was answered comes to be in the chain; nothing is there twice."""
    async with asyncio.timeout(90):
        while True:
            rows = await mesh.rows()
            found = {(row["action"], row["resource"]) for row in rows if row["code"] == 0}
            if set(mesh.answered) <= found:
                break
            await asyncio.sleep(0.1)
    ids = [row["event_id"] for row in rows]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("killed", ["extractor", "ledger"])
async def test_whatever_is_killed_what_was_answered_is_told(mesh: Mesh, killed: str) -> None:
    enough = asyncio.Event()
    async with connected(mesh.pki, mesh.target) as client:
        workers = [asyncio.create_task(upload_until(mesh, client, n, enough)) for n in range(4)]
        for _ in range(3):
            before = len(mesh.answered)
            async with asyncio.timeout(90):
                while len(mesh.answered) < before + 15:  # clients have no common event
                    await asyncio.sleep(0.02)
            victim: ServiceProcess | LedgerProcess = mesh.extractor if killed == "extractor" else mesh.ledger
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(victim.start)
            await mesh.ready()
        enough.set()
        await asyncio.gather(*workers)
    await assert_all_told(mesh)


async def test_a_ledger_that_is_away_stops_nobody(mesh: Mesh) -> None:
    await asyncio.to_thread(mesh.ledger.kill)
    async with connected(mesh.pki, mesh.target) as client:
        for number in range(5):
            made = await client.upload(PNG + str(number).encode())
            mesh.answered.append((UPLOAD, made.document.name))
    await asyncio.to_thread(mesh.extractor.kill)
    mesh.extractor.start()
    await mesh.ready()
    mesh.ledger.start()
    await assert_all_told(mesh)
    assert [row["resource"] for row in await mesh.rows() if row["action"] == UPLOAD] == [
        name for _, name in mesh.answered
    ]
