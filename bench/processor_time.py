"""Processor time of a process and of all that it began, out of Linux' /proc: what a slow disk or a busy neighbour does
not change."""

import os
from collections import defaultdict
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT, _FIRST_TIME, _TIMES = 1, 11, 4
"""Places behind the name in /proc/PID/stat, see proc_pid_stat(5): ppid, and utime, stime, cutime, cstime."""


def seconds_of(pid: int) -> float:
    """User and system seconds of the process, of its descendants, and of those that ended and were waited for."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        one = int(folder.name)
        ticks[one] = sum(map(int, fields[_FIRST_TIME : _FIRST_TIME + _TIMES]))
        children[int(fields[_PARENT])].append(one)
    waiting, total = [pid], 0
    while waiting:
        one = waiting.pop()
        total += ticks.get(one, 0)
        waiting += children[one]
    return total / _TICKS_A_SECOND
