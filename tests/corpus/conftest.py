"""A stack of its own, which nobody else may disturb or be disturbed by, and a table of what became of the files."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio

from pagemesh.extractor.v1.extractor_service_pb2_grpc import ExtractorServiceStub
from pagemesh_cli.stack.background import Supervised
from pagemesh_cli.stack.credentials import load_admin_key
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.state import PartState, load_state
from tests.conftest import RunningStack, stack_environment
from tests.integration.extractor.conftest import MESSAGE_BYTES, Client
from tests.integration.extractor.judging import Outcome

WHOLE = bool(os.environ.get("PAGEMESH_WHOLE_CORPUS"))
"""All files with the default settings (`make corpus`), or a sample with a short time-out for pages."""
_SAMPLE_PAGE_TIMEOUT_S = "2"


@dataclass
class Table:
    """What became of each file, by class and by what was asked."""

    rows: list[tuple[str, str, str, Outcome]] = field(default_factory=list)

    def add(self, group: str, name: str, asked: str, outcome: Outcome) -> None:
        self.rows.append((group, name, asked, outcome))

    def lines(self) -> Iterator[str]:
        """One line for each class and question: how many ended how, and the slowest file."""
        for key in sorted({(group, asked) for group, _, asked, _ in self.rows}):
            rows = [(outcome, name) for group, name, asked, outcome in self.rows if (group, asked) == key]
            words = [outcome.word for outcome, _ in rows]
            counts = ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words), key=words.count)[::-1])
            slowest, name = max(rows, key=lambda row: row[0].seconds)
            yield f"{key[0]:13} {key[1]:9} {len(rows):4}  slowest {slowest.seconds:5.1f} s {name:28} {counts}"


_TABLE = pytest.StashKey[Table]()


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Table:
    return request.config.stash.setdefault(_TABLE, Table())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table where it is not empty."""
    table = config.stash.get(_TABLE, Table())
    if table.rows:
        terminalreporter.section("what became of the files")
        for line in table.lines():
            terminalreporter.write_line(line)


class EdgeClient(Client):
    """Calls through the edge with a key instead of in the edge's own name."""

    key: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)


@dataclass(frozen=True)
class Victim:
    """The stack under attack: clients of two tenants, and what may be looked at from outside."""

    data: DataDir
    client: Client
    good: Client

    def part(self, name: str = "extractor") -> PartState:
        state = load_state(self.data)
        assert state is not None
        return next(part for part in state.parts if part.name == name)

    def service(self) -> psutil.Process:
        process = self.part().process
        assert process is not None
        return psutil.Process(process.pid)

    def zygotes(self) -> list[psutil.Process]:
        """The processes that fork those that see files."""
        return sorted(self.service().children(), key=lambda process: process.pid)

    def workers(self) -> list[psutil.Process]:
        children = (child for zygote in self.zygotes() for child in zygote.children())
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]

    def log(self) -> str:
        """All that the extractor has logged."""
        return (self.data.folder("logs") / "extractor.log").read_text()

    def files(self, folder: str) -> list[Path]:
        return [path for path in self.data.folder(folder).rglob("*") if path.is_file()]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def victim(session_dir: Path) -> AsyncIterator[Victim]:
    data = DataDir(session_dir / "victim")
    settings = {} if WHOLE else {"PAGEMESH_PAGE_TIMEOUT_S": _SAMPLE_PAGE_TIMEOUT_S}
    with Supervised(data.root, port=0, rate_limits=False, environment=stack_environment(**settings)) as running:
        admin = load_admin_key(data)
        assert admin is not None
        stack = RunningStack(data, running.state, admin)
        credentials = grpc.ssl_channel_credentials(stack.ca_file.read_bytes())
        options = [("grpc.max_receive_message_length", 4 * MESSAGE_BYTES), ("grpc.enable_retries", 0)]
        async with grpc.aio.secure_channel(stack.grpc_target, credentials, options) as channel:
            clients = [EdgeClient(ExtractorServiceStub(channel)), EdgeClient(ExtractorServiceStub(channel))]
            clients[0].key, clients[1].key = stack.admin_key, stack.new_tenant("good")
            yield Victim(data, *clients)
