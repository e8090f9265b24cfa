"""A disk that fills up while a stack runs: what runs goes on, and stops when it is told to."""

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagemesh_cli.stack import launch
from pagemesh_cli.stack.checkout import find_checkout
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.launch import Stack, UpOptions
from pagemesh_cli.stack.layout import DataDir
from pagemesh_cli.stack.preflight import DEFAULT_PORTS
from pagemesh_cli.stack.process import ProcessId, ProcessSpec, wait_until
from pagemesh_cli.stack.state import load_state
from pagemesh_cli.stack.supervisor import Part

_FULL = os.strerror(errno.ENOSPC)


class Subject:
    """A stack with one part, valkey in name."""

    def __init__(self, root: Path) -> None:
        self.data = DataDir(root)
        self.data.prepare()
        self.told: list[str] = []
        ports = dict.fromkeys(DEFAULT_PORTS, 1)
        self.stack = Stack(UpOptions(root=root), self.data, find_checkout(), ports, self._report)
        command = (sys.executable, "-I", "-S", "-c", "import signal; signal.pause()")
        spec = ProcessSpec("valkey", command, root / "valkey.log", {"PATH": os.defpath})
        self.part = Part("valkey", 1, lambda: spec, check=lambda pid: None)

    def _report(self, text: str) -> None:
        self.told.append(text)
        with Path("/dev/full").open("w") as log:  # as the log of a supervisor in the background is
            log.write(text)

    @property
    def process(self) -> ProcessId:
        state = load_state(self.data)
        assert state is not None
        (part,) = state.parts
        assert part.process is not None
        return part.process

    def fill_disk(self) -> None:
        """From here on the state cannot be written: every byte of it meets ENOSPC."""
        Path(f"{self.data.state_file}.new").symlink_to("/dev/full")

    def heard(self, words: str) -> bool:
        return any(words in text for text in self.told)


class Until(threading.Event):
    """Set as soon as the condition holds."""

    def __init__(self, condition: Callable[[], bool]) -> None:
        super().__init__()
        self._condition = condition

    def wait(self, timeout: float | None = None) -> bool:
        return self._condition() or super().wait(timeout)


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    made = Subject(tmp_path)
    yield made
    made.stack.supervisor.kill()
    made.stack.stop()


def test_the_stack_stops_although_its_state_cannot_be_saved(subject: Subject) -> None:
    subject.stack.supervisor.start(subject.part)
    process = subject.process
    subject.fill_disk()
    subject.stack.stop()
    assert not process.alive()
    assert subject.heard(f"state.json: {_FULL}")
    assert subject.told[-1] == "stopped"
    assert load_state(subject.data) is None


def test_a_part_that_dies_does_not_take_the_others_down(subject: Subject) -> None:
    subject.stack.supervisor.start(subject.part)
    process = subject.process
    subject.fill_disk()
    process.kill()
    assert process.wait_gone(10)

    def restarted() -> bool:
        subject.stack.supervisor.tick()
        return subject.heard("valkey was restarted")

    assert wait_until(restarted, timeout_s=10)
    assert subject.heard(f"state.json: {_FULL}")


def test_certificates_that_cannot_be_renewed_do_not_take_the_stack_down(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_CARE_EVERY_S", 0.0)
    subject.stack.supervisor.start(subject.part)
    process = subject.process
    pki = subject.data.root / "pki"
    pki.rmdir()
    pki.write_text("no folder")
    subject.stack.watch(Until(lambda: subject.heard("could not look after certificates")))
    assert process.alive()


def test_a_stack_that_nobody_could_find_is_not_begun(subject: Subject) -> None:
    subject.fill_disk()
    with pytest.raises(StackError, match=_FULL):
        subject.stack.start()
