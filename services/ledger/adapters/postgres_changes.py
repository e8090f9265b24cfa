"""Hears of revoked keys and switched-off tenants, over one connection of its own, and tells the key cache."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from services.ledger.domain.fresh_cache import Follower
from services.ledger.domain.key_cache import KeyCache
from services.runtime.errors import Unavailable

HEARTBEAT_S = 0.3
"""How often the connection proves that it is alive; together with its time-out below key_cache.HEARD_WITHIN_S."""
_HEARTBEAT_TIMEOUT_S = 0.5
_CONNECT_TIMEOUT_S = 3
_RECONNECT_S = 0.25
_OF_NO_KEY = ("sessions", "signingKeys", "identityProviders", "requestKeys", "clientCertificates", "browserSessions")
"""Kinds of changes that leave every API key as it was."""

log = structlog.get_logger()


class PostgresAccessChanges:
    """Listens for as long as `run` runs, and connects again when the connection is lost."""

    def __init__(
        self, dsn: str, *, cache: KeyCache, monotonic_s: Callable[[], float], followers: Sequence[Follower] = ()
    ) -> None:
        self._dsn = dsn
        self._cache = cache
        self._followers = followers
        self._monotonic_s = monotonic_s

    async def check(self) -> None:
        """Raises Unavailable while changes are not heard."""
        if not self._cache.hearing:
            raise Unavailable("NOT_LISTENING", "Changes of keys are not heard.")

    async def run(self) -> None:
        """Listens until cancelled."""
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError, TimeoutError) as exc:
                log.warning("listener_lost", error=type(exc).__name__)
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            connection = await AsyncConnection.connect(
                self._dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S, application_name="pagemesh-listener"
            )
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await connection.execute("LISTEN ledger_access")
            # What changed before is not told any more.
            self._cache.clear()
            for follower in self._followers:
                follower.missed()
            log.info("listening")
            while True:
                await self._prove_alive(connection)
                async for notice in connection.notifies(timeout=HEARTBEAT_S):
                    self._apply(notice.payload)
        finally:
            await connection.close()

    async def _prove_alive(self, connection: AsyncConnection[tuple[Any, ...]]) -> None:
        # Sent after the notices of everything that was committed before: the answer means that they were delivered.
        asked_s = self._monotonic_s()
        async with asyncio.timeout(_HEARTBEAT_TIMEOUT_S):
            await connection.execute("SELECT 1")
        self._cache.heard(asked_s)

    def _apply(self, payload: str) -> None:
        kind, _, name = payload.partition("/")
        if kind == "apiKeys":
            self._cache.drop_key(name)
        elif kind == "tenants":
            self._cache.drop_tenant(name)
        elif kind not in _OF_NO_KEY:
            self._cache.clear()
        for follower in self._followers:
            follower.changed(kind, name)
