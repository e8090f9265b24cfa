"""How Postgres finds what money moves touch, on tables that nobody has analysed yet."""

from collections.abc import Callable
from dataclasses import replace

from services.database.pool import open_pool
from services.ledger.adapters.postgres_holds import PostgresHolds
from services.ledger.adapters.postgres_identity import PostgresTenants
from tests.unit.ledger.samples import NOW, a_hold, a_record, an_event

PAIRS = 60


async def test_a_settlement_finds_its_hold_and_reads_no_others(database: Callable[[str], str]) -> None:
    """A session keeps its plan, made on an empty table: a walk over all holds would read half of PAIRS²."""
    async with await open_pool(database("ledger"), name="test", max_size=1) as pool:
        await PostgresTenants(pool).ensure("acme", "acme", NOW)
        holds = PostgresHolds(pool)
        for _ in range(PAIRS):
            hold = await holds.reserve(a_hold(1))
            await holds.settle(hold, replace(a_record(an_event(), cost_micros=1), hold_id=hold.hold_id))
        await holds.close()
        async with pool.connection() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
        async with pool.connection() as connection:
            found = await connection.execute(
                "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE indexrelname = 'holds_pkey'"
            )
            ((read,),) = await found.fetchall()
    assert 2 * PAIRS <= read <= 6 * PAIRS
