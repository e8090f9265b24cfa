"""What a budget in Postgres that comes later finds out about the time before it, and out of which tables."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.postgres_budgets import PostgresBudgets, count_before
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_rollups import PostgresRollups
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.domain.budgets import Budget, Period
from tests.unit.ledger.samples import NOW, a_hold, a_record, an_event

KEY = "apiKeys/0000000000000001"
_RAW = """
    SELECT coalesce(sum(r.cost_micros), 0)::bigint
    FROM ledger.usage_records r LEFT JOIN ledger.holds h ON h.tenant = r.tenant AND h.hold_id = r.hold_id
    WHERE r.tenant = 'acme' AND coalesce(h.create_time, r.record_time) >= %(start)s
      AND CASE split_part(%(subject)s, '/', 1) WHEN 'projects' THEN r.project = %(subject)s
          WHEN 'jobs' THEN r.job = %(subject)s WHEN 'apiKeys' THEN coalesce(h.actor, r.actor) = %(subject)s
          ELSE true END
"""


def a_total(budget_id: str, subject: str) -> Budget:
    return Budget("acme", budget_id, subject, Period.TOTAL, 10**6, None, NOW, NOW, made_hard_micros=10**6)


async def test_a_total_that_comes_later_is_what_the_sums_say(database: Callable[[str], str]) -> None:
    async with await open_pool(database("ledger"), name="test") as pool:
        usage, budgets = PostgresUsage(pool), PostgresBudgets(pool)
        for tenant in ("acme", "other"):
            await PostgresTenants(pool).ensure(tenant, tenant, NOW)
        for number in range(4):
            record = replace(
                a_record(an_event(after_s=-7200 * number), cost_micros=10), project=f"projects/{number % 2}"
            )
            await usage.record([replace(record, event=replace(record.event, job=f"jobs/{number}"))])
            await usage.record([a_record(an_event(), cost_micros=3, tenant="other")])
            if number < 2:  # some are in the rollups, some are queued for them
                assert await PostgresRollups(pool).fold(1000)
        sums = {}
        for number, subject in enumerate(("tenants/acme", "projects/1", "jobs/0", "jobs/3", "jobs/none")):
            made = await budgets.create(a_total(f"b{number}", subject))
            sums[subject] = made.settled_micros
        assert sums == {"tenants/acme": 40, "projects/1": 20, "jobs/0": 10, "jobs/3": 10, "jobs/none": 0}


@pytest.mark.parametrize("subject", ["tenants/acme", "projects/p", "jobs/j"])
def test_a_total_reads_no_records(subject: str, database: Callable[[str], str]) -> None:
    values = {"tenant": "acme", "id": "b", "subject": subject, "start": NOW, "next": NOW}
    with psycopg.connect(database("ledger")) as connection:
        asked = f"EXPLAIN {count_before(subject, Period.TOTAL)}"
        plan = "\n".join(row[0] for row in connection.execute(asked.encode(), values).fetchall())
    assert "usage_rollups" in plan
    assert "usage_records" not in plan


async def test_whatever_its_period_and_subject_it_is_the_sum_of_the_records(database: Callable[[str], str]) -> None:
    """Calls around the borders of a day and a month: held before and settled after, by another key, late, early."""
    dsn = database("ledger")
    now = NOW + timedelta(days=1)  # noon of the second of a month
    keys, projects, jobs = (KEY, "apiKeys/0000000000000002"), ("", "projects/p"), ("", "jobs/j")
    async with await open_pool(dsn, name="test") as pool:
        holds, usage, budgets = PostgresHolds(pool), PostgresUsage(pool), PostgresBudgets(pool)
        await PostgresTenants(pool).ensure("acme", "acme", NOW)
        cost = 1
        for begun_h, took_h, maker, settler in product((-80, -37, -36, -13, -12, -1), (0, 0.5, 30), keys, keys):
            cost += 1
            time = now + timedelta(hours=begun_h)
            project, job = projects[cost % 2], jobs[cost // 2 % 2]
            hold = replace(
                a_hold(10**5), create_time=time, expire_time=time + timedelta(1), actor=maker, project=project, job=job
            )
            await holds.reserve(hold)
            told = replace(an_event(), occur_time=min(time + timedelta(hours=took_h), now), job=job)
            record = replace(a_record(told, cost_micros=cost, hold_id=hold.hold_id), actor=settler, project=project)
            await holds.settle(hold, replace(record, record_time=told.occur_time))
            # Without a hold, told at once or after weeks.
            late = replace(an_event(), occur_time=time - timedelta(hours=300 * (cost % 2)), job=job)
            await usage.record([replace(a_record(late, cost_micros=1000 * cost), actor=settler, record_time=time)])
            if cost % 5 == 0:
                await PostgresRollups(pool).fold(100)
        await holds.close()
        sums = {}
        for number, (subject, period) in enumerate(product(("tenants/acme", "projects/p", KEY, "jobs/j"), Period)):
            made = await budgets.create(replace(a_total(f"b{number}", subject), period=period, create_time=now))
            with psycopg.connect(dsn) as connection:
                connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
                values = {"subject": subject, "start": period.start(now)}
                ((raw,),) = connection.execute(_RAW, values).fetchall()
            assert made.settled_micros == raw, (subject, period)
            sums[subject, period] = raw
        assert len(set(sums.values())) == len(sums)  # each asks for something else


@pytest.mark.parametrize("period", [Period.DAY, Period.MONTH])
@pytest.mark.parametrize("subject", ["tenants/acme", "projects/p", KEY, "jobs/j"])
def test_a_period_reads_what_was_recorded_since_it_began(
    subject: str, period: Period, database: Callable[[str], str]
) -> None:
    assert_by_record_time(subject, period, database("ledger"))


def test_a_total_of_a_key_reads_what_was_recorded_since_it_was_made(database: Callable[[str], str]) -> None:
    assert_by_record_time(KEY, Period.TOTAL, database("ledger"))


def assert_by_record_time(subject: str, period: Period, dsn: str) -> None:
    values = {"tenant": "acme", "id": "b", "subject": subject, "start": NOW, "next": NOW}
    with psycopg.connect(dsn) as connection:
        # Without other indexes, a scan of a table is all that is left where this one does not fit.
        for setting in ("enable_seqscan", "enable_indexscan", "enable_indexonlyscan"):
            connection.execute(f"SET {setting} = off".encode())
        connection.execute("DROP INDEX ledger.usage_records_by_time")
        asked = f"EXPLAIN {count_before(subject, period)}"
        plan = "\n".join(row[0] for row in connection.execute(asked.encode(), values).fetchall())
        connection.rollback()
    assert "by_record_time" in plan, plan
    assert "Seq Scan on usage_records" not in plan, plan
