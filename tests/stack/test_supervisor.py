"""The supervisor: starts, restarts with growing delays, stops in order."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagemesh_cli.stack.asking import answers_to
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.liveness import ASK_EVERY_S, FAILURES_TO_STUCK
from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.process import ProcessSpec, wait_until
from pagemesh_cli.stack.state import PartState
from pagemesh_cli.stack.supervisor import LONGEST_RESTART_DELAY_S, Part, Supervisor, restart_delay_s

_TELLS_WHEN_IT_STOPS = """
import signal, sys, time
def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end the telling
    sys.exit()
signal.signal(signal.SIGTERM, end)
try:
    print("up", flush=True)
    while True:
        time.sleep(0.05)  # a signal that comes just before a pause() would be slept through
finally:
    print("stopped", time.monotonic_ns(), flush=True)
"""
_DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    signal.pause()
"""


_ANSWERS = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        asker, _ = server.accept()
        with asker:
            asker.sendall(b"!")
"""


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Subject:
    """A supervisor and what it told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.states: tuple[PartState, ...] = ()
        self.told: list[str] = []
        self.supervisor = Supervisor(changed=self._on_change, report=self.told.append, clock=self.clock)

    def _on_change(self, states: tuple[PartState, ...]) -> None:
        self.states = states

    def part(self, name: str, code: str = "import signal; signal.pause()") -> Part:
        command = (sys.executable, "-I", "-S", "-c", code)
        spec = ProcessSpec(name, command, self.directory / f"{name}.log", {"PATH": os.defpath})
        return Part(name, 1, lambda: spec, check=lambda pid: None)

    def state(self, name: str) -> PartState:
        return next(state for state in self.states if state.name == name)

    def kill(self, name: str) -> None:
        process = self.state(name).process
        assert process is not None
        process.kill()
        assert process.wait_gone(10)


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    made = Subject(tmp_path)
    yield made
    made.supervisor.kill()
    made.supervisor.stop([state.name for state in made.states])


def test_restarts_what_dies_after_a_delay(subject: Subject) -> None:
    subject.supervisor.start(subject.part("a"), subject.part("b"))
    before = subject.state("a").process
    subject.kill("a")
    subject.supervisor.tick()
    assert subject.state("a") == PartState("a", 1, None, None, restarts=0, last_exit="was killed by SIGKILL")
    subject.supervisor.tick()
    assert subject.state("a").process is None, "restarted before its time"
    subject.clock.now_s += restart_delay_s(1)
    subject.supervisor.tick()
    after = subject.state("a")
    assert after.process is not None
    assert after.process != before
    assert after.restarts == 1
    assert subject.state("b").restarts == 0


def test_each_failure_in_a_row_waits_longer_and_a_steady_run_forgets_them(subject: Subject) -> None:
    subject.supervisor.start(subject.part("a"))

    def die_and_restart(delay_s: float) -> None:
        subject.kill("a")
        subject.supervisor.tick()
        subject.clock.now_s += delay_s - 0.01
        subject.supervisor.tick()
        assert subject.state("a").process is None
        subject.clock.now_s += 0.02
        subject.supervisor.tick()
        assert subject.state("a").process is not None

    for delay_s in (0.5, 1.0, 2.0):
        die_and_restart(delay_s)
    subject.clock.now_s += 61
    die_and_restart(0.5)


def test_a_part_that_cannot_be_started_again_is_tried_again_and_the_others_run_on(subject: Subject) -> None:
    part, room = subject.part("a"), True

    def spec() -> ProcessSpec:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return part.spec()

    subject.supervisor.start(Part("a", 1, spec, part.check), subject.part("b"))
    room = False
    subject.kill("a")
    subject.supervisor.tick()
    subject.clock.now_s += 0.5
    subject.supervisor.tick()
    assert "a cannot be started" in subject.told[-1]
    assert "restarting it in 1 s" in subject.told[-1]
    assert (subject.state("a").process, subject.state("a").restarts) == (None, 0)
    assert subject.state("b").process is not None
    room = True
    subject.clock.now_s += 1
    subject.supervisor.tick()
    assert subject.state("a").process is not None


