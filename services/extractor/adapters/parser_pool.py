"""The pool of parser processes: who gets one, how long it may take, how much it may hold, when it is replaced."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Counter, Gauge

from pagemesh.common.v1 import page_pb2
from services.extractor.adapters.fair_slots import FairSlots
from services.extractor.adapters.parser_parent import START_TIMEOUT_S, ParserParent
from services.extractor.adapters.parser_process import End, ParserProcess
from services.extractor.adapters.parser_protocol import (
    Answer,
    AnswerKind,
    Fault,
    FlagBit,
    Format,
    Order,
    OrderKind,
    PartBit,
)
from services.extractor.domain.media import MediaType
from services.extractor.domain.pages import (
    DocumentFault,
    DocumentFlag,
    FailedPage,
    Loss,
    Opened,
    Page,
    PageFault,
    ParserEvent,
    ParserLost,
    Part,
    Refused,
)
from services.extractor.domain.ports import ParseTask
from services.runtime.errors import Unavailable

WATCH_EVERY_S = 0.05
"""How often processes are looked at. The fastest bomb seen grows by about 1 GB/s, so it can overshoot by 50 MB."""
_ADDRESS_SPACE_SLACK_BYTES = 256 * 1024 * 1024
_READY_TIMEOUT_S = 10.0

_FORMAT = {MediaType.PDF: Format.PDF, MediaType.JPEG: Format.JPEG, MediaType.PNG: Format.PNG}
_PART = {Part.TEXT: PartBit.TEXT, Part.BLOCKS: PartBit.BLOCKS, Part.WORDS: PartBit.WORDS}
_FLAG = {FlagBit.REPAIRED: DocumentFlag.REPAIRED, FlagBit.ENCRYPTED: DocumentFlag.ENCRYPTED}
_DOCUMENT_FAULT = {
    Fault.CORRUPT: DocumentFault.CORRUPT,
    Fault.MEMORY: DocumentFault.MEMORY,
    Fault.ENCRYPTED: DocumentFault.ENCRYPTED,
    Fault.NO_PAGES: DocumentFault.NO_PAGES,
}
_LOSS = {End.TIMEOUT: Loss.TIMEOUT, End.MEMORY: Loss.MEMORY}

_PAGES = Counter("pagemesh_extractor_parsed_pages", "Pages that parsers answered, by outcome.", ["outcome"])
_ENDS = Counter("pagemesh_extractor_parser_ends", "Parser processes that ended, by reason.", ["reason"])
_BUSY = Gauge("pagemesh_extractor_parsers_busy", "Parser processes at work.")
_WAITING = Gauge("pagemesh_extractor_parser_waiting", "Extractions that wait for a parser process.")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """`page_cpu_s` and `page_wall_s` bound opening a file and each page; `memory_bytes` the resident set of a process;
    a process is replaced after `recycle_pages`, and when it is idle with more than `recycle_bytes`; a reader that
    pauses for `stall_s` loses its process where others wait for one."""

    processes: int
    page_cpu_s: float
    page_wall_s: float
    memory_bytes: int
    recycle_bytes: int
    recycle_pages: int
    max_waiting: int
    stall_s: float


class ParserPool:
    """Implements the port `Parser`."""

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._slots = FairSlots(size=limits.processes, max_waiting=limits.max_waiting)
        self._parent = ParserParent(memory_bytes=limits.memory_bytes + _ADDRESS_SPACE_SLACK_BYTES, on_exit=self._exited)
        self._busy: list[ParserProcess] = []
        self._idle: list[ParserProcess] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._spare_wanted = asyncio.Event()
        self._task_id = 0

    async def start(self) -> None:
        """Starts the parent and a first process. Raises Unavailable."""
        await self._parent.start()
        first = await self._spawn()
        if not first.sandboxed:
            log.warning("parser_not_sandboxed", why="this system has no seccomp filter to offer; limits still hold")
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

    async def check(self) -> None:
        """Raises Unavailable where no parser process can be had; one is then on its way."""
        if not self._parent.running:
            self._spare_wanted.set()
            raise Unavailable("PARSER_UNAVAILABLE", "The parser processes are being started.", retry_after_s=1.0)

    @contextlib.asynccontextmanager
    async def parse(self, task: ParseTask) -> AsyncIterator[AsyncIterator[ParserEvent]]:
        """See the port."""
        with _WAITING.track_inprogress():
            await self._slots.acquire(task.tenant, timeout_s=task.wait_s)
        try:
            process = await self._process_for(task)
        except BaseException:
            self._slots.release()
            raise
        self._busy.append(process)
        _BUSY.inc()
        self._trim()
        self._spare_wanted.set()
        run = _Run(process, task)
        try:
            self._task_id = (self._task_id + 1) % (1 << 32)
            run.begin(self._task_id)
            yield run.events()
        finally:
            self._leave(process, finished=run.finished)

    def _leave(self, process: ParserProcess, *, finished: bool) -> None:
        """Takes a process from its reader and passes the slot on, once."""
        if process not in self._busy:
            return
        self._busy.remove(process)
        _BUSY.dec()
        self._give_back(process, finished=finished)
        self._slots.release()

    async def _process_for(self, task: ParseTask) -> ParserProcess:
        """An idle process that has seen this tenant's files only, or none at all."""
        idle = [process for process in self._idle if process.end is None]
        own = [process for process in idle if process.tenant == task.tenant and not task.alone]
        fresh = [process for process in idle if process.tenant is None]
        found = next(iter((*own, *fresh)), None)
        self._idle = [process for process in idle if process is not found]
        process = found or await self._spawn()
        process.tenant = task.tenant
        return process

    async def _spawn(self) -> ParserProcess:
        pid, orders = await self._parent.fork()
        process = ParserProcess(pid, orders)
        try:
            async with asyncio.timeout(min(_READY_TIMEOUT_S, START_TIMEOUT_S)):
                ready = await process.answer()
        except BaseException:
            self._end(process, End.STOPPED)
            raise
        if ready is None or ready.kind is not AnswerKind.READY:
            self._end(process, End.PROTOCOL)
            raise Unavailable("PARSER_UNAVAILABLE", "A parser process did not start. Try again.", retry_after_s=1.0)
        process.sandboxed = bool(ready.code)
        return process

    def _give_back(self, process: ParserProcess, *, finished: bool) -> None:
        if process.end is not None or not finished:
            self._end(process, End.ABANDONED)
        elif process.pages >= self._limits.recycle_pages or process.meter.rss_bytes() > self._limits.recycle_bytes:
            self._end(process, End.RECYCLED)
        else:
            self._idle.append(process)
            self._trim()

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
        self._parent.kill(process.pid)

    def _exited(self, pid: int, status: int) -> None:
        log.debug("parser_exited", pid=pid, status=status)

    async def _watch(self) -> None:
        """Holds the processes to their limits."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for process in tuple(self._busy):
                if process.end is None:
                    self._hold_to_limits(process)

    def _hold_to_limits(self, process: ParserProcess) -> None:
        limits = self._limits
        now = asyncio.get_running_loop().time()
        if process.meter.rss_bytes() > limits.memory_bytes:
            self._kill(process, End.MEMORY)
        elif process.working:
            if process.meter.cpu_s(process.progress) > limits.page_cpu_s or now - process.since > limits.page_wall_s:
                self._kill(process, End.TIMEOUT)
        elif process.starved and self._slots.waiting and now - process.since > limits.stall_s:
            # Its reader may never come back, so the slot does not wait for it.
            process.close(End.STALLED)
            self._leave(process, finished=False)

    def _kill(self, process: ParserProcess, end: End) -> None:
        """Ends a busy process at once; whoever reads from it finds out, and counts it."""
        process.close(end)
        self._parent.kill(process.pid)

    async def _keep_spare(self) -> None:
        """Keeps one process ready that has seen no file, so that a new tenant or a retry does not wait for a fork."""
        while True:
            await self._spare_wanted.wait()
            self._spare_wanted.clear()
            if any(p.tenant is None and p.end is None for p in self._idle):
                continue
            try:
                spare = await self._spawn()
                self._idle.append(spare)
                self._trim()
            except (Unavailable, TimeoutError):
                log.warning("parser_spare_failed")


class _Run:
    """One task on one process."""

    def __init__(self, process: ParserProcess, task: ParseTask) -> None:
        self._process = process
        self._task = task
        self._expected = task.first_page
        self._last = 0
        self.finished = False

    def begin(self, task_id: int) -> None:
        task = self._task
        order = Order(
            OrderKind.PARSE,
            task_id,
            format=_FORMAT[task.media_type],
            parts=sum(bit for part, bit in _PART.items() if part in task.parts),
            first_page=task.first_page,
            last_page=task.last_page,
        )
        try:
            self._process.begin(order, task.file.fileno())
        except OSError:
            self._process.close(End.DIED)

    async def events(self) -> AsyncIterator[ParserEvent]:
        while True:
            answer = await self._process.answer()
            if answer is None:
                if self._process.end is End.STALLED:
                    return
                raise self._lost()
            if answer.kind is AnswerKind.DONE:
                self._finish(self._expected > self._last)
                return
            event = self._event(answer)
            if isinstance(event, Page | FailedPage):
                _PAGES.labels("read" if isinstance(event, Page) else event.fault.value).inc()
            yield event
            if isinstance(event, Refused):
                self._finish(True)
                return
            if not isinstance(event, Opened):
                self._process.credit()

    def _finish(self, as_it_should: bool) -> None:
        if not as_it_should:
            raise self._broken()
        self.finished = True

    def _event(self, answer: Answer) -> ParserEvent:
        """What an answer means. A process that was taken over may say anything: what makes no sense ends it."""
        try:
            if answer.kind is AnswerKind.OPENED:
                flags = DocumentFlag.NONE
                for bit, flag in _FLAG.items():
                    if answer.code & bit:
                        flags |= flag
                self._last = min(self._task.last_page, answer.number)
                return Opened(answer.number, flags)
            if answer.kind is AnswerKind.REFUSED:
                return Refused(_DOCUMENT_FAULT[Fault(answer.code)])
            if answer.number != self._expected or answer.number > self._last:
                raise ValueError("not the page that comes next")
            self._expected += 1
            if answer.kind is AnswerKind.PAGE_FAILED:
                memory = Fault(answer.code) is Fault.MEMORY
                return FailedPage(answer.number, PageFault.MEMORY if memory else PageFault.CORRUPT)
            if page_pb2.Page.FromString(answer.content).number != answer.number:
                raise ValueError("another page than it says")
        except (ValueError, DecodeError) as exc:
            raise self._broken() from exc
        return Page(answer.number, answer.content)

    def _broken(self) -> ParserLost:
        self._process.close(End.PROTOCOL)
        return ParserLost(Loss.CRASH)

    def _lost(self) -> ParserLost:
        end = self._process.end or End.DIED
        wasted_s = max(0.0, asyncio.get_running_loop().time() - self._process.since)
        return ParserLost(_LOSS.get(end, Loss.CRASH), wasted_s)
