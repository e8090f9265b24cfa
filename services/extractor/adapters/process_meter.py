"""What another process uses of the machine."""

import psutil


class ProcessMeter:
    """Memory and CPU of one process. A process that is gone uses nothing."""

    def __init__(self, pid: int) -> None:
        self.seen_rss_bytes = 0
        self.seen_cpu_s = 0.0
        """What `rss_bytes` and `total_cpu_s` said last: a look costs 50 us."""
        self._progress = -1
        self._cpu_begin_s = 0.0
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:
            self._process = None

    def rss_bytes(self) -> int:
        """Resident set now."""
        if self._process is None:
            return 0
        try:
            self.seen_rss_bytes = int(self._process.memory_info().rss)
        except psutil.Error:
            return 0
        return self.seen_rss_bytes

    def total_cpu_s(self) -> float:
        """CPU time of its whole life."""
        if self._process is None:
            return 0.0
        try:
            times = self._process.cpu_times()
        except psutil.Error:
            return 0.0
        self.seen_cpu_s = float(times.user + times.system)
        return self.seen_cpu_s

    def cpu_s(self, progress: int) -> float:
        """CPU time since the first look at which the process had come as far as `progress`."""
        total = self.total_cpu_s()
        if progress != self._progress:
            self._progress, self._cpu_begin_s = progress, total
        return total - self._cpu_begin_s
