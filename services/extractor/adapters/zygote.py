"""A parent of processes: it pays for its imports once and forks whenever it is asked to. It never sees a file."""

import contextlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn, Protocol

from services.extractor.adapters import sandbox
from services.extractor.adapters.zygote_protocol import Command, CommandKind, Event, EventKind


class Work(Protocol):
    """What a child does until the other end of its socket is closed."""

    def __call__(self, orders: socket.socket, *, parent_pid: int, memory_bytes: int) -> None:
        """Runs in the child alone."""


class Zygote:
    """Forks, kills and reaps on command, in one thread."""

    def __init__(self, control: socket.socket, *, memory_bytes: int, work: Work) -> None:
        self._control = control
        self._memory_bytes = memory_bytes
        self._work = work
        self._children: set[int] = set()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for wake in (self._wake_reader, self._wake_writer):
            wake.setblocking(False)

    def run(self) -> None:
        """Serves until the control socket is closed; then every child dies with this process."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            with selectors.DefaultSelector() as selector:
                self._serve(selector)
        finally:
            # Children that end from now on are told to nobody.
            signal.set_wakeup_fd(-1)
            self._wake_reader.close()
            self._wake_writer.close()

    def _serve(self, selector: selectors.BaseSelector) -> None:
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._wake_reader, selectors.EVENT_READ)
        self._say(EventKind.READY, os.getpid())
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if self._wake_reader in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake_reader.recv(4096)
                self._reap()
            if self._control in ready and not self._obey(selector):
                return

    def _obey(self, selector: selectors.BaseSelector) -> bool:
        record, descriptors, _, _ = socket.recv_fds(self._control, Command.SIZE, 1)
        if len(record) != Command.SIZE:
            return False
        command = Command.unpack(record)
        if command.kind is CommandKind.KILL:
            # A child is this process's to reap, so its number cannot have passed to another.
            if command.pid in self._children:
                os.kill(command.pid, signal.SIGKILL)
            return True
        pid = os.fork()
        if pid == 0:
            selector.close()
            self._become_worker(descriptors[0])
        os.close(descriptors[0])
        self._children.add(pid)
        self._say(EventKind.FORKED, pid)
        return True

    def _become_worker(self, descriptor: int) -> NoReturn:
        code = 1
        try:
            parent_pid = os.getppid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._control, self._wake_reader, self._wake_writer):
                inherited.close()
            # What libraries print may hold text of the file.
            for stream in (1, 2):
                os.dup2(0, stream)
            with socket.socket(fileno=descriptor) as orders:
                self._work(orders, parent_pid=parent_pid, memory_bytes=self._memory_bytes)
            code = 0
        finally:
            os._exit(code)

    def _reap(self) -> None:
        for pid in tuple(self._children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._children.discard(pid)
                self._say(EventKind.EXITED, pid, os.waitstatus_to_exitcode(status))

    def _say(self, kind: EventKind, pid: int, status: int = 0) -> None:
        self._control.sendall(Event(kind, pid, status).pack())


def serve(work: Work, *, warm_up: Callable[[], None]) -> None:
    """The whole life of such a process, which is started with the socket's descriptor and the children's memory as its
    arguments. `warm_up` loads what the children share."""
    descriptor, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    sandbox.die_with(os.getppid())
    # The service ends this process by closing its socket, whatever is on the way.
    with socket.socket(fileno=descriptor) as control, contextlib.suppress(ConnectionError):
        warm_up()
        Zygote(control, memory_bytes=memory_bytes, work=work).run()
