"""The command as a program, the way people and scripts run it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.process import ProcessId
from pagemesh_cli.stack.state import StackState, load_state
from tests.conftest import stack_environment


@dataclass(frozen=True)
class Answer:
    """What one run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as the one JSON object that it must be."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error of a failed run with --json, which is all that may be on stderr."""
        assert self.out == ""
        failure: dict[str, Any] = json.loads(self.err)["error"]
        assert failure["exitCode"] == self.code
        return failure


@dataclass(frozen=True)
class Command:
    """`pagemesh` on one data directory."""

    root: Path
    environment: Mapping[str, str]

    @classmethod
    def on(cls, root: Path, **settings: str) -> "Command":
        return cls(root, stack_environment(PAGEMESH_HOME=str(root), **settings))

    def __call__(self, *arguments: str) -> Answer:
        result = subprocess.run(
            [sys.executable, "-m", "pagemesh_cli", *arguments],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        return Answer(result.returncode, result.stdout, result.stderr)

    @property
    def state(self) -> StackState:
        state = load_state(DataDir(self.root))
        assert state is not None
        return state

    def process(self, part: str) -> ProcessId:
        process = next(item.process for item in self.state.parts if item.name == part)
        assert process is not None
        return process


def descendants(root: Path) -> list[str]:
    """Command lines of all processes that have the directory in their command line or environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(root).encode() in text and state != "Z":
            found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found
