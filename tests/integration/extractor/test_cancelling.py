"""A caller who leaves takes its parser along within a second, at whatever stage its call is; and the service goes on
answering while parsers are busy with bombs."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from pagemesh_cli.stack.certificates import CertificateAuthority
from pagemesh_cli.stack.ports import pick_free_port
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.runtime.tls import TlsFolder
from tests.integration.extractor import made_pdfs
from tests.integration.extractor.conftest import Service, Start, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

GONE_S = 1
DEADLINE_S = 8
"""Every stage is reached long before, also on a busy machine."""
SLOW_PAGE = b"".join(made_pdfs.line("x " * 60, y) for y in range(1, 781, 3))
HEALTH_CHECKS = 50


@dataclass
class Scene:
    """A service of one parser process, and the call that is about to be given up."""

    service: Service
    pool: ParserPool

    def call(self, name: str, *parts: str, timeout_s: float) -> Any:
        return self.service.client.open_extraction(name, *(parts or ("text",)), timeout_s=timeout_s)

    async def uploaded(self, data: bytes) -> str:
        return (await self.service.client.upload(data)).document.name

    def pids(self) -> set[int]:
        return {process.pid for process in self.service.parsers()}

    async def at_work(self) -> int:
        """The process that has the task, once there is one."""
        await eventually(lambda: self.pool._busy, "a parser has the task")
        (process,) = self.pool._busy
        return process.pid


Stage = Callable[[Scene, float], Awaitable[tuple[Any, set[int]]]]


async def opening(scene: Scene, timeout_s: float) -> tuple[Any, set[int]]:
    """The process that gets the file has been stopped before, so it never opens it."""
    name = await scene.uploaded(made_pdfs.book(2))
    for process in scene.service.parsers():
        process.send_signal(signal.SIGSTOP)
    call = scene.call(name, timeout_s=timeout_s)
    return call, {await scene.at_work()}


async def amid_a_page(scene: Scene, timeout_s: float) -> tuple[Any, set[int]]:
    call = scene.call(await scene.uploaded(made_pdfs.with_laughing_page(0, 1)), timeout_s=timeout_s)
    await call.read()
    return call, {await scene.at_work()}


async def waiting_for_credit(scene: Scene, timeout_s: float) -> tuple[Any, set[int]]:
    name = await scene.uploaded(made_pdfs.document([SLOW_PAGE] * 60))
    call = scene.call(name, "words", timeout_s=timeout_s)
    await call.read()
    pid = await scene.at_work()
    (process,) = scene.pool._busy
    await eventually(lambda: not process.working, "the parser waits for its reader")
    return call, {pid}


async def waiting_for_a_slot(scene: Scene, timeout_s: float) -> tuple[Any, set[int]]:
    """Behind another call, which goes on."""
    other = scene.service.client.of("other")
    name = (await other.upload(made_pdfs.with_laughing_page(0, 1))).document.name
    first = other.open_extraction(name, timeout_s=100)
    await first.read()
    call = scene.call(await scene.uploaded(made_pdfs.book(2)), timeout_s=timeout_s)
    await eventually(lambda: waiting() == 1, "it waits")
    return call, set()


def waiting() -> float:
    return REGISTRY.get_sample_value("pagemesh_extractor_parser_waiting") or 0.0


@pytest.fixture
def scene_of(start: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[Scene]]:
    async def begin() -> Scene:
        pools: list[ParserPool] = []

        class SeenPool(ParserPool):
            def __init__(self, limits: ParserLimits) -> None:
                super().__init__(limits)
                pools.append(self)

        monkeypatch.setattr("services.extractor.__main__.ParserPool", SeenPool)
        service = await start(parser_processes=1, page_timeout_s=60)
        return Scene(service, pools[0])

    return begin


@pytest.mark.parametrize("ends", ["cancelled", "past its deadline"])
@pytest.mark.parametrize("stage", [waiting_for_a_slot, opening, amid_a_page, waiting_for_credit])
async def test_a_call_that_is_given_up_takes_its_parser_along(
    scene_of: Callable[[], Awaitable[Scene]], stage: Stage, ends: str
) -> None:
    scene = await scene_of()
    call, working = await stage(scene, 100 if ends == "cancelled" else DEADLINE_S)
    if ends == "cancelled":
        call.cancel()
    await call.code()
    await eventually(lambda: not working & scene.pids() and waiting() == 0, "it is gone", timeout_s=GONE_S)


async def is_serving(service: Service, pki: CertificateAuthority) -> bool:
    credentials = TlsFolder(pki.tls_dir("edge")).channel_credentials()
    options = [("grpc.ssl_target_name_override", "extractor.pagemesh.local")]
    async with grpc.aio.secure_channel(service.target, credentials, options=options) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def is_ready(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.startswith(b"HTTP/1.1 200")


async def test_health_is_answered_while_bombs_are_parsed(start: Start, mesh_pki: CertificateAuthority) -> None:
    """All checks come back while the same bombs are at it: nothing of theirs runs in the service's own loop."""
    port = pick_free_port()
    service = await start(parser_processes=2, page_timeout_s=60, http_listen=f"127.0.0.1:{port}")
    calls = []
    for bomb in (made_pdfs.with_laughing_page(0, 0), made_pdfs.double_deflate_bomb(500_000_000)):
        name = (await service.client.upload(bomb)).document.name
        calls.append(service.client.open_extraction(name, "text", timeout_s=100))
        await calls[-1].read()
    ends = [asyncio.create_task(call.read()) for call in calls]
    for _ in range(HEALTH_CHECKS):
        assert await is_ready(port)
        assert await is_serving(service, mesh_pki)
    assert not any(end.done() for end in ends), "the bombs are still at it"
    for call in calls:
        call.cancel()
    await asyncio.gather(*ends, return_exceptions=True)
