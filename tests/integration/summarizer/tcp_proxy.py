"""A TCP proxy that a test can cut or freeze, in either direction: what a network does on a bad day."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class TcpProxy:
    """Stands before one server. It takes connections unless it is cut, and passes bytes unless it is frozen."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._to_server = asyncio.Event()
        self._to_client = asyncio.Event()
        self._to_server.set()
        self._to_client.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self.port = 0
        self.holding = False
        """Whether bytes are being held back."""
        self.taken = 0
        """Connections that were made to it."""

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Ends every connection and takes no new one."""
        self._refusing = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Takes connections and passes bytes again."""
        self._refusing = False
        self._to_server.set()
        self._to_client.set()

    def freeze(self, *, requests: bool = True, answers: bool = True) -> None:
        """Holds bytes back; connections stay open and nobody is told."""
        if requests:
            self._to_server.clear()
        if answers:
            self._to_client.clear()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["TcpProxy"]:
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        task = asyncio.create_task(self._accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self._refusing:
                await self._pass_on(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            return  # the server itself is away
        self._writers.add(server_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer, self._to_server))
                group.create_task(self._pump(server_reader, writer, self._to_client))
        except* OSError:
            pass  # one side broke off: both ends are closed below
        finally:
            self._writers.discard(server_writer)
            server_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        while data := await reader.read(65536):
            self.holding = not gate.is_set()
            await gate.wait()
            writer.write(data)
            await writer.drain()
        # One side is done: the other is told by closing its half.
        if writer.can_write_eof():
            writer.write_eof()
