"""The table that was there becomes partitions; months are made and removed."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from services.database.migrate import migrate
from services.database.pool import open_pool
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_partitions import PostgresPartitions
from services.ledger.adapters.postgres_rollups import PostgresRollups
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.adapters.postgres_usage_reports import PostgresUsageReports
from services.ledger.domain.usage_upkeep import UsageUpkeep
from services.ledger.domain.usage_values import Dimension, Grouping
from services.ledger.domain.usage_window import UsageWindow, month_of
from services.ledger.domain.values import Selection, UsageRecord
from services.runtime.errors import AlreadyExists
from tests.conftest import Databases
from tests.integration.ledger.conftest import ROOT
from tests.old_schema import upgrade_to
from tests.unit.ledger.samples import NOW, FixedClock, a_record, an_event

_MIGRATIONS = ROOT / "services" / "ledger" / "migrations"
_OLD_ROWS = """
    INSERT INTO ledger.usage_records (tenant, event_id, model, input_tokens, output_tokens, operation, document,
        request_id, occur_time, tags, cost_micros, price_book_version, hold_id, actor, record_time, project, job)
    SELECT 't' || n %% 3, gen_random_uuid(), 'm/m', n, 1, 'op', '', '', %s + n * interval '1 hour',
           '{"team": "blue"}', n, 1, CASE n %% 2 WHEN 0 THEN gen_random_uuid() END, 'a', now(), '', 'jobs/' || n %% 5
    FROM generate_series(1, %s) n
"""


@pytest.fixture
def old_database(postgres_server: Databases) -> Iterator[str]:
    """A ledger's database before it had partitions, with records of 15 months, more than a batch of them."""
    name = postgres_server.create_empty()
    dsn = postgres_server.dsn("ledger", name)
    upgrade_to(dsn, "ledger", "0003")
    with psycopg.connect(dsn) as connection:
        for tenant in range(3):
            connection.execute("INSERT INTO ledger.tenants VALUES (%s, 'x', true, now())", (f"t{tenant}",))
        connection.execute(_OLD_ROWS, (datetime(2025, 9, 1, tzinfo=UTC), 10_800))
    yield dsn
    postgres_server.drop(name)


async def test_records_of_before_are_the_first_partition(old_database: str) -> None:
    with psycopg.connect(old_database) as connection:
        upgrade_to(old_database, "ledger", "0005")
        # A replica of the release before goes on recording while the ids are copied.
        connection.execute(_OLD_ROWS, (datetime(2026, 1, 1, tzinfo=UTC), 30))
        connection.commit()
        held = connection.execute(
            "SELECT tenant, event_id, occur_time FROM ledger.usage_records ORDER BY occur_time, event_id LIMIT 1"
        ).fetchone()
        connection.commit()
        migrate(old_database, directory=_MIGRATIONS, schema="ledger")
        assert held is not None
        with pytest.raises(psycopg.errors.NotNullViolation):
            connection.execute("SELECT set_config('pagemesh.tenant', 't1', false)")
            connection.execute(_OLD_ROWS, (datetime(2026, 1, 1, tzinfo=UTC), 1))
    pool = await open_pool(old_database, name="test")
    usage, reports, rollups = PostgresUsage(pool), PostgresUsageReports(pool), PostgresRollups(pool)
    while await rollups.fold(5000):
        pass
    wanted = {tenant: [n for n in (*range(1, 10_801), *range(1, 31)) if n % 3 == tenant] for tenant in range(3)}
    for tenant, numbers in wanted.items():
        for by in ((Dimension.DAY,), (Dimension.JOB,)):
            report = await reports.report(Selection(f"t{tenant}"), None, 1, Grouping(by))
            assert (report.total_records, report.total_cost_micros) == (len(numbers), sum(numbers))
            assert sum(group.records for group in report.groups) == len(numbers)
    tenant_name, event_id, _ = held
    with pytest.raises(AlreadyExists, match="EVENT_ID_REUSED"):
        await usage.record([a_record(an_event(event_id), tenant=tenant_name)])
    later = replace_time(datetime.now(UTC) + timedelta(days=100))
    assert (await usage.record([later, a_record(an_event(), tenant="t1")])).recorded == 2
    with psycopg.connect(old_database) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', 't1', false)")
        tables = connection.execute("SELECT DISTINCT tableoid::regclass::text FROM ledger.usage_records").fetchall()
    assert {name.removeprefix("ledger.") for (name,) in tables} == {
        "usage_records_before",
        f"usage_records_{later.event.occur_time:y%Ym%m}",
    }
    await pool.close()


