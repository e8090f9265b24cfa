"""What a budget in Postgres that comes later finds out about the time before it, and out of which tables."""

from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from services.database.pool import open_pool
from services.ledger.adapters.postgres_budgets import PostgresBudgets, count_before
from services.ledger.adapters.postgres_identity import PostgresTenants
from services.ledger.adapters.postgres_rollups import PostgresRollups
from services.ledger.adapters.postgres_usage import PostgresUsage
from services.ledger.domain.budgets import Budget, Period
from tests.unit.ledger.samples import NOW, a_record, an_event


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
