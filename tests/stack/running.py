"""The command as a program, the way people and scripts run it."""

import atexit
import functools
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.process import ProcessId, wait_until
from pagemesh_cli.stack.state import StackState, load_state
from tests.conftest import stack_environment
from tests.stack.warm import WarmCommand


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
        try:
            return self._run(*arguments, timeout_s=50)
        except subprocess.TimeoutExpired:
            # Seen once in some thousand runs on a busy machine. A command that does hang does so again.
            return self._run(*arguments, timeout_s=60)

    def _run(self, *arguments: str, timeout_s: float) -> Answer:
        if any(text != os.environ.get(name) for name, text in self.environment.items() if name.startswith("PYTHON")):
            return self._run_fresh(*arguments, timeout_s=timeout_s)  # the interpreter reads those at its start
        return Answer(*_warm().run(list(arguments), self.environment, timeout_s=timeout_s))

    def _run_fresh(self, *arguments: str, timeout_s: float) -> Answer:
        result = subprocess.run(
            [sys.executable, "-m", "pagemesh_cli", *arguments],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        return Answer(result.returncode, result.stdout, result.stderr)

    def at_terminal(self, *arguments: str, replies: Mapping[str, str] | None = None, columns: int = 200) -> Answer:
        """The same with a terminal for everything; each reply is typed once what it answers is on the screen. `out` is
        all that the terminal was sent."""
        ours, theirs = pty.openpty()
        run = subprocess.Popen(
            [sys.executable, "-m", "pagemesh_cli", *arguments],
            env={**self.environment, "TERM": "xterm-256color", "COLUMNS": str(columns)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        watchdog = threading.Timer(60, run.kill)
        watchdog.start()
        shown, waiting = b"", dict(replies or {})
        while piece := _read(ours):
            shown += piece
            for prompt in [prompt for prompt in waiting if prompt.encode() in shown]:
                os.write(ours, f"{waiting.pop(prompt)}\n".encode())
        code = run.wait()
        watchdog.cancel()
        os.close(ours)
        assert not waiting, f"never asked: {waiting}; shown: {shown!r}"
        return Answer(code, shown.decode().replace("\r\n", "\n"), "")

    def interrupted(self, *arguments: str, when: Callable[[], bool]) -> Answer:
        """The same, with Ctrl-C once `when` says so."""
        # What a shell runs in its background ignores Ctrl-C, and so do its children unless they say otherwise.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        program = f"{heard}; from pagemesh_cli.__main__ import main; main()"
        with subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as run:
            assert wait_until(when, timeout_s=30, poll_s=0.02)
            run.send_signal(signal.SIGINT)
            out, err = run.communicate(timeout=30)
        return Answer(run.returncode, out, err)

    @property
    def state(self) -> StackState:
        state = load_state(DataDir(self.root))
        assert state is not None
        return state

    def process(self, part: str) -> ProcessId:
        process = next(item.process for item in self.state.parts if item.name == part)
        assert process is not None
        return process


@functools.cache
def _warm() -> WarmCommand:
    command = WarmCommand()
    atexit.register(command.close)
    return command


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way to say that nobody is at the other end any more
        return b""


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
