"""What another process uses of the machine, as Linux tells it below /proc."""

import contextlib
import os
import weakref

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_READ_BYTES = 1024
_USER_TIME, _SYSTEM_TIME = 11, 12
"""Places behind the name of the program, which may hold blanks (proc_pid_stat(5))."""


class ProcessMeter:
    """Memory and CPU of one process. A process that is gone uses nothing. Raises OSError where it cannot be measured.

    Its files are kept open, and say nothing any more when the process is gone, also where its number is given to
    another one.
    """

    def __init__(self, pid: int) -> None:
        self.seen_rss_bytes = 0
        self.seen_cpu_s = 0.0
        """What `rss_bytes` and `total_cpu_s` said last."""
        self._progress = -1
        self._cpu_begin_s = 0.0
        self._files: list[int] = []
        self._close = weakref.finalize(self, _close, self._files)
        # Any other error is told: a process that nobody measures has no limits.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for name in ("statm", "stat"):
                self._files.append(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Ends measuring: from now on nothing is used."""
        self._close()

    def rss_bytes(self) -> int:
        """Resident set now."""
        fields = self._read(0).split()
        if len(fields) < 2:
            return 0
        self.seen_rss_bytes = int(fields[1]) * _PAGE_BYTES
        return self.seen_rss_bytes

    def total_cpu_s(self) -> float:
        """CPU time of its whole life."""
        fields = self._read(1).rpartition(b")")[2].split()
        if len(fields) <= _SYSTEM_TIME:
            return 0.0
        self.seen_cpu_s = (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / _TICKS_A_SECOND
        return self.seen_cpu_s

    def cpu_s(self, progress: int) -> float:
        """CPU time since the first look at which the process had come as far as `progress`."""
        total = self.total_cpu_s()
        if progress != self._progress:
            self._progress, self._cpu_begin_s = progress, total
        return total - self._cpu_begin_s

    def _read(self, place: int) -> bytes:
        try:
            return os.pread(self._files[place], _READ_BYTES, 0)
        except (IndexError, OSError):  # it is gone
            return b""


def _close(files: list[int]) -> None:
    while files:
        os.close(files.pop())