def test_what_is_stuck_is_killed_and_restarted_and_nobody_waits_for_it(subject: Subject) -> None:
    """A stopped process holds its port, and the kernel goes on accepting for it: only its answers are missing."""
    port, asked = pick_free_port(), 0
    command = (sys.executable, "-I", "-S", "-c", _ANSWERS, str(port))
    spec = ProcessSpec("a", command, subject.directory / "a.log", {"PATH": os.defpath})

    def ask() -> None:
        nonlocal asked
        try:
            answers_to(port, b"?")
        finally:
            asked += 1

    subject.supervisor.start(Part("a", port, lambda: spec, check=lambda pid: answers_to(port, b"?"), pulse=ask))
    before = subject.state("a").process
    assert before is not None

    def ask_again() -> None:
        due, subject.clock.now_s = asked + 1, subject.clock.now_s + ASK_EVERY_S
        subject.supervisor.tick()
        assert wait_until(lambda: asked == due, timeout_s=10)
        subject.supervisor.tick()
        assert asked == due, "asked more often than it is due"

    os.kill(before.pid, signal.SIGSTOP)
    for _ in range(FAILURES_TO_STUCK - 1):
        ask_again()
    assert before.alive()
    assert not any("stuck" in text for text in subject.told)
    ask_again()
    assert wait_until(lambda: ticked(subject, lambda: not before.alive()), timeout_s=10)
    assert any("a (pid" in text and "is stuck (timed out)" in text for text in subject.told)
    subject.clock.now_s += restart_delay_s(1)
    assert wait_until(lambda: ticked(subject, lambda: subject.state("a").restarts == 1), timeout_s=10)
    assert subject.state("a").last_exit == "did not answer for 30 s and was killed"
    assert subject.state("a").process != before


def ticked(subject: Subject, condition: Callable[[], bool]) -> bool:
    subject.supervisor.tick()
    subject.clock.now_s += 0.1
    return condition()


def test_who_has_not_answered_yet_has_its_time_to_start(subject: Subject) -> None:
    asked = 0

    def refuse() -> None:
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError("refused")

    part = subject.part("a")
    subject.supervisor.start(Part("a", 1, part.spec, part.check, ready_timeout_s=1000.0, pulse=refuse))
    subject.kill("a")
    subject.supervisor.tick()
    subject.clock.now_s += restart_delay_s(1)
    subject.supervisor.tick()
    assert subject.state("a").restarts == 1
    for due in range(1, 2 * FAILURES_TO_STUCK):
        subject.clock.now_s += ASK_EVERY_S
        subject.supervisor.tick()
        assert wait_until(lambda due=due: asked == due, timeout_s=10)  # type: ignore[misc]
        subject.supervisor.tick()
    assert not any("stuck" in text for text in subject.told)


def test_delays_are_bounded() -> None:
    assert [restart_delay_s(n) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert restart_delay_s(7) == LONGEST_RESTART_DELAY_S
    assert restart_delay_s(10_000) == LONGEST_RESTART_DELAY_S


def test_stops_stage_by_stage(subject: Subject) -> None:
    names = ("a", "b", "c")
    subject.supervisor.start(*(subject.part(name, _TELLS_WHEN_IT_STOPS) for name in names))
    assert wait_until(lambda: all("up" in _log(subject, name) for name in names), timeout_s=10)
    assert subject.supervisor.stop(("c",), ("a", "b"), ("never started",)) == []
    stopped = {name: int(_log(subject, name).split()[-1]) for name in names}
    assert stopped["c"] < min(stopped["a"], stopped["b"])
    assert all(state.process is None for state in subject.states)


def test_tells_who_had_to_be_killed(subject: Subject) -> None:
    command = (sys.executable, "-I", "-S", "-c", _DEAF)
    log = subject.directory / "deaf.log"
    spec = ProcessSpec("deaf", command, log, {"PATH": os.defpath}, stop_timeout_s=0.2)
    subject.supervisor.start(Part("deaf", 1, lambda: spec, check=lambda pid: None))
    assert wait_until(lambda: "deaf" in log.read_text(), timeout_s=10)
    assert subject.supervisor.stop(("deaf",)) == ["deaf"]


def test_a_part_that_cannot_start_stops_the_start(subject: Subject) -> None:
    def refused(pid: int) -> None:
        raise ConnectionRefusedError("refused")

    good, bad = subject.part("good"), subject.part("bad", "import sys; sys.exit('no such setting')")
    with pytest.raises(StackError, match="no such setting"):
        subject.supervisor.start(good, Part("bad", 1, bad.spec, check=refused))
    assert subject.supervisor.stop(("good", "bad")) == []


def _log(subject: Subject, name: str) -> str:
    return (subject.directory / f"{name}.log").read_text()
