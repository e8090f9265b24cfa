"""Readiness over a real database: one that is not migrated, one that is newer, and one that freezes; and its pool."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from structlog.testing import capture_logs

from services.database import schema as module
from services.database.migrate import migrate
from services.database.pool import Pool, open_pool, single
from services.database.schema import SchemaCheck
from services.readiness import component
from services.runtime.errors import Unavailable
from services.runtime.health import Health
from tests.conftest import Databases
from tests.integration.runtime.conftest import Start
from tests.integration.runtime.test_server import http_get
from tests.integration.summarizer.tcp_proxy import TcpProxy
from tests.old_schema import upgrade_to

MIGRATIONS = Path(__file__).parents[3] / "services" / "extractor" / "migrations"


@pytest.fixture
def empty(postgres_server: Databases) -> str:
    """A database with the extractor's schema and no table."""
    return postgres_server.dsn("extractor", postgres_server.create_empty())


@pytest.fixture
async def pool(empty: str) -> AsyncIterator[Pool]:
    opened = await open_pool(empty, name="test", max_size=2)
    yield opened
    await opened.close()


@pytest.fixture
async def pool_of_one(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    opened = await open_pool(database("extractor"), name="test", max_size=1)
    yield opened
    await opened.close()


async def until_ready(health: Health) -> None:
    while not health.ready:
        await health.probe()


async def test_a_service_is_ready_once_its_schema_is_migrated(
    empty: str, pool: Pool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component, "log", structlog.get_logger())
    health = Health()
    check = SchemaCheck(pool, service="extractor", directory=MIGRATIONS)
    health.add("database", check)
    running = await start(health=health)
    for found in ("none", "0002"):
        if found != "none":
            upgrade_to(empty, "extractor", found)
        with capture_logs() as lines:
            await health.probe()
        code, body = await http_get(running.server.http_port, "/readyz")
        told = json.loads(body)["components"]["database"]
        assert (code, told["up"], told["reason"]) == (503, False, "SCHEMA_BEHIND")
        assert f"is at revision {found}, and this release needs 0" in told["message"]
        assert "`python -m services.extractor migrate`" in told["message"]
        assert lines == []  # told when it went down, before the server had started
    migrate(empty, directory=MIGRATIONS, schema="extractor")
    await health.probe()
    code, body = await http_get(running.server.http_port, "/readyz")
    assert (code, "reason" in json.loads(body)["components"]["database"]) == (200, False)


async def test_a_newer_schema_is_right_and_one_that_was_right_is_trusted_for_a_while(
    database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = database("extractor")
    with psycopg.connect(dsn, autocommit=True) as connection:
        pool = await open_pool(dsn, name="test", max_size=2)
        check = SchemaCheck(pool, service="extractor", directory=MIGRATIONS)
        connection.execute("UPDATE extractor.schema_version SET version_num = '9999'")
        await check()
        connection.execute("UPDATE extractor.schema_version SET version_num = '0001'")
        await check()
        monkeypatch.setattr(module, "LOOK_AGAIN_S", 0)
        with pytest.raises(Unavailable, match="SCHEMA_BEHIND"):
            await check()
        await pool.close()


async def test_a_database_that_freezes_is_down_after_two_probes_and_up_again_when_it_goes_on(
    database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg asks it to cancel, and waits for that as well."""
    monkeypatch.setattr(component, "PROBE_TIMEOUT_S", 0.3)
    dsn = database("extractor")
    where = conninfo_to_dict(dsn)
    async with TcpProxy(str(where["host"]), int(str(where["port"]))).running() as wire:
        pool = await open_pool(make_conninfo(dsn, host="127.0.0.1", port=wire.port), name="test", max_size=2)
        check, under_way = SchemaCheck(pool, service="extractor", directory=MIGRATIONS), 0

        async def asking() -> None:
            nonlocal under_way
            under_way += 1
            try:
                await check()
            finally:
                under_way -= 1

        health = Health()
        health.add("database", asking)
        async with asyncio.timeout(60):
            await until_ready(health)
            wire.freeze()
            await health.probe()
            assert (health.ready, under_way) == (True, 1), "the driver is not done with the question"
            await health.probe()
            assert not health.ready
            wire.mend()
            await until_ready(health)
        await pool.close()


async def test_a_transaction_stays_one_whatever_its_connection_did_before(pool_of_one: Pool) -> None:
    """A connection stays in autocommit after a single statement; what comes next must not notice."""
    async with single(pool_of_one) as connection:
        await connection.execute("CREATE TEMP TABLE kept (n int)")
    with pytest.raises(ZeroDivisionError):
        async with pool_of_one.connection() as connection:
            await connection.execute("INSERT INTO kept VALUES (1)")
            raise ZeroDivisionError
    async with single(pool_of_one) as connection:
        await connection.execute("INSERT INTO kept VALUES (2)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("INSERT INTO kept VALUES (1/0)")
    async with pool_of_one.connection() as connection:
        await connection.execute("INSERT INTO kept VALUES (3)")
    async with single(pool_of_one) as connection:
        found = await (await connection.execute("SELECT array_agg(n ORDER BY n) FROM kept")).fetchone()
    assert found == ([2, 3],)


async def test_a_connection_that_is_left_in_the_middle_of_something_is_nobody_elses(pool_of_one: Pool) -> None:
    async with single(pool_of_one) as connection:
        await connection.execute("BEGIN")
        broken_off = connection.info.backend_pid
    with pytest.raises(TimeoutError):
        async with single(pool_of_one) as connection, asyncio.timeout(0.2):
            await connection.execute("SELECT pg_sleep(60)")
    async with pool_of_one.connection() as connection:
        found = await (await connection.execute("SELECT pg_backend_pid(), 7")).fetchone()
    assert found is not None
    assert (found[0] != broken_off, found[1]) == (True, 7)


@pytest.mark.parametrize("take", [single, Pool.connection])
async def test_a_connection_that_is_left_in_a_pipeline_is_nobody_elses(
    pool_of_one: Pool, take: Callable[[Pool], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]
) -> None:
    """psycopg leaves it so where the end of the pipeline is cancelled and the server does not even answer that. A
    transaction over it looks done and is not."""
    async with pool_of_one.connection() as connection:
        left_open = connection.info.backend_pid
    connection.pgconn.enter_pipeline_mode()
    async with take(pool_of_one) as another:
        found = await (await another.execute("SELECT pg_backend_pid(), 7")).fetchone()
    assert found is not None
    assert (found[0] != left_open, found[1]) == (True, 7)
