"""The pool of parser processes: who gets one, how long it may take, how much it may hold, when it is replaced."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
from prometheus_client import Counter, Gauge

from services.extractor.adapters.languages import LanguageGuesser
from services.extractor.adapters.parser_parent import START_TIMEOUT_S, ParserParent
from services.extractor.adapters.parser_process import End, ParserProcess
from services.extractor.adapters.parser_protocol import LIFETIME_CPU_S, AnswerKind
from services.extractor.adapters.parser_run import ParserRun
from services.extractor.adapters.picture_run import PictureRun
from services.extractor.domain.pages import FailedPage, ParserEvent, Picture, Refused
from services.extractor.domain.ports import ParseTask, PictureTask
from services.runtime.errors import ResourceExhausted, Unavailable
from services.telemetry import spans
from services.waiting.fair_slots import FairSlots

WATCH_EVERY_S = 0.05
"""How often processes are looked at. The fastest bomb seen grows by about 1 GB/s, so it can overshoot by 50 MB."""
_ADDRESS_SPACE_SLACK_BYTES = 256 * 1024 * 1024
_SANDBOX_SETTING = "PAGEMESH_PARSER_SANDBOX=off"
_READY_TIMEOUT_S = 10.0

_ENDS = Counter("pagemesh_extractor_parser_ends", "Parser processes that ended, by reason.", ["reason"])
_BUSY = Gauge("pagemesh_extractor_parsers_busy", "Parser processes at work.")
_WAITING = Gauge("pagemesh_extractor_parser_waiting", "Extractions that wait for a parser process.")

_Task = TypeVar("_Task", ParseTask, PictureTask)
_Run = TypeVar("_Run", ParserRun, PictureRun)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """`page_cpu_s` and `page_wall_s` bound opening a file and each page; `memory_bytes` the resident set of a process;
    a process is replaced after `recycle_pages`, and when it is idle with more than `recycle_bytes`; a reader that
    pauses for `stall_s` loses its process where others wait for one, and a task that has had it for `slice_s` ends with
    its next page. Images of more than `max_pixels` are not read.
    Where `needs_sandbox`, a process without its filter of system calls gets no file."""

    processes: int
    page_cpu_s: float
    page_wall_s: float
    memory_bytes: int
    recycle_bytes: int
    recycle_pages: int
    max_waiting: int
    stall_s: float
    slice_s: float
    needs_sandbox: bool
    max_pixels: int = 100_000_000


class ParserPool:
    """Implements the ports `Parser` and `PictureParser`."""

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._slots = FairSlots(size=limits.processes, max_waiting=limits.max_waiting, busy=_busy)
        self._parent = ParserParent(memory_bytes=limits.memory_bytes + _ADDRESS_SPACE_SLACK_BYTES, on_exit=self._exited)
        self._busy: dict[ParserProcess, str] = {}
        """Processes at work, and for whom."""
        self._idle: list[ParserProcess] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._spare_wanted = asyncio.Event()
        self._task_id = 0
        self._language = LanguageGuesser()
        _BUSY.set_function(lambda: self.busy)
        _WAITING.set_function(lambda: self.waiting)

    async def start(self) -> None:
        """Starts the parent and a first process. Raises Unavailable."""
        await self._parent.start()
        first = await self._spawn()
        if not first.sandboxed:
            log.warning("parser_not_sandboxed", why="there is no seccomp filter here; limits still hold")
        self._idle.append(first)
        self._tasks = [
            asyncio.create_task(self._watch(), name="parser-watch"),
            asyncio.create_task(self._keep_spare(), name="parser-spare"),
        ]

    async def stop(self) -> None:
        """Ends everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in (*self._idle, *self._busy):
            self._end(process, End.STOPPED)
        self._idle.clear()
        await self._parent.stop()

    @property
    def busy(self) -> int:
        """Processes at work."""
        return len(self._busy)

    @property
    def is_at_work(self) -> bool:
        """Whether somebody waits for what a process computes, or for a process."""
        return bool(self.waiting) or any(process.working for process in self._busy)

    @property
    def waiting(self) -> int:
        """Calls that wait for a process."""
        return self._slots.waiting

    async def check(self) -> None:
        """Raises Unavailable where no parser process can be had; one is then on its way."""
        if not self._parent.running:
            self._spare_wanted.set()
            raise Unavailable("PARSER_UNAVAILABLE", "The parser processes are being started.", retry_after_s=1.0)

    @contextlib.asynccontextmanager
    async def parse(self, task: ParseTask) -> AsyncIterator[AsyncIterator[Sequence[ParserEvent]]]:
        """See the port."""
        make = functools.partial(ParserRun, max_pixels=self._limits.max_pixels, guess_language=self._language.guess)
        attributes: spans.Attributes = {"pagemesh.format": task.media_type.name, "pagemesh.first_page": task.first_page}
        with spans.below("parse", attributes=attributes) as span:
            async with self._begun(task, make) as run:
                try:
                    yield run.events()
                finally:
                    span.say({"pagemesh.pages": run.pages})

    async def picture(self, task: PictureTask) -> Picture | Refused | FailedPage:
        """See the port."""
        with spans.below("draw", attributes={"pagemesh.format": task.media_type.name}):
            async with self._begun(task, functools.partial(PictureRun, max_pixels=self._limits.max_pixels)) as run:
                return await run.picture()

    @contextlib.asynccontextmanager
    async def _begun(self, task: _Task, make: Callable[[ParserProcess, _Task], _Run]) -> AsyncIterator[_Run]:
        """The task on a process, which is taken from it with the context."""
        turns = task.turns if isinstance(task, ParseTask) else 0
        await self._slots.acquire(task.tenant, timeout_s=task.wait_s, turns=turns)
        try:
            process = await self._process_for(task)
        except BaseException:
            self._slots.release(task.tenant)
            raise
        self._busy[process] = task.tenant
        self._trim()
        if not self._has_spare():
            self._spare_wanted.set()
        run = make(process, task)
        try:
            self._task_id = (self._task_id + 1) % (1 << 32)
            run.begin(self._task_id)
            yield run
        finally:
            self._leave(process, finished=run.finished)

    def _leave(self, process: ParserProcess, *, finished: bool) -> None:
        """Takes a process from its reader and passes the slot on, once."""
        tenant = self._busy.pop(process, None)
        if tenant is None:
            return
        self._give_back(process, finished=finished)
        self._slots.release(tenant)

    async def _process_for(self, task: ParseTask | PictureTask) -> ParserProcess:
        """An idle process that has seen this tenant's files only, or none at all."""
        own = [process for process in self._idle if process.tenant == task.tenant and not task.alone]
        fresh = [process for process in self._idle if process.tenant is None]
        found = next((process for process in (*own, *fresh) if process.end is None), None)
        if found is not None:
            self._idle.remove(found)
        process = found or await self._spawn()
        process.tenant = task.tenant
        return process

    async def _spawn(self) -> ParserProcess:
        pid, orders = await self._parent.fork()
        try:
            process = ParserProcess(pid, orders, kill=self._parent.kill)
        except OSError as exc:
            orders.close()
            self._parent.kill(pid)
            raise _unavailable() from exc
        try:
            async with asyncio.timeout(min(_READY_TIMEOUT_S, START_TIMEOUT_S)):
                ready = next(iter(await process.answers()), None)
        except BaseException as exc:
            self._end(process, End.STOPPED)
            if isinstance(exc, TimeoutError):
                raise _unavailable() from exc
            raise
        if ready is None or ready.kind is not AnswerKind.READY:
            self._end(process, End.PROTOCOL)
            raise _unavailable()
        process.sandboxed = bool(ready.code)
        if self._limits.needs_sandbox and not process.sandboxed:
            self._end(process, End.STOPPED)
            log.error("parser_not_sandboxed", why="the kernel refuses the seccomp filter", setting=_SANDBOX_SETTING)
            raise Unavailable(
                "PARSER_UNAVAILABLE",
                f"The kernel refuses the parsers' seccomp filter; {_SANDBOX_SETTING} does without.",
            )
        return process

    def _give_back(self, process: ParserProcess, *, finished: bool) -> None:
        if process.end is not None or not finished:
            self._end(process, End.ABANDONED)
        elif self._is_worn(process):
            self._end(process, End.RECYCLED)
        else:
            self._idle.append(process)
            self._trim()

    def _is_worn(self, process: ParserProcess) -> bool:
        # As the watch saw it last: a look of its own would cost a small document as much as a page.
        return (
            process.pages >= self._limits.recycle_pages
            or process.meter.seen_rss_bytes > self._limits.recycle_bytes
            or process.meter.seen_cpu_s > LIFETIME_CPU_S / 2
        )

    def _trim(self) -> None:
        """Ends idle processes beyond one for each slot and a spare one, the longest idle first."""
        surplus = len(self._idle) + len(self._busy) - self._limits.processes - 1
        for process in [process for process in self._idle if process.tenant is not None][: max(surplus, 0)]:
            self._idle.remove(process)
            self._end(process, End.SURPLUS)

    def _end(self, process: ParserProcess, end: End) -> None:
        process.close(end)
        reason = process.end or end
        _ENDS.labels(reason.name.lower()).inc()
        if reason in (End.TIMEOUT, End.MEMORY, End.DIED, End.PROTOCOL):
            log.warning("parser_lost", pid=process.pid, reason=reason.name.lower(), pages=process.pages)

    def _exited(self, pid: int, status: int) -> None:
        log.debug("parser_exited", pid=pid, status=status)

    async def _watch(self) -> None:
        """Holds the processes to their limits."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                for process in tuple(self._busy):
                    if process.end is None:
                        self._hold_to_limits(process)
                for process in tuple(self._idle):
                    self._look_at_idle(process)
            except Exception:  # without the watch no limit holds: it outlives whatever it meets
                log.exception("parser_watch_failed")

    def _hold_to_limits(self, process: ParserProcess) -> None:
        limits = self._limits
        now = asyncio.get_running_loop().time()
        if process.meter.rss_bytes() > limits.memory_bytes:
            process.close(End.MEMORY)
            return
        if self._slots.waiting and now - process.begun > limits.slice_s:
            process.stop()
        if process.working:
            if process.meter.cpu_s(process.progress) > limits.page_cpu_s or now - process.since > limits.page_wall_s:
                process.close(End.TIMEOUT)
        elif self._slots.waiting and now - process.since > limits.stall_s:
            # Its reader may never come back, so the slot does not wait for it.
            process.close(End.STALLED)
            self._leave(process, finished=False)

    def _look_at_idle(self, process: ParserProcess) -> None:
        """Drops an idle process that has ended, or that works although nobody has asked it to."""
        if process.meter.rss_bytes() > self._limits.memory_bytes:
            process.close(End.MEMORY)
        elif process.meter.cpu_s(process.progress) > self._limits.page_cpu_s:
            process.close(End.PROTOCOL)
        if process.end is not None:
            self._idle.remove(process)
            self._end(process, process.end)
            self._spare_wanted.set()

    def _has_spare(self) -> bool:
        return any(process.tenant is None and process.end is None for process in self._idle)

    async def _keep_spare(self) -> None:
        """Keeps one process ready that has seen no file, so that a new tenant or a retry does not wait for a fork."""
        while True:
            await self._spare_wanted.wait()
            self._spare_wanted.clear()
            if self._has_spare():
                continue
            try:
                spare = await self._spawn()
                self._idle.append(spare)
                self._trim()
            except Unavailable as exc:
                log.warning("parser_spare_failed", reason=exc.reason)
            except Exception:  # without this task the service would never come back
                log.exception("parser_spare_failed")


def _unavailable() -> Unavailable:
    return Unavailable("PARSER_UNAVAILABLE", "A parser process did not start. Try again.", retry_after_s=1.0)


def _busy() -> ResourceExhausted:
    return ResourceExhausted(
        "PARSER_BUSY", "All parsers are busy and many calls wait. Try again shortly.", retry_after_s=2.0
    )
