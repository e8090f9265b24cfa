"""A service as a process of its own, as the stack runs it."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pagemesh_cli.stack.process import Process, ProcessSpec

ROOT = Path(__file__).parents[3]


def environment(settings: Mapping[str, Any], **changes: object) -> dict[str, str]:
    """Settings, by field, as the process's whole environment."""
    merged = {**settings, **changes}
    return {"PATH": os.defpath} | {
        f"PAGEMESH_{name.upper()}": str(value) for name, value in merged.items() if value is not None
    }


class ServiceProcess:
    """May be started, killed and started again."""

    def __init__(
        self,
        settings: Mapping[str, str],
        *,
        http_port: int,
        log: Path,
        service: str = "summarizer",
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._spec = ProcessSpec(
            name=service,
            command=(sys.executable, "-m", f"services.{service}", *arguments),
            log=log,
            environment=settings,
            directory=ROOT,
        )
        self._http_port = http_port
        self._process: Process | None = None

    def start(self) -> None:
        self._process = Process(self._spec)

    def kill(self) -> None:
        """kill -9, also to the processes that it made."""
        if self._process is not None:
            self._process.kill()
            self._process.stop()

    def send(self, number: signal.Signals) -> None:
        """A signal to the process itself."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def terminate(self) -> None:
        assert self._process is not None
        self._process.request_stop()

    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.exit_code()

    async def ready(self) -> bool:
        """Whether it says so. Fails the test where the process has ended."""
        assert self._process is not None
        assert self._process.exit_code() is None, self._process.log_tail()
        try:
            return b" 200 " in (await self.get("/readyz")).partition(b"\r\n")[0]
        except OSError:
            return False

    async def get(self, path: str) -> bytes:
        """All that it says over HTTP."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._http_port)
        writer.write(f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        try:
            return await reader.read()
        finally:
            writer.close()
