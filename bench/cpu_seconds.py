"""CPU time by what takes it: what a benchmark costs, which moves less than its wall time where others are at work."""

import contextlib
from collections.abc import Callable, Iterable, Mapping

import psutil

from bench.running_stack import RunningStack


def extractor(stack: RunningStack) -> psutil.Process:
    """The extractor of this stack."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "services.extractor" in process.cmdline() and str(stack.root) in " ".join(process.environ().values()):
                return process
    raise RuntimeError("the extractor does not run")


def postgres(stack: RunningStack) -> psutil.Process:
    """The first process of the stack's database."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            parent = process.parent()
            if process.name() != "postgres" or not process.cwd().startswith(str(stack.root)):
                continue
            if parent is None or parent.name() != "postgres":
                return process
    raise RuntimeError("the database does not run")


def alone(process: psutil.Process) -> float:
    """CPU seconds of a process, without those below it."""
    times = process.cpu_times()
    return float(times.user + times.system)


def below(process: psutil.Process) -> float:
    """Of all processes below it, those that have ended included."""
    return _with_ended(process) - alone(process) + sum(map(_with_ended, process.children(recursive=True)))


def tree(process: psutil.Process) -> float:
    """Of a process and all below it; 0 where it is no more."""
    try:
        return alone(process) + below(process)
    except psutil.Error:
        return 0.0


def _with_ended(process: psutil.Process) -> float:
    """Of a process and of those below it that have ended; 0 where it is no more."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.Error:
        return 0.0


def several(processes: Iterable[psutil.Process]) -> float:
    """Of several processes and all below them."""
    return sum(map(tree, processes))


class CpuMeter:
    """Reads the same counters before and after a piece of work."""

    def __init__(self, counters: Mapping[str, Callable[[], float]]) -> None:
        """The first of `counters` may be that of the reader itself: it is read next to the work, so that the reading
        of the others is not in it."""
        self._counters = counters
        self._before: dict[str, float] = {}

    def begin(self) -> None:
        """The work is about to begin."""
        self._before = {name: self._counters[name]() for name in reversed(list(self._counters))}

    def taken(self) -> dict[str, float]:
        """Seconds by name since `begin`."""
        return {name: counter() - self._before[name] for name, counter in self._counters.items()}
