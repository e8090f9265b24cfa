"""What a batch of records does to budgets and months, in memory and in Postgres."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from services.ledger.domain.budgets import Budget, Period
from services.ledger.domain.values import Selection
from tests.unit.ledger.samples import NOW, STORES, Stores, a_record, an_event, open_stores

DAY_S = 86_400


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, database: Callable[[str], str]) -> AsyncIterator[Stores]:
    async with open_stores(request.param, database) as opened:
        yield opened


async def settled(stores: Stores) -> list[int]:
    found = [await stores.budgets.find("acme", budget_id, NOW) for budget_id in ("one", "two", "all")]
    return [status.settled_micros for status in found if status is not None]


async def test_a_batch_counts_each_job_and_only_what_is_new(stores: Stores) -> None:
    for budget_id, subject in (("one", "jobs/1"), ("two", "jobs/2"), ("all", "tenants/acme")):
        budget = Budget("acme", budget_id, subject, Period.TOTAL, 100, None, NOW, NOW, made_hard_micros=100)
        await stores.budgets.create(budget)
    bare = [a_record(an_event(), cost_micros=cost) for cost in (20, 5, 30, 0, 60)]
    batch = [replace(r, event=replace(r.event, job=f"jobs/{1 + n % 2}")) for n, r in enumerate(bare)]
    await stores.usage.record(batch[:2])
    assert await settled(stores) == [20, 5, 25]
    result = await stores.usage.record(batch)
    assert (result.recorded, result.already_known) == (3, 2)
    assert await settled(stores) == [110, 5, 115]
    await stores.usage.record([a_record(an_event(), cost_micros=7)])
    assert await settled(stores) == [110, 5, 122]


async def test_a_batch_may_be_of_many_months(stores: Stores) -> None:
    times = (-400 * DAY_S, 0, -65 * DAY_S, -100 * DAY_S)
    tags = {"team": 'b"l\\u\n€', "empty": ""}
    batch = [a_record(an_event(after_s=after_s, tags=tags if n else None)) for n, after_s in enumerate(times)]
    assert (await stores.usage.record(batch)).recorded == 4
    report = await stores.reports.report(Selection("acme"), None, 10)
    newest_first = sorted(batch, key=lambda r: r.event.occur_time, reverse=True)
    assert list(report.records) == newest_first
