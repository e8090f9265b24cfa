"""A stack that may be hurt: its own processes, and a provider that misbehaves as it is told."""

import contextlib
import hashlib
import http.client
import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import pytest

from pagemesh_cli.stack.background import Supervised
from pagemesh_cli.stack.credentials import load_admin_key, load_credentials
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.postgres import SUPERUSER
from pagemesh_cli.stack.process import wait_until
from pagemesh_cli.stack.state import PartState, load_state
from tests.conftest import RunningStack, stack_environment
from tests.edge import files
from tests.edge.calling import Edge, Outcome
from tests.edge.conftest import UPLOAD, chunks
from tests.fakes.mistral_server import MistralServer

WHOAMI = "pagemesh.ledger.v1.IdentityService/WhoAmI"
_RECOVERY_S = 60.0
_numbers = itertools.count(1)


@dataclass
class Hurt:
    """The stack, its edge, the provider, and ways to hurt them."""

    data: DataDir
    edge: Edge
    key: str
    provider: MistralServer

    def part(self, name: str) -> PartState:
        state = load_state(self.data)
        assert state is not None
        return next(part for part in state.parts if part.name == name)

    def processes(self, name: str) -> list[psutil.Process]:
        """The part's process and all below it."""
        process = self.part(name).process
        assert process is not None
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Nothing of the part runs inside the block, and its connections stay open: a machine that hangs."""
        stopped = self.processes(name)
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()
            self.recovered()

    def _ready(self, service: str) -> bool:
        state = load_state(self.data)
        assert state is not None
        try:
            connection = http.client.HTTPConnection("127.0.0.1", state.ports[f"{service}_http"], timeout=5)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except OSError:
            return False

    def kill(self, name: str) -> None:
        """SIGKILL to the part's own process."""
        process = self.part(name).process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)

    def recovered(self) -> None:
        """Waits until every service says it is ready, the edge reaches them all, and a call goes through."""
        assert wait_until(lambda: all(map(self._ready, ("ledger", "extractor", "summarizer"))), timeout_s=_RECOVERY_S)
        assert wait_until(lambda: self.edge.http("GET", "/readyz").http == 200, timeout_s=_RECOVERY_S)
        assert wait_until(lambda: self.call(WHOAMI, {}).code == "OK", timeout_s=_RECOVERY_S)

    def call(self, rpc: str, request: dict[str, Any], *, timeout_s: float = 30) -> Outcome:
        return self.edge.grpc(rpc, request, self.key, timeout_s=timeout_s)

    def one_way(self, way: str, rpc: str, request: dict[str, Any], *, timeout_s: float = 30) -> Outcome:
        """Over `grpc`, or over `json` with the same deadline."""
        if way == "grpc":
            return self.call(rpc, request, timeout_s=timeout_s)
        return self.edge.json(rpc, request, self.key, headers={"grpc-timeout": f"{int(timeout_s * 1000)}m"})

    def both_ways(self, rpc: str, request: dict[str, Any], *, timeout_s: float = 30) -> list[Outcome]:
        return [self.one_way(way, rpc, request, timeout_s=timeout_s) for way in ("grpc", "json")]

    def query(self, statement: LiteralString) -> tuple[Any, ...]:
        """One row, as Postgres itself has it."""
        state, credentials = load_state(self.data), load_credentials(self.data)
        assert state is not None
        dsn = f"postgresql://{SUPERUSER}:{credentials.postgres_superuser}@127.0.0.1:{state.ports['postgres']}/pagemesh"
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            row = connection.execute(statement).fetchone()
        assert row is not None
        return row

    def new_document(self) -> tuple[str, bytes]:
        """A document that nobody has seen yet, not uploaded; its name and its bytes."""
        content = files.good(2, f"This is the text of document number {next(_numbers)} of this run.")
        return f"documents/{hashlib.sha256(content).hexdigest()[:32]}", content

    def upload(self, content: bytes, *, timeout_s: float = 30) -> Outcome:
        return self.edge.grpc(UPLOAD, chunks(content), self.key, timeout_s=timeout_s)

    def uploaded(self) -> str:
        """A new document that is there."""
        name, content = self.new_document()
        stored = self.upload(content)
        assert stored.code == "OK", stored
        return name


@pytest.fixture(scope="module")
def hurt(session_dir: Path) -> Iterator[Hurt]:
    data = DataDir(session_dir / "hurt")
    with MistralServer() as provider:
        settings = stack_environment(PAGEMESH_MISTRAL_URL=provider.url, PAGEMESH_MISTRAL_API_KEY="test-key")
        with Supervised(data.root, port=0, rate_limits=False, environment=settings) as running:
            admin = load_admin_key(data)
            assert admin is not None
            stack = RunningStack(data, running.state, admin)
            yield Hurt(data, Edge(stack.host, stack.port, stack.ca_file), stack.admin_key, provider)
