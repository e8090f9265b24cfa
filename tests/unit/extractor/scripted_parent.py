"""A parent whose parser processes are the test: it forks nothing, and the test answers on their sockets."""

import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from services.extractor.adapters import parser_protocol as wire
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.extractor.adapters.parser_protocol import Order

LIMITS = ParserLimits(
    processes=1,
    page_cpu_s=60,
    page_wall_s=60,
    memory_bytes=8 << 30,
    recycle_bytes=8 << 30,
    recycle_pages=1000,
    max_waiting=4,
    stall_s=60,
    slice_s=60,
    needs_sandbox=True,
)


class ScriptedParent:
    """Stands in for ParserParent. `faults` are raised by the next forks, first one first."""

    def __init__(self) -> None:
        self.running = True
        self.faults: list[BaseException] = []
        self.first_words = wire.ready(sandboxed=True)
        self.theirs: list[socket.socket] = []
        self.killed: list[int] = []

    def __call__(self, *, memory_bytes: int, on_exit: Callable[[int, int], None]) -> "ScriptedParent":
        return self

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        for theirs in self.theirs:
            theirs.close()

    async def fork(self) -> tuple[int, socket.socket]:
        if self.faults:
            raise self.faults.pop(0)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.append(theirs)
        theirs.sendall(self.first_words)
        # Somebody has to be measured; the number is made different for each, and stands for nobody's process.
        return os.getpid() if len(self.theirs) == 1 else (1 << 30) + len(self.theirs), ours

    def kill(self, pid: int) -> None:
        self.killed.append(pid)


def order_of(theirs: socket.socket) -> Order:
    """The next order that the pool gave; a file that came with it is closed."""
    record, descriptors, _, _ = socket.recv_fds(theirs, Order.SIZE, 1)
    for descriptor in descriptors:
        os.close(descriptor)
    return Order.unpack(record)


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Any frame, also one that no parser of ours sends."""
    return struct.pack("<IB", len(payload), kind) + payload


def pool_of(parent: ScriptedParent, monkeypatch: Any, **limits: Any) -> ParserPool:
    """A pool whose parser processes are scripted."""
    monkeypatch.setattr("services.extractor.adapters.parser_pool.ParserParent", parent)
    values = {name: getattr(LIMITS, name) for name in LIMITS.__slots__}
    return ParserPool(ParserLimits(**{**values, **limits}))
