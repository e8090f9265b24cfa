"""Starting the process: what is wrong is told in words, with an exit code that scripts can trust."""

import asyncio
import socket
import sys
from collections.abc import Callable

import pytest

from tests.integration.summarizer.conftest import World
from tests.integration.summarizer.service_process import ROOT, environment


async def run(settings: dict[str, str], *arguments: str) -> tuple[int | None, str]:
    """Exit code, and what was said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.summarizer",
        *arguments,
        env=settings,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_without_settings_everything_that_is_missing_is_told() -> None:
    code, said = await run(environment({}))
    assert code == 78
    for name in ("TLS_DIR", "DATABASE_URL", "REDIS_URL", "EXTRACTOR_TARGET", "LEDGER_TARGET"):
        assert f"PAGEMESH_{name}" in said


async def test_a_default_model_that_is_not_served_is_a_wrong_setting(world: World) -> None:
    settings = environment(world.environment, http_listen="127.0.0.1:0", default_model="mistral/made-up")
    code, said = await run(settings)
    assert code == 78
    assert "PAGEMESH_DEFAULT_MODEL" in said
    assert "offline/lexrank" in said


@pytest.mark.parametrize("which", ["grpc_listen", "http_listen"])
async def test_a_port_in_use_is_told_in_one_line(world: World, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
        listen[which] = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = await run(environment(world.environment, **listen))
    assert code == 1
    assert "services.summarizer: " in said
    assert "Traceback" not in said


async def test_migrating_twice_is_migrating_once(database: Callable[[str], str]) -> None:
    settings = environment({"database_url": database("summarizer")})
    for _ in range(2):
        assert await run(settings, "migrate") == (0, "")
