"""Turns in Postgres, where every replica sees them."""

from services.database.pool import Pool, translate

# A second taker waits for the first one's row, and then finds it taken.
_TAKE = """
    INSERT INTO summarizer.turns AS t (tenant, content_key, holder, end_time)
    VALUES (%(tenant)s, %(key)s, %(holder)s, clock_timestamp() + make_interval(secs => %(lease_s)s))
    ON CONFLICT (tenant, content_key) DO UPDATE SET holder = excluded.holder, end_time = excluded.end_time
    WHERE t.holder = excluded.holder OR t.end_time < clock_timestamp()
"""
# Those that were killed leave rows: they go with the next that ends.
_LEAVE = """
    DELETE FROM summarizer.turns
    WHERE tenant = %(tenant)s AND (content_key = %(key)s AND holder = %(holder)s
                                   OR end_time < now() - interval '1 hour')
"""
_AS_TENANT = "SELECT set_config('pagemesh.tenant', %(tenant)s, true)"


class PostgresTurns:
    """TurnBook on Postgres; row-level security shows each transaction its own tenant's turns only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def take(self, tenant: str, key: bytes, holder: str, lease_s: float) -> bool:
        """Takes or renews."""
        row = {"tenant": tenant, "key": key, "holder": holder, "lease_s": lease_s}
        return await self._execute("turns.take", _TAKE, row) == 1

    async def leave(self, tenant: str, key: bytes, holder: str) -> None:
        """Gives it back."""
        await self._execute("turns.leave", _LEAVE, {"tenant": tenant, "key": key, "holder": holder})

    async def _execute(self, operation: str, query: str, row: dict[str, object]) -> int:
        with translate(operation):
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_AS_TENANT, row)
                return (await connection.execute(query, row)).rowcount
