"""Pools of Postgres connections with limits, and what their failures mean to callers."""

import contextlib
import select
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from services.database.pool_metrics import POOLS
from services.runtime.errors import Unavailable

CONNECT_TIMEOUT_S = 3
ACQUIRE_TIMEOUT_S = 5.0
RECONNECT_TIMEOUT_S = 5.0
"""One series of attempts with growing pauses; short, so that the pauses stay short when the server is back."""
STATEMENT_TIMEOUT_MS = 10_000
ANSWER_TIMEOUT_S = 30.0
"""How long a server may take for what it was told at once, which may be a few statements in a pipeline. It ends each of
them itself after STATEMENT_TIMEOUT_MS, unless it hangs, or the network swallows what is sent: a call would then wait as
long as its caller does. The edge gives its callers as long."""
_LOOK_EVERY_S = 0.1
_CHECK_EVERY_S = 1.0
"""How long a connection is trusted after it was found alive, unless its socket has something to say, as it has when the
server went. Asking at every use costs a round trip, a third of what a short read takes."""
_OPTIONS = (
    f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000"
    " -c timezone=UTC"
)


# Besides what psycopg calls operational: a server that became a replica, and a session that it ended.
_ABSENT = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    PoolTimeout,
    PoolClosed,
    TooManyRequests,
)


class BoundedConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """Waits ANSWER_TIMEOUT_S for the answers to what is sent together. It is closed then: what the server made of it is
    not known."""

    _found_alive = -_CHECK_EVERY_S

    async def check(self) -> None:
        """Asks the server for a sign of life, unless it gave one a moment ago. Raises OperationalError, and closes a
        connection that was left in the middle of a pipeline, as one is whose end was broken off while the server hung:
        what is sent over it waits for a sync that nobody sends, and is neither refused nor done."""
        if self.pgconn.pipeline_status != PipelineStatus.OFF:
            await self.close()
            raise psycopg.OperationalError("the connection was left in the middle of a pipeline")
        now = time.monotonic()
        if now - self._found_alive >= _CHECK_EVERY_S or self._speaks():
            await Pool.check_connection(self)
            self._found_alive = now

    def _speaks(self) -> bool:
        """Whether there is something to read from a connection that nobody uses: its end, most likely."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def wait(self, gen: Any, interval: float = _LOOK_EVERY_S, timeout: float | None = None) -> Any:
        """As psycopg's. Raises OperationalError where no answer comes."""
        try:
            return await super().wait(gen, interval, ANSWER_TIMEOUT_S if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # private, and what psycopg documents that `wait` raises
            if timeout is None:
                # Now, without a rollback or a cancellation, which would wait for the same server.
                self.pgconn.finish()
            raise


class Pool(AsyncConnectionPool[BoundedConnection]):
    """Connections for a transaction, from `connection`, or for a single statement, from `single`. Each stays as it was
    last used until somebody wants it otherwise: each turn of autocommit costs a good part of a short read."""

    @contextlib.asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[BoundedConnection]:
        """As psycopg_pool's: what is executed is one transaction, which an exception rolls back."""
        async with super().connection(timeout) as connection:
            if connection.autocommit:
                await connection.set_autocommit(False)
            yield connection


async def open_pool(dsn: str, *, name: str, min_size: int = 1, max_size: int = 20) -> Pool:
    """A pool that connects in the background: a database that is down at the start is waited for, not fatal."""
    pool = Pool(
        dsn,
        connection_class=BoundedConnection,
        name=name,
        min_size=min_size,
        max_size=max_size,
        max_waiting=max_size * 16,
        timeout=ACQUIRE_TIMEOUT_S,
        reconnect_timeout=RECONNECT_TIMEOUT_S,
        # A connection that died with the server is found out here and not by the request that gets it.
        check=BoundedConnection.check,
        kwargs={"connect_timeout": CONNECT_TIMEOUT_S, "options": _OPTIONS, "application_name": f"pagemesh-{name}"},
        open=False,
    )
    await pool.open(wait=False)
    POOLS.add(pool)
    return pool


@contextlib.asynccontextmanager
async def single(pool: Pool) -> AsyncIterator[BoundedConnection]:
    """A connection for one statement that is a transaction by itself, or for messages of several that begin and end
    one: a single round trip each, and much less work for psycopg than a transaction of several in a pipeline."""
    connection = await pool.getconn()
    try:
        if not connection.autocommit:
            await connection.set_autocommit(True)
        yield connection
    finally:
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            await connection.close()  # broken off in the middle: nobody is to get it as it is
        await pool.putconn(connection)


@contextlib.contextmanager
def translate(operation: str) -> Iterator[None]:
    """Turns an absent or overloaded database into Unavailable; mistakes of ours pass and become INTERNAL."""
    try:
        yield
    except _ABSENT as exc:
        raise Unavailable(
            "DATABASE_UNAVAILABLE",
            "The database does not answer. Try the same request again.",
            retry_after_s=1.0,
            metadata={"operation": operation},
        ) from exc


async def ping(pool: Pool) -> None:
    """Raises where the database does not answer."""
    async with pool.connection() as connection:
        await connection.execute("SELECT 1")
