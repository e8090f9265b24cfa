"""What every AnomalyStore promises, in memory and in Postgres, and the wall that its reading over all tenants has."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from services.database.pool import Pool, open_pool
from services.ledger.adapters.memory import MemoryLedger, MemoryTenants, MemoryUsage
from services.ledger.adapters.memory_anomalies import MemoryAnomalies
from services.ledger.adapters.memory_usage import MemoryRollups
from services.ledger.adapters.postgres_anomalies import SPENDING, PostgresAnomalies
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_rollups import FOLD, PostgresRollups
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.adapters.postgres_webhooks import PostgresWebhooks
from services.ledger.domain.cost_anomalies import AnomalyStore, CostAnomaly, Spending
from services.ledger.domain.ports import Rollups, TenantStore, UsageStore
from services.ledger.domain.usage_spans import DAY
from services.ledger.domain.webhooks import Webhook
from tests.unit.ledger.samples import NOW, STORES, a_record, an_event

TODAY = NOW.replace(hour=0)
ANOMALY = CostAnomaly("acme", TODAY, 3_400_000, 1_000_000, 3_000_000, NOW)


@dataclass
class Books:
    anomalies: AnomalyStore
    usage: UsageStore
    rollups: Rollups
    tenants: TenantStore

    async def spend(self, tenant: str, days_ago: int, *costs: int) -> None:
        await self.tenants.ensure(tenant, tenant, NOW)
        events = [an_event(after_s=n - days_ago * 86_400) for n in range(len(costs))]
        records = [a_record(e, tenant=tenant, cost_micros=c) for e, c in zip(events, costs, strict=True)]
        await self.usage.record(records)

    async def spending(self, *, above: int = 100, after: str = "", limit: int = 10) -> list[Spending]:
        return list(await self.anomalies.spending(TODAY, above_micros=above, after=after, limit=limit))


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    opened = await open_pool(database("ledger"), name="test", max_size=8)
    yield opened
    await opened.close()


@pytest.fixture(params=STORES)
def books(request: pytest.FixtureRequest) -> Books:
    if request.param == "memory":
        ledger = MemoryLedger()
        return Books(MemoryAnomalies(ledger), MemoryUsage(ledger), MemoryRollups(), MemoryTenants(ledger))
    pool: Pool = request.getfixturevalue("pool")
    return Books(PostgresAnomalies(pool), PostgresUsage(pool), PostgresRollups(pool), PostgresTenants(pool))


async def test_a_dear_day_comes_with_the_four_weeks_before_it(books: Books) -> None:
    for days_ago in (40, 29, 28, 7):
        await books.spend("acme", days_ago, 5, 6)
    await books.spend("acme", 0, 60, 41)
    await books.spend("acme", -1, 999)
    await books.spend("other", 0, 100)
    wanted = Spending("acme", TODAY - 40 * DAY, {TODAY - 28 * DAY: 11, TODAY - 7 * DAY: 11, TODAY: 101})
    # The same when no sum, some, or all of them are in the rollups.
    for fold in (0, 2, 100):
        await books.rollups.fold(fold)
        assert await books.spending() == [wanted]
    await books.spend("acme", 0, 7)
    await books.spend("acme", 50, 1)
    first = Spending("acme", TODAY - 50 * DAY, {**wanted.costs, TODAY: 108})
    assert await books.spending() == [first]


async def test_tenants_come_in_parts_and_none_is_left_out(books: Books) -> None:
    for n in range(5):
        await books.spend(f"t{n}", 0, 100 + n)
    await books.rollups.fold(2)
    assert [s.tenant for s in await books.spending()] == ["t1", "t2", "t3", "t4"]
    assert [s.tenant for s in await books.spending(limit=2)] == ["t1", "t2"]
    assert [s.tenant for s in await books.spending(after="t2", limit=2)] == ["t3", "t4"]
    assert await books.spending(after="t4") == []


async def test_a_day_is_told_of_once(books: Books) -> None:
    await books.spend("acme", 0, 1)
    told = await asyncio.gather(*(books.anomalies.tell(replace(ANOMALY, cost_micros=5 * 10**6 + n)) for n in range(8)))
    assert sorted(told) == [False] * 7 + [True]
    assert await books.anomalies.tell(replace(ANOMALY, day=TODAY + DAY))
    assert await books.anomalies.tell(replace(ANOMALY, tenant="other"))


async def test_each_webhook_of_the_tenant_gets_one_message(pool: Pool, database: Callable[[str], str]) -> None:
    store = PostgresAnomalies(pool)
    hooks = PostgresWebhooks(pool)
    for tenant in ("acme", "other"):
        await PostgresTenants(pool).ensure(tenant, tenant, NOW)
    for tenant, webhook in (("acme", "a" * 16), ("acme", "b" * 16), ("acme", "c" * 16), ("other", "d" * 16)):
        await hooks.add(Webhook(tenant, webhook, "https://example.com", NOW))
    await hooks.delete("acme", "c" * 16, NOW)
    for _ in range(2):
        await store.tell(ANOMALY)
    await store.tell(replace(ANOMALY, day=TODAY - DAY, usual_micros=0))
    async with pool.connection() as connection:
        await connection.execute("SELECT set_config('pagemesh.across', 'webhooks', true)")
        cursor = await connection.execute("SELECT tenant, webhook, body FROM ledger.webhook_deliveries")
        rows = await cursor.fetchall()
    assert sorted(row[:2] for row in rows) == [("acme", "a" * 16)] * 2 + [("acme", "b" * 16)] * 2
    messages = [json.loads(body) for _, _, body in rows]
    assert {message["type"] for message in messages} == {"cost.anomaly_detected"}
    assert {
        "tenant": "tenants/acme",
        "day": "2026-03-01",
        "currency": "USD",
        "cost_micros": 3_400_000,
        "usual_micros": 1_000_000,
        "factor_micros": 3_400_000,
        "threshold_micros": 3_000_000,
    } in [message["data"] for message in messages]
    assert sum(message["data"]["factor_micros"] is None for message in messages) == 2


@pytest.mark.parametrize("change", ["UPDATE ledger.{} SET day = day", "DELETE FROM ledger.{}", "TRUNCATE ledger.{}"])
def test_what_is_told_is_never_changed(database: Callable[[str], str], change: str) -> None:
    with psycopg.connect(database("ledger")) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(change.format("cost_anomalies").encode())


async def test_looking_across_sees_sums_of_days_only_and_changes_none(pool: Pool) -> None:
    usage, tenants = PostgresUsage(pool), PostgresTenants(pool)
    for tenant in ("acme", "other"):
        await tenants.ensure(tenant, tenant, NOW)
        await usage.record([a_record(an_event(tags={"team": "blue"}), tenant=tenant)])
    await PostgresRollups(pool).fold(2)
    tables = (
        "usage_rollups",
        "usage_deltas",
        "usage_records",
        "usage_ids",
        "webhooks",
        "webhook_deliveries",
        "tenants",
    )
    async with pool.connection() as connection:
        await bind(connection, "", "cost_anomalies")
        seen: dict[str, set[tuple[Any, ...]]] = {}
        for table in tables:
            columns = "facet, span_hours" if table == "usage_rollups" else "1"
            columns = "facet" if table == "usage_deltas" else columns
            cursor = await connection.execute(f"SELECT {columns} FROM ledger.{table}".encode())
            if found := set(await cursor.fetchall()):
                seen[table] = found
        assert seen == {"usage_rollups": {("", 24)}, "usage_deltas": {("",)}}
        for table in ("usage_rollups", "usage_deltas"):
            for change in (f"DELETE FROM ledger.{table}", f"UPDATE ledger.{table} SET records = 0"):
                assert (await connection.execute(change.encode())).rowcount == 0


async def bind(connection: psycopg.AsyncConnection[Any], tenant: str, across: str) -> None:
    await connection.execute(
        "SELECT set_config('pagemesh.tenant', %s, true), set_config('pagemesh.across', %s, true)", (tenant, across)
    )


def test_looking_across_has_its_indexes(database: Callable[[str], str]) -> None:
    """With 300 days of 200 tenants in the rollups and a long queue, no table is read whole."""
    with psycopg.connect(database("ledger"), autocommit=True) as connection:
        connection.execute("SELECT set_config('pagemesh.across', 'usage_rollups', false)")
        connection.execute(
            "INSERT INTO ledger.usage_deltas SELECT %s - n %% 300 * interval '1 day', 't' || n %% 200, '', '', 'm/m',"
            " '', 'a' || n / 300, '', 'op', 1, 1, 1, 1 FROM generate_series(1, 60000) n",
            (NOW,),
        )
        connection.execute(FOLD, (60_000,))
        connection.execute(
            "INSERT INTO ledger.usage_deltas SELECT %s - n %% 300 * interval '1 hour', 't' || n %% 200,"
            " CASE n %% 5 WHEN 0 THEN '' ELSE 'tag:' || n %% 5 END, '', 'm/m', '', 'a', '', 'op', 1, 1, 1, 1"
            " FROM generate_series(1, 20000) n",
            (NOW,),
        )
        connection.execute("VACUUM ANALYZE ledger.usage_rollups, ledger.usage_deltas")
        connection.execute("SELECT set_config('pagemesh.across', 'cost_anomalies', false)")
        values = {
            "begin": TODAY - 28 * DAY,
            "day": TODAY,
            "end": TODAY + timedelta(days=1),
            "above": 1,
            "after": "",
            "limit": 500,
        }
        rows = connection.execute(sql.SQL("EXPLAIN ") + sql.SQL(SPENDING), values).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    for index in ("usage_rollups_by_day", "usage_rollups_pkey", "usage_deltas_by_tenant"):
        assert index in plan, plan
