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
    times = process.cpu_times()
    return float(times.children_user + times.children_system) + sum(map(tree, process.children()))


def tree(process: psutil.Process) -> float:
    """Of a process and all below it; 0 where it is no more."""
    try:
        return alone(process) + below(process)
    except psutil.Error:
        return 0.0


def several(processes: Iterable[psutil.Process]) -> float:
    """Of several processes and all below them."""
    return sum(map(tree, processes))


class CpuMeter:
    """Reads the same counters again and again."""

    def __init__(self, counters: Mapping[str, Callable[[], float]]) -> None:
        self._counters = counters
        self._before = self._read()

    def taken(self) -> dict[str, float]:
        """Seconds by name since the last time, or since it was made."""
        now = self._read()
        taken = {name: now[name] - self._before[name] for name in now}
        self._before = now
        return taken

    def _read(self) -> dict[str, float]:
        return {name: counter() for name, counter in self._counters.items()}
