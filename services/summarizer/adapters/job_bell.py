"""Rings when Postgres says that a job was queued, or that one moved on."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

import psycopg
import structlog

from services.summarizer.adapters.postgres_job_rows import EVENT_CHANNEL, QUEUE_CHANNEL
from services.summarizer.domain.job_ports import QUEUED

_CONNECT_TIMEOUT_S = 3
_ALIVE_EVERY_S = 20.0
_PAUSE_S = 1.0

log = structlog.get_logger()


class Bells:
    """Who listens to what within this process. JobBell for the memory's own store; `ring` is for who changes it."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Event]] = defaultdict(set)

    @contextlib.contextmanager
    def listening(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the topic rings."""
        event = asyncio.Event()
        self._listeners[topic].add(event)
        try:
            yield event
        finally:
            self._listeners[topic].discard(event)
            if not self._listeners[topic]:
                del self._listeners[topic]

    def ring(self, topic: str) -> None:
        """Wakes who listens to it."""
        for event in self._listeners.get(topic, ()):
            event.set()

    def ring_all(self) -> None:
        """Wakes everybody: nobody knows what was missed."""
        for topic in list(self._listeners):
            self.ring(topic)


class PostgresJobBell(Bells):
    """JobBell over LISTEN, with one connection for the process that is made again when it breaks."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._dsn = dsn

    async def run(self) -> None:
        """Listens until cancelled."""
        while True:
            try:
                await self._listen()
            except (OSError, psycopg.Error) as exc:
                log.warning("job_bell_broken", error=type(exc).__name__)
            await asyncio.sleep(_PAUSE_S)

    async def _listen(self) -> None:
        connecting = psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S, application_name="pagemesh-job-bell"
        )
        async with await connecting as connection:
            for channel in (QUEUE_CHANNEL, EVENT_CHANNEL):
                await connection.execute(f"LISTEN {channel}".encode())
            self.ring_all()
            while True:
                async for notice in connection.notifies(timeout=_ALIVE_EVERY_S):
                    self.ring(QUEUED if notice.channel == QUEUE_CHANNEL else notice.payload)
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await connection.execute("SELECT 1")
