"""What every LimitBook promises, in memory and in Postgres, and the keeper that asks plans."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from services.database.pool import Pool, open_pool
from services.runtime.errors import Unavailable
from services.summarizer.adapters.memory_job_limits import MemoryLimits
from services.summarizer.adapters.memory_jobs import MemoryJobs
from services.summarizer.adapters.postgres_job_limits import PostgresLimits
from services.summarizer.adapters.postgres_job_queue import PostgresJobQueue
from services.summarizer.adapters.postgres_jobs import PostgresJobs
from services.summarizer.domain.job_limits import LimitBook, LimitKeeper
from tests.contract.test_summarizer_jobs import Store, claim, claimed, finish, order, submit


@dataclass
class Desk:
    store: Store
    limits: LimitBook

    async def running(self, *, most: int) -> int:
        """How many more jobs are claimed until there is no place."""
        count = 0
        while await claim(self.store, most=most) is not None:
            count += 1
        return count


@dataclass
class Paper:
    """Plans on paper; a tenant without one cannot be asked for."""

    plans: dict[str, int | None]
    asked: list[str] = field(default_factory=list)

    async def most_running(self, tenant: str) -> int | None:
        self.asked.append(tenant)
        if tenant not in self.plans:
            raise Unavailable("PEER_DOWN", "It is down.")
        return self.plans[tenant]


@pytest.fixture
async def pool(database: Callable[[str], str]) -> AsyncIterator[Pool]:
    opened = await open_pool(database("summarizer"), name="contract", max_size=4)
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "postgres"])
def desk(request: pytest.FixtureRequest) -> Desk:
    if request.param == "memory":
        memory = MemoryJobs(lambda: datetime.now(UTC))
        return Desk((memory, memory), MemoryLimits(memory))
    pool: Pool = request.getfixturevalue("pool")
    return Desk((PostgresJobs(pool), PostgresJobQueue(pool)), PostgresLimits(pool))


async def test_the_plan_goes_before_the_deployment(desk: Desk) -> None:
    for tenant in ("acme", "globex", "initech"):
        await submit(desk.store, order(tenant, documents=6))
    await desk.limits.set("acme", 1)
    await desk.limits.set("globex", 4)
    assert await desk.running(most=2) == 1 + 4 + 2
    top = await desk.limits.top(10)
    assert [(q.tenant, q.queued, q.due, q.running, q.most_running) for q in top] == [
        ("acme", 5, 5, 1, 1),
        ("globex", 2, 2, 4, 4),
        ("initech", 4, 4, 2, None),
    ]
    await desk.limits.set("acme", 0)
    await desk.limits.set("initech", 3)
    await desk.limits.set("globex", None)
    assert await desk.running(most=2) == 1, "a smaller plan ends nothing, and begins nothing"


async def test_a_plan_without_jobs_holds_them_back_until_it_has_some(desk: Desk) -> None:
    await submit(desk.store, order(documents=2))
    await desk.limits.set("acme", 0)
    assert await claim(desk.store) is None
    await desk.limits.set("acme", 1)
    assert await finish(desk.store, await claimed(desk.store))


async def test_those_with_jobs_that_wait_are_asked_for_and_not_again_soon(desk: Desk) -> None:
    for tenant in ("acme", "globex"):
        await submit(desk.store, order(tenant))
    done = await claimed(desk.store)
    await finish(desk.store, done)
    (waiting,) = {"acme", "globex"} - {done.caller.tenant}
    paper = Paper({waiting: 7})
    keeper = LimitKeeper(book=desk.limits, plans=paper, failed=lambda *_: None)
    assert [await keeper.look(), await keeper.look()] == [1, 0]
    assert paper.asked == [waiting]
    assert [(q.tenant, q.most_running) for q in await desk.limits.top(10)] == [(waiting, 7)]
    assert await desk.limits.stale(older_s=-1, limit=0) == []
    assert await desk.limits.stale(older_s=-1, limit=5) == [waiting]


async def test_one_that_cannot_be_asked_keeps_its_limit_and_stops_nobody(desk: Desk) -> None:
    for tenant in ("acme", "globex"):
        await submit(desk.store, order(tenant, documents=3))
    await desk.limits.set("acme", 2)
    failures: list[str] = []
    keeper = LimitKeeper(book=desk.limits, plans=Paper({"globex": 1}), failed=lambda name, _: failures.append(name))
    assert await keeper.look() == 2
    assert failures == ["acme"]
    assert await desk.running(most=9) == 2 + 1


async def test_the_longest_queues_come_first_and_no_more_than_asked(desk: Desk) -> None:
    for number in range(4):
        await submit(desk.store, order(f"t{number}", documents=number + 1))
    later = datetime.now(UTC) + timedelta(hours=1)
    await submit(desk.store, order("later", documents=9, schedule_time=later))
    assert [(q.tenant, q.queued, q.due) for q in await desk.limits.top(2)] == [("later", 9, 0), ("t3", 4, 4)]
    assert (await desk.limits.top(1))[0].oldest_age_s == 0
