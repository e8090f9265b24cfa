"""Processes that read pictures of text: each reads one picture and ends, within limits of time and memory."""

import asyncio
import contextlib
import contextvars
import socket
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Gauge, Histogram

from services.extractor.adapters import ocr_protocol as wire
from services.extractor.adapters.parser_parent import ParserParent
from services.extractor.adapters.process_meter import ProcessMeter
from services.extractor.domain.pages import Loss, ParserLost, Picture, PictureFormat
from services.extractor.domain.recognised import Reading
from services.runtime.errors import ResourceExhausted, Unavailable
from services.telemetry import spans
from services.waiting.fair_slots import FairSlots

WATCH_EVERY_S = 0.05
_MODULE = "services.extractor.adapters.ocr_worker"
_ADDRESS_SPACE_SLACK_BYTES = 256 * 1024 * 1024
_RETRY_AFTER_S = 5.0

_PICTURES = Counter("pagemesh_extractor_ocr_pictures", "Pictures that were read, by outcome.", ["outcome"])
_SECONDS = Histogram(
    "pagemesh_extractor_ocr_seconds",
    "How long reading a picture took.",
    buckets=(0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 20),
)
_BUSY = Gauge("pagemesh_extractor_ocr_busy", "Processes that read a picture.")
_WAITING = Gauge("pagemesh_extractor_ocr_waiting", "Pictures that wait for a process.")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OcrLimits:
    """A process leaves out what it has not read after `budget_s` of computing. It is killed after `cpu_s`, after
    `wall_s` on the clock, and where its resident set passes `memory_bytes`. After `idle_s` without a picture the models
    are unloaded. Where `needs_sandbox`, a process without its filter of system calls gets no picture."""

    processes: int
    budget_s: float
    cpu_s: float
    wall_s: float
    memory_bytes: int
    max_waiting: int
    idle_s: float
    needs_sandbox: bool


class OcrPool:
    """Implements the port `TextReader`. Nothing is started before there is a picture."""

    def __init__(self, limits: OcrLimits) -> None:
        self._limits = limits
        self._slots = FairSlots(size=limits.processes, max_waiting=limits.max_waiting, busy=_busy)
        self._parent = ParserParent(
            memory_bytes=limits.memory_bytes + _ADDRESS_SPACE_SLACK_BYTES,
            on_exit=self._exited,
            module=_MODULE,
            unavailable=_unavailable,
        )
        self._reading = 0
        self._used = asyncio.Event()
        self._unloading: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Ends everything."""
        if self._unloading is not None:
            self._unloading.cancel()
            await asyncio.gather(self._unloading, return_exceptions=True)
        await self._parent.stop()

    async def read(self, tenant: str, picture: Picture, *, wait_s: float | None) -> Reading:
        """See the port."""
        assert picture.format is PictureFormat.GRAY
        with _WAITING.track_inprogress():
            await self._slots.acquire(tenant, timeout_s=wait_s)
        self._reading += 1
        self._used.set()
        if self._unloading is None:
            # It is nobody's request, not even the first one's.
            own = contextvars.Context()
            self._unloading = asyncio.create_task(self._unload_when_idle(), name="ocr-unload", context=own)
        try:
            with _BUSY.track_inprogress(), _SECONDS.time(), spans.below("recognise"):
                reading = await self._read(picture)
        except ParserLost as lost:
            _PICTURES.labels(lost.loss.name.lower()).inc()
            log.warning("ocr_lost", reason=lost.loss.name.lower())
            raise
        finally:
            self._reading -= 1
            self._slots.release(tenant)
        _PICTURES.labels("read" if reading.complete else "cut").inc()
        return reading

    async def _read(self, picture: Picture) -> Reading:
        pid, ours = await self._parent.fork()
        try:
            meter = ProcessMeter(pid)
        except OSError as exc:
            self._parent.kill(pid)
            ours.close()
            raise _unavailable() from exc
        begun = asyncio.get_running_loop().time()
        talking = asyncio.create_task(self._talk(ours, picture), name="ocr-talk")
        try:
            while not talking.done():
                await asyncio.wait([talking], timeout=WATCH_EVERY_S)
                self._hold_to_limits(meter, asyncio.get_running_loop().time() - begun)
            return talking.result()
        except (OSError, EOFError, wire.ProtocolError) as exc:
            raise ParserLost(Loss.CRASH) from exc
        finally:
            # One that is as it was made has ended by itself, unless nobody waits for it any more.
            self._parent.kill(pid)
            meter.close()
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
            ours.close()

    def _hold_to_limits(self, meter: ProcessMeter, wall_s: float) -> None:
        if meter.rss_bytes() > self._limits.memory_bytes:
            raise ParserLost(Loss.MEMORY)
        if meter.total_cpu_s() > self._limits.cpu_s or wall_s > self._limits.wall_s:
            raise ParserLost(Loss.TIMEOUT, wall_s)

    async def _talk(self, ours: socket.socket, picture: Picture) -> Reading:
        loop = asyncio.get_running_loop()
        (sandboxed,) = wire.READY.unpack(await _received(ours, wire.READY.size))
        if self._limits.needs_sandbox and not sandboxed:
            log.error("ocr_not_sandboxed", why="the kernel refuses the seccomp filter")
            raise _unavailable()
        await loop.sock_sendall(ours, wire.PICTURE.pack(picture.width_px, picture.height_px, self._limits.budget_s))
        await loop.sock_sendall(ours, picture.content)
        size, count, complete = wire.ANSWER.unpack(await _received(ours, wire.ANSWER.size))
        if size > wire.MAX_ANSWER_BYTES or complete > 1:
            raise wire.ProtocolError("an answer that is too long")
        payload = await _received(ours, size)
        # At the worst 50,000 words, which is too much for the loop.
        return Reading(await asyncio.to_thread(wire.lines_of, payload, count), complete=bool(complete))

    async def _unload_when_idle(self) -> None:
        while True:
            await self._used.wait()
            self._used.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.idle_s):
                    await self._used.wait()
            if not self._used.is_set() and not self._reading and self._parent.running:
                await self._parent.stop()
                log.info("ocr_unloaded", idle_s=self._limits.idle_s)
            elif self._reading:
                self._used.set()  # looked at again once that is through

    def _exited(self, pid: int, status: int) -> None:
        log.debug("ocr_exited", pid=pid, status=status)


async def _received(ours: socket.socket, size: int) -> bytes:
    """So many bytes. Raises EOFError where the other end is closed before."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size:
        piece = await loop.sock_recv(ours, min(size - len(data), 1 << 16))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _busy() -> ResourceExhausted:
    return ResourceExhausted(
        "OCR_BUSY", "All text recognition is busy and many pages wait. Try again shortly.", retry_after_s=_RETRY_AFTER_S
    )


def _unavailable() -> Unavailable:
    return Unavailable(
        "OCR_UNAVAILABLE", "Text recognition can not be started. Try again.", retry_after_s=_RETRY_AFTER_S
    )
