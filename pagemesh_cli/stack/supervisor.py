"""Keeps the parts of a stack running: starts them in order, restarts what dies, stops them in order."""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.health import Check
from pagemesh_cli.stack.liveness import ASK_EVERY_S, FAILURES_TO_STUCK, Pulse
from pagemesh_cli.stack.process import Process, ProcessSpec, describe_exit
from pagemesh_cli.stack.settings import refusal
from pagemesh_cli.stack.state import PartState

FIRST_RESTART_DELAY_S = 0.5
LONGEST_RESTART_DELAY_S = 30.0
# A part that ran so long is not in a crash loop: its next restart is quick again.
STEADY_AFTER_S = 60.0
# One for each part, so that one which is stuck keeps no other from being asked.
_ASKING_THREADS = 9


@dataclass(frozen=True)
class Part:
    """A process of the stack and how to know that it is well."""

    name: str
    port: int
    spec: Callable[[], ProcessSpec]
    check: Check
    ready_timeout_s: float = 30.0
    pulse: Callable[[], None] | None = None
    """Raises OSError where the process does not answer within a second; it is then restarted after half a minute.
    None: only its end is noticed."""


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
    pulse: Pulse | None = None
    stuck: str = ""
    """Why it was killed, where it was."""

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
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_ASKING_THREADS, thread_name_prefix="pulse")
    )

    def start(self, *parts: Part) -> None:
        """Starts the parts together and waits until all are well. Raises StackError where one is not in time."""
        for part in parts:
            process = Process(part.spec())
            self._watched[part.name] = _Watched(part, process, self.clock(), self._now_text())
            self._tell()
        try:
            for part in parts:
                self._wait_ready(part)
        except StackError as error:
            started = [self._watched[part.name].process for part in parts]
            refused = refusal([process for process in started if process is not None])
            if refused is None:
                raise
            raise StackError(refused) from error

    def _wait_ready(self, part: Part) -> None:
        watched = self._watched[part.name]
        process = watched.process
        if process is None:
            raise StackError(f"{part.name} was stopped while it started.")
        process.wait_ready(lambda: part.check(process.pid), timeout_s=part.ready_timeout_s)
        watched.pulse = self._pulse(part, patience_s=0.0)
        self.report(f"{part.name} is ready (port {part.port}, pid {process.pid})")

    def tick(self) -> None:
        """Looks at every part once: notices what ended, ends what is stuck, and starts what is due. Never waits."""
        for watched in self._watched.values():
            if watched.process is None:
                if self.clock() >= watched.restart_due:
                    self._restart(watched)
            elif (code := watched.process.exit_code()) is not None:
                self._note_exit(watched, watched.process, code)
            elif not watched.stuck and watched.pulse is not None and watched.pulse.is_stuck():
                self._end_stuck(watched, watched.process, watched.pulse)

    def stop(self, *stages: Sequence[str]) -> list[str]:
        """Stops the parts stage by stage, those of one stage together; answers who had to be killed."""
        self._threads.shutdown(wait=False, cancel_futures=True)
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
        watched.last_exit = watched.stuck or describe_exit(code)
        self._put_off(watched, watched.last_exit)

    def _end_stuck(self, watched: _Watched, process: Process, pulse: Pulse) -> None:
        """Its end, which the kernel may take a moment for, is noticed like any other."""
        watched.stuck = f"did not answer for {FAILURES_TO_STUCK * ASK_EVERY_S:g} s and was killed"
        self.report(f"{watched.part.name} (pid {process.pid}) is stuck ({pulse.problem}): killing it")
        process.kill()

    def _pulse(self, part: Part, *, patience_s: float) -> Pulse | None:
        if part.pulse is None:
            return None
        return Pulse(part.pulse, self._threads, patience_s=patience_s, clock=self.clock)

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
        watched.pulse = self._pulse(watched.part, patience_s=watched.part.ready_timeout_s)
        watched.stuck = ""
        watched.restarts += 1
        watched.started = self.clock()
        watched.started_at = self._now_text()
        self.report(f"{watched.part.name} was restarted (pid {process.pid})")
        self._tell()

    def _tell(self) -> None:
        self.changed(tuple(watched.state() for watched in self._watched.values()))

    def _now_text(self) -> str:
        return self.now().isoformat(timespec="seconds")
