"""Transactions that act for one tenant: the policies of the tables show them nothing of another."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from psycopg import AsyncConnection

from services.database.pool import Pool
from services.ledger.adapters.postgres_rows import BIND_TENANT, WORK_ACROSS

Connection = AsyncConnection[tuple[Any, ...]]


@contextlib.asynccontextmanager
async def acting_for(pool: Pool, tenant: str) -> AsyncIterator[Connection]:
    """A transaction of the tenant; its first statement, and what is executed before the first fetch, are one round
    trip."""
    async with pool.connection() as connection, connection.pipeline(), connection.transaction():
        await connection.execute(BIND_TENANT, (tenant,))
        yield connection


@contextlib.asynccontextmanager
async def acting_for_operator(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction that sees all tenants, themselves only, and changes none."""
    async with pool.connection() as connection, connection.pipeline(), connection.transaction():
        await connection.execute(WORK_ACROSS, ("operator",))
        yield connection
