"""The five products of docs/acceptance.md on one running stack, each for tenants of its own."""

import functools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymupdf
import pytest

from pagemesh_cli.demo import invoice_path
from pagemesh_cli.stack.process import wait_until
from tests.conftest import RunningStack
from tests.edge.calling import Edge, Outcome
from tests.stack.running import Command


@dataclass(frozen=True)
class Caller:
    """Somebody with a key: at a terminal with the command, or in a program of their own with plain HTTP."""

    pagemesh: Command
    edge: Edge
    key: str

    def http(self, verb: str, path: str, content: Any = None, content_type: str = "application/json") -> Outcome:
        """A request as `curl` makes it; `content` is bytes, or what becomes JSON."""
        body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        # Scans take longer than the 30 s that a call has by itself where the machine is slow.
        headers = {"authorization": f"Bearer {self.key}", "content-type": content_type, "grpc-timeout": "50S"}
        return self.edge.http(verb, path, body, headers)

    def get(self, path: str) -> dict[str, Any]:
        """What is at that path."""
        outcome = self.http("GET", path)
        assert outcome.code == "OK", outcome
        return outcome.messages[0]

    def post(self, path: str, content: Any = None) -> dict[str, Any]:
        """The answer to a request that has to be taken."""
        outcome = self.http("POST", path, {} if content is None else content)
        assert outcome.code == "OK", outcome
        return outcome.messages[0]


Callers = Callable[[str], Caller]


@pytest.fixture(scope="session")
def caller(stack: RunningStack) -> Callers:
    """Makes a caller of a key."""
    edge = Edge(stack.host, stack.port, stack.ca_file)
    return lambda key: Caller(Command.on(stack.data.root, PAGEMESH_API_KEY=key), edge, key)


@pytest.fixture(scope="session")
def operator(stack: RunningStack) -> Command:
    """Who runs the mesh: the certificate is in the data directory."""
    return Command.on(stack.data.root)


@pytest.fixture(scope="session")
def new_tenant(operator: Command, caller: Callers) -> Callable[[str], tuple[str, Caller]]:
    """Lets a tenant in; answers its id and its first admin."""

    def make(product: str) -> tuple[str, Caller]:
        tenant = f"{product}-{uuid.uuid4().hex[:12]}"
        made = operator("tenants", "create", tenant, "--plan", "unlimited", "--json")
        assert made.code == 0, made.err
        return tenant, caller(made.json["secret"])

    return make


def until(condition: Callable[[], Any]) -> None:
    """Waits for what becomes true by itself."""
    assert wait_until(lambda: bool(condition()), timeout_s=60, poll_s=0.1)


def report(lines: list[str], title: str = "") -> bytes:
    """A PDF of one page with these lines."""
    document: Any = pymupdf.open()
    page = document.new_page()
    page.insert_textbox(pymupdf.Rect(72, 72, 523, 770), "\n".join([title, "", *lines]).strip(), fontsize=12)
    return bytes(document.tobytes(deflate=True))


@functools.cache
def picture(kind: str) -> bytes:
    """The made invoice of the docs as it comes from a scanner or a phone."""
    with pymupdf.open(invoice_path()) as document:
        return bytes(document[0].get_pixmap(dpi=150).tobytes(kind))


def folder(directory: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory
