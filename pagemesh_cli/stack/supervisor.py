"""Keeps the parts of a stack running: starts them in order, restarts what dies, stops them in order."""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.health import Check
from pagemesh_cli.stack.process import Process, ProcessSpec, describe_exit
from pagemesh_cli.stack.state import PartState

FIRST_RESTART_DELAY_S = 0.5
LONGEST_RESTART_DELAY_S = 30.0
# A part that ran so long is not in a crash loop: its next restart is quick again.
STEADY_AFTER_S = 60.0


@dataclass(frozen=True)
class Part:
    """A process of the stack and how to know that it is well."""

    name: str
    port: int
    spec: Callable[[], ProcessSpec]
    check: Check
    ready_timeout_s: float = 30.0


@dataclass
class _Watched:
    part: Part
    process: Process | None
    started: float
    started_at: str
    restarts: int = 0
    failures_in_a_row: int = 0
    restart_due: float = 0.0
    last_exit: str | None = None

    def state(self) -> PartState:
        running = self.process is not None
        return PartState(
            name=self.part.name,
            port=self.part.port,
            process=self.process.id if self.process is not None else None,
            started_at=self.started_at if running else None,
            restarts=self.restarts,
            last_exit=self.last_exit,
        )


def restart_delay_s(failures_in_a_row: int) -> float:
    """0.5 s after the first failure, twice as long after each further one, 30 s at most."""
    return float(min(FIRST_RESTART_DELAY_S * 2 ** min(failures_in_a_row - 1, 16), LONGEST_RESTART_DELAY_S))


@dataclass
class Supervisor:
    """Owns the processes of a stack; call it from the main thread only (see Process)."""

    changed: Callable[[tuple[PartState, ...]], None]
    """Told the state of all parts whenever one of them changed."""
    report: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    _watched: dict[str, _Watched] = field(default_factory=dict)

    def start(self, *parts: Part) -> None:
        """Starts the parts together and waits until all are well. Raises StackError where one is not in time."""
        for part in parts:
            self._watched[part.name] = _Watched(part, Process(part.spec()), self.clock(), self._now_text())
            self._tell()
        for part in parts:
            self._wait_ready(part)

    def _wait_ready(self, part: Part) -> None:
        process = self._watched[part.name].process
        if process is None:
            raise StackError(f"{part.name} was stopped while it started.")
        process.wait_ready(lambda: part.check(process.pid), timeout_s=part.ready_timeout_s)
        self.report(f"{part.name} is ready (port {part.port}, pid {process.pid})")

    def tick(self) -> None:
        """Looks at every part once: notices what ended and starts what is due."""
        for watched in self._watched.values():
            if watched.process is None:
                if self.clock() >= watched.restart_due:
                    self._restart(watched)
            elif (code := watched.process.exit_code()) is not None:
                self._note_exit(watched, watched.process, code)

    def stop(self, *stages: Sequence[str]) -> list[str]:
        """Stops the parts stage by stage, those of one stage together; answers who had to be killed."""
        killed = []
        for stage in stages:
            watched = [self._watched[name] for name in stage if name in self._watched]
            processes = [item.process for item in watched if item.process is not None]
            for process in processes:
                process.request_stop()
            for process in processes:
                if not process.stop():
                    killed.append(process.spec.name)
            for item in watched:
                item.process = None
            if watched:
                self._tell()
        return killed

    def kill(self) -> None:
        """Ends everything at once, without asking."""
        for watched in self._watched.values():
            if watched.process is not None:
                watched.process.kill()

    def _note_exit(self, watched: _Watched, process: Process, code: int) -> None:
        process.stop()  # whatever it left in its process group
        steady = self.clock() - watched.started >= STEADY_AFTER_S
        watched.failures_in_a_row = 1 if steady else watched.failures_in_a_row + 1
        watched.process = None
        watched.last_exit = describe_exit(code)
        self._put_off(watched, watched.last_exit)

    def _put_off(self, watched: _Watched, why: str) -> None:
        delay_s = restart_delay_s(watched.failures_in_a_row)
        watched.restart_due = self.clock() + delay_s
        self.report(f"{watched.part.name} {why}; restarting it in {delay_s:g} s")
        self._tell()

    def _restart(self, watched: _Watched) -> None:
        try:
            process = Process(watched.part.spec())
        except (OSError, StackError) as error:
            # Such as a full disk, which has no room for its configuration. The others run on.
            watched.failures_in_a_row += 1
            self._put_off(watched, f"cannot be started: {error}")
            return
        watched.process = process
        watched.restarts += 1
        watched.started = self.clock()
        watched.started_at = self._now_text()
        self.report(f"{watched.part.name} was restarted (pid {process.pid})")
        self._tell()

    def _tell(self) -> None:
        self.changed(tuple(watched.state() for watched in self._watched.values()))

    def _now_text(self) -> str:
        return self.now().isoformat(timespec="seconds")
