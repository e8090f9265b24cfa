"""How far jobs are, told on stderr: a bar for all of them and one for each that runs."""

import threading
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pagemesh.summarizer.v1 import job_pb2, job_service_pb2
from pagemesh_cli.client import Client
from pagemesh_cli.failures import Failure
from pagemesh_cli.output import Output, one_line

_WATCHED_AFTER_S = 1.0
"""A job that ends sooner has no bar: asking for its progress would be another call."""
_MOST_BARS = 8


class JobProgress:
    """Bars for a batch. `titles` are names for people, by document."""

    def __init__(self, client: Client, output: Output, titles: dict[str, str], total: int) -> None:
        self._client = client
        self._titles = titles
        self._shown = output.shows_progress(printing=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}", markup=False),
            TimeElapsedColumn(),
        )
        self._bars = Progress(
            *columns,
            console=output.errors,
            transient=True,
            disable=not self._shown,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._all = self._bars.add_task("all jobs", total=total, told="")
        self._each: dict[str, TaskID] = {}
        self._timers: dict[str, threading.Timer] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "JobProgress":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in list(self._timers):
            self._gone(job)
        self._bars.stop()

    def counts(self, counts: job_pb2.JobCounts) -> None:
        """How many are in which state."""
        ended = counts.succeeded + counts.failed + counts.cancelled
        told = f"{ended} of {counts.total}, {counts.running} running"
        if counts.failed:
            told += f", {counts.failed} failed"
        self._bars.update(self._all, completed=ended, total=counts.total, told=told)

    def event(self, event: job_pb2.JobEvent) -> None:
        """A job of the batch moved on."""
        if not self._shown:
            return
        if event.state == job_pb2.JOB_STATE_RUNNING and len(self._timers) < _MOST_BARS:
            timer = threading.Timer(_WATCHED_AFTER_S, self._watch, (event.job,))
            timer.daemon = True
            self._timers[event.job] = timer
            timer.start()
        elif event.state != job_pb2.JOB_STATE_RUNNING:
            self._gone(event.job)

    def _gone(self, job: str) -> None:
        timer = self._timers.pop(job, None)
        if timer is not None:
            timer.cancel()
        with self._lock:
            bar = self._each.pop(job, None)
        if bar is not None:
            self._bars.remove_task(bar)

    def _watch(self, job: str) -> None:
        """A bar is a comfort: where its progress cannot be told, there is none."""
        try:
            document = self._client.unary(self._client.jobs.GetJob, job_service_pb2.GetJobRequest(name=job)).job
            with self._lock:
                if job not in self._timers:
                    return
                title = one_line(self._titles.get(document.document, document.document))
                bar = self._each[job] = self._bars.add_task(f"  {title}", total=None, told="")
            request = job_service_pb2.WatchJobRequest(name=job, after_sequence=document.last_sequence)
            for answer in self._client.stream(self._client.jobs.WatchJob, request):
                if job not in self._each:
                    return
                if answer.HasField("event"):
                    done, total, told = progress_of(answer.event)
                    self._bars.update(bar, completed=done, total=total or None, told=told)
        except (Failure, KeyError, ValueError):
            return


def progress_of(event: job_pb2.JobEvent) -> tuple[int, int, str]:
    """What is done, of how much, and in words."""
    progress = event.progress
    if progress.chunk_count:
        return progress.chunks_done, progress.chunk_count, f"part {progress.chunks_done} of {progress.chunk_count}"
    return progress.pages_read, progress.page_count, f"page {progress.pages_read} of {progress.page_count}"
