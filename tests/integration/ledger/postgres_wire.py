"""A wire between a service and Postgres that knows the protocol's messages, and kills before one of them passes.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import asyncio
import contextlib
import enum
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

_NO_ENCRYPTION = (80877103, 80877104)
"""SSLRequest and GSSENCRequest, which are answered with N: the wire has to read what passes."""


class Side(enum.Enum):
    """Which messages are steps: those that make Postgres do something, or those that tell that it was done.

    Parse, Bind, Describe and rows change nothing that a kill could leave half done.
    """

    QUESTIONS = b"QES"
    """Query, Execute, Sync."""
    ANSWERS = b"CZ"
    """CommandComplete, ReadyForQuery."""


@dataclass(eq=False)
class Trap:
    """Kills exactly before a step passes, and lets nothing of that connection pass after it.

    Steps are counted on connections that have carried one of `marks`, from that message on.
    """

    side: Side
    step: int
    """From 1."""
    marks: tuple[bytes, ...]
    kill: Callable[[int], None]
    """Takes the process id of the connection's backend."""
    passed: int = 0
    sprung: bool = False
    links: set[int] = field(default_factory=set)

    def springs(self, link: int, side: Side, message: bytes, backend: int) -> bool:
        """Whether somebody was killed instead of passing the message on."""
        if side is Side.QUESTIONS and any(mark in message for mark in self.marks):
            self.links.add(link)
        if self.sprung or side is not self.side or link not in self.links or message[:1] not in side.value:
            return False
        self.passed += 1
        self.sprung = self.passed == self.step
        if self.sprung:
            self.kill(backend)
        return self.sprung


class PostgresWire:
    """Listens on one port of the loopback interface and stands for the server at another."""

    def __init__(self, port: int, upstream_port: int) -> None:
        self.port, self._upstream_port = port, upstream_port
        self._trap: Trap | None = None
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def armed(self, trap: Trap) -> Iterator[Trap]:
        self._trap = trap
        try:
            yield trap
        finally:
            self._trap = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["PostgresWire"]:
        server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Either side breaks off as it likes, and the server may be away: then the other side is told, below.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self._pass_on(reader, writer)
            finally:
                writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = await _opening(reader, writer)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        link = _Link(self, next(self._numbers))
        try:
            server_writer.write(opening)
            pumps = {
                asyncio.create_task(link.pump(Side.QUESTIONS, reader, server_writer)),
                asyncio.create_task(link.pump(Side.ANSWERS, server_reader, writer)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            server_writer.close()  # what has passed is read by the server before the end

    def springs(self, link: int, side: Side, message: bytes, backend: int) -> bool:
        return self._trap is not None and self._trap.springs(link, side, message, backend)


@dataclass
class _Link:
    """One connection."""

    wire: PostgresWire
    number: int
    backend: int = 0

    async def pump(self, side: Side, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(5)
            message = head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
            if side is Side.ANSWERS and message[:1] == b"K":  # BackendKeyData
                self.backend = int.from_bytes(message[5:9])
            if self.wire.springs(self.number, side, message, self.backend):
                return
            writer.write(message)
            await writer.drain()


async def _opening(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The first message that is for the server; it alone has no type."""
    while True:
        head = await reader.readexactly(8)
        if int.from_bytes(head[4:]) not in _NO_ENCRYPTION:
            return head + await reader.readexactly(int.from_bytes(head[:4]) - 8)
        writer.write(b"N")