def replace_time(time: datetime) -> UsageRecord:
    """A record of t1 at that time."""
    return a_record(replace(an_event(), occur_time=time.replace(microsecond=0)), tenant="t1")


async def test_an_empty_table_leaves_nothing_behind(database: Callable[[str], str]) -> None:
    with psycopg.connect(database("ledger")) as connection:
        names = [n for (n,) in connection.execute("SELECT name FROM ledger.usage_partitions ORDER BY begin_time")]
    assert len(names) == 4
    assert names[0] == f"usage_records_{datetime.now(UTC):y%Ym%m}"


async def test_months_past_their_retention_are_dropped_and_their_sums_stay(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    pool = await open_pool(dsn, name="test")
    await PostgresTenants(pool).ensure("acme", "acme", NOW)
    usage, partitions, rollups = PostgresUsage(pool), PostgresPartitions(pool), PostgresRollups(pool)
    old, kept = a_record(an_event(after_s=-90 * 86_400)), a_record(an_event())
    await usage.record([old, kept, a_record(an_event(after_s=-90 * 86_400 + 4000))])
    clock = FixedClock(NOW)
    upkeep = UsageUpkeep(rollups=rollups, partitions=partitions, window=UsageWindow(2), clock=clock)
    assert await upkeep.drop_months() == 0
    clock.now = NOW + timedelta(days=31)
    assert await upkeep.drop_months() == 1
    assert await upkeep.drop_months() == 0
    reports = PostgresUsageReports(pool)
    report = await reports.report(Selection("acme"), None, 10, Grouping((Dimension.DAY,)))
    assert [r.event.event_id for r in report.records] == [kept.event.event_id]
    assert (report.total_records, len(report.groups)) == (3, 2)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        ids = connection.execute("SELECT event_id FROM ledger.usage_ids").fetchall()
        left = {begin for (begin,) in connection.execute("SELECT begin_time FROM ledger.usage_partitions")}
    assert ids == [(kept.event.event_id,)]
    assert month_of(old.event.occur_time) not in left
    assert month_of(NOW) in left
    await pool.close()


async def test_two_replicas_make_and_drop_the_same_month(database: Callable[[str], str]) -> None:
    dsn = database("ledger")
    pools = [await open_pool(dsn, name=name) for name in ("one", "two")]
    replicas = [PostgresPartitions(pool) for pool in pools]
    months = [NOW + timedelta(days=31 * n) for n in range(6)]
    made = await asyncio.gather(*(replica.ensure(months) for replica in replicas))
    assert sum(made) == 6
    gone = 0
    while gone < 6:
        dropped = await asyncio.gather(*(replica.drop_one(NOW + timedelta(days=190)) for replica in replicas))
        gone += sum(bool(done) for done in dropped)
    assert await replicas[0].drop_one(NOW + timedelta(days=190)) is None
    # A third one, since a replica that dropped nothing itself still remembers the month.
    assert await PostgresPartitions(pools[1]).ensure([NOW]) == 1
    for pool in pools:
        await pool.close()


def test_the_id_of_a_hold_is_one_in_all_months(database: Callable[[str], str]) -> None:
    hold_id = uuid.uuid4()
    insert = "INSERT INTO ledger.usage_ids (tenant, event_id, occur_time, hold_id) VALUES ('acme', %s, %s, %s)"
    with psycopg.connect(database("ledger")) as connection:
        connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        connection.execute(insert, (uuid.uuid4(), NOW, hold_id))
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(insert, (uuid.uuid4(), NOW + timedelta(days=60), hold_id))
