"""The service's end of a process that forks others: starts it, asks it, and starts it again if it dies."""

import asyncio
import contextlib
import contextvars
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable

import structlog

from services.extractor.adapters.zygote_protocol import Command, CommandKind, Event, EventKind
from services.runtime.errors import Unavailable

START_TIMEOUT_S = 30.0
"""Importing MuPDF, or loading models, takes a second on an idle machine."""
FORK_TIMEOUT_S = 5.0
_STOP_TIMEOUT_S = 5.0
_INHERITED = ("LD_LIBRARY_PATH", "LANG", "LC_ALL")
_MODULE = "services.extractor.adapters.mupdf_zygote"

log = structlog.get_logger()


def _unavailable() -> Unavailable:
    return Unavailable("PARSER_UNAVAILABLE", "No parser process can be started. Try again.", retry_after_s=1.0)


class ParserParent:
    """One process that has MuPDF, or what else `module` loads, and forks. `on_exit(pid, status)` is called for each of
    its children; `unavailable()` is what is raised where it can not be had."""

    def __init__(
        self,
        *,
        memory_bytes: int,
        on_exit: Callable[[int, int], None],
        module: str = _MODULE,
        unavailable: Callable[[], Unavailable] = _unavailable,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._on_exit = on_exit
        self._module = module
        self._unavailable = unavailable
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[None] | None = None
        self._forks: deque[asyncio.Future[int]] = deque()
        self._buffer = bytearray()
        self._starting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process is up and has said that it is ready."""
        return self._control is not None and self._ready is not None and self._ready.done()

    async def start(self) -> None:
        """Starts the process if it does not run. Raises Unavailable."""
        if self.running:
            return
        if self._starting is None or self._starting.done():
            # It outlives the call that wants it first: what is told of it later is not that request's.
            own = contextvars.Context()
            self._starting = asyncio.create_task(self._start(), name="parser-parent-start", context=own)
        # Whoever gives up waiting does not stop the start for the others.
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await self._reap()
        try:
            ours, self._process = self._launch()
        except OSError as exc:
            raise self._unavailable() from exc
        loop = asyncio.get_running_loop()
        ours.setblocking(False)
        self._control, self._ready = ours, loop.create_future()
        loop.add_reader(ours, self._readable)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._ready
        except TimeoutError as exc:
            self._lost()
            raise self._unavailable() from exc

    def _launch(self) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                # In the loop's thread on purpose: the kernel ties the child's life to the thread that made it.
                process = subprocess.Popen(  # noqa: S603  # own module
                    [sys.executable, "-m", self._module, str(theirs.fileno()), str(self._memory_bytes)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    # Nothing that a parser could tell: no database, no keys.
                    env={
                        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
                        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                        "MALLOC_ARENA_MAX": "1",
                    },
                )
        except BaseException:
            ours.close()
            raise
        return ours, process

    async def fork(self) -> tuple[int, socket.socket]:
        """A new parser process and the socket that it obeys. Raises Unavailable."""
        await self.start()
        try:
            ours, theirs = socket.socketpair()
        except OSError as exc:
            raise self._unavailable() from exc
        forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            with theirs:
                self._send(Command(CommandKind.FORK), theirs)
            self._forks.append(forked)
            async with asyncio.timeout(FORK_TIMEOUT_S):
                pid = await asyncio.shield(forked)
        except (TimeoutError, OSError) as exc:
            ours.close()
            raise self._unavailable() from exc
        except BaseException:
            ours.close()  # a process that nobody waits for finds its socket closed and ends
            raise
        ours.setblocking(False)
        return pid, ours

    def kill(self, pid: int) -> None:
        """Ends a child at once."""
        try:
            self._send(Command(CommandKind.KILL, pid))
        except OSError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ends the process, and with it its children. Whoever forks from now on starts another one."""
        # Nothing is waited for where it runs, so that nobody forks in between and loses what it got.
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        self._lost()
        await self._reap()

    def _send(self, command: Command, passed: socket.socket | None = None) -> None:
        if self._control is None:
            raise ConnectionError("the parent of the parser processes is gone")
        if passed is None:
            self._control.send(command.pack())
        else:
            socket.send_fds(self._control, [command.pack()], [passed.fileno()])

    def _readable(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            log.error("parser_parent_died", module=self._module, pid=self.pid)
            self._lost()
            return
        self._buffer += data
        while len(self._buffer) >= Event.SIZE:
            event = Event.unpack(bytes(self._buffer[: Event.SIZE]))
            del self._buffer[: Event.SIZE]
            self._take(event)

    def _take(self, event: Event) -> None:
        if event.kind is EventKind.READY:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif event.kind is EventKind.FORKED:
            forked = self._forks.popleft()
            if not forked.done():
                forked.set_result(event.pid)
        else:
            self._on_exit(event.pid, event.status)

    def _lost(self) -> None:
        """Closes the control socket, upon which the process ends, and tells whoever waits for it."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._control = None
        self._buffer.clear()
        for waiting in (self._ready, *self._forks):
            if waiting is not None and not waiting.done():
                waiting.set_exception(self._unavailable())
                waiting.exception()  # whoever still waits sees it; nobody else has to
        self._forks.clear()

    async def _reap(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)
