"""How full the budgets are that the operator set, as a metric: the fullest ones, so that their number is bounded."""

from prometheus_client import Gauge

from services.database.pool import Pool, translate
from services.ledger.adapters.postgres_rows import WORK_ACROSS

MOST_TENANTS = 100

_USE = Gauge(
    "pagemesh_ledger_operator_budget_use",
    f"Settled and held as a part of the operator's budget, of the {MOST_TENANTS} tenants that are nearest to it.",
    ["tenant"],
)
_FULLEST = """
    SELECT b.tenant, ((p.settled_micros + p.held_micros)::float8 / greatest(b.hard_micros, 1)) AS part
    FROM ledger.budgets b JOIN ledger.budget_periods p ON p.tenant = b.tenant AND p.budget = b.id
    WHERE b.operator AND p.budget = 'operator' AND b.delete_time IS NULL
    ORDER BY part DESC, b.tenant LIMIT %s
"""


class PostgresBudgetGauge:
    """Reads them and shows them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def measure(self) -> None:
        """Once. Raises Unavailable."""
        with translate("budget_use"):
            async with self._pool.connection() as connection:
                await connection.execute(WORK_ACROSS, ("metrics",))
                rows = await (await connection.execute(_FULLEST, (MOST_TENANTS,))).fetchall()
        _USE.clear()
        for tenant, part in rows:
            _USE.labels(tenant).set(part)
