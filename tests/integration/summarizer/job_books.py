"""What the provider charged, what the ledger has, and what jobs say that they spent, held against each other."""

from collections import Counter
from typing import Any

import psycopg

from tests.fakes.mistral_server import MistralServer
from tests.integration.summarizer.conftest import World, until_so
from tests.integration.summarizer.job_calls import Jobs

_OPEN = ("HELD", "UNKNOWN")


async def rows(world: World, query: bytes) -> list[Any]:
    """What the summarizer's database says to the tenant."""
    async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', %s, false)", (world.tenant,))
        return await (await connection.execute(query)).fetchall()


async def everything_is_told(world: World) -> None:
    """Waits until the ledger has heard of all calls."""

    async def told() -> bool:
        owed = await rows(world, b"SELECT tenant FROM summarizer.outbox")
        return (world.tenant,) not in owed

    await until_so(told)


async def bill_is_in_the_books(world: World, mistral: MistralServer) -> None:
    """Every charge is settled with exactly its tokens, or under a hold that stands; and nothing else is settled."""
    charged = Counter(mistral.books.charges)
    settled = Counter((sent, received) for _, sent, received, _ in await world.ledger.events() if sent)
    assert not settled - charged, "nothing is in the books that nobody charged"
    states = Counter((await world.ledger.holds()).values())
    assert (charged - settled).total() <= sum(states[state] for state in _OPEN)
    assert settled.total() == states["SETTLED"]


async def spent_is_what_the_books_say(world: World, jobs: Jobs, batch: str) -> None:
    """No job spent more than its bound; and what it says is what was settled for it, and what its open calls can cost
    at most."""
    expected = Counter[str]()
    for job, cost in await world.ledger._rows(
        "SELECT job, sum(cost_micros)::bigint FROM ledger.usage_records WHERE tenant = %s AND input_tokens > 0 "
        "GROUP BY job"
    ):
        expected[job] += cost
    holds = await world.ledger.holds()
    for hold_id, job, amount in await rows(
        world, b"SELECT hold_id::text, job, amount_micros FROM summarizer.job_calls"
    ):
        assert holds[hold_id] in (*_OPEN, "RELEASED"), "what was settled is corrected"
        expected[f"jobs/{job}"] += amount
    for job in await jobs.listed(batch=batch):
        assert job.spent.micros == expected[job.name]
        assert job.spent.micros <= job.max_cost.micros
