"""What the migrations of the ledger make of what was there before."""

import shutil
from pathlib import Path

import psycopg

from services.database.migrate import migrate
from tests.conftest import Databases

MIGRATIONS = Path(__file__).parents[2] / "services" / "ledger" / "migrations"


def test_hard_budgets_of_tenants_become_the_operators(postgres_server: Databases, tmp_path: Path) -> None:
    name = postgres_server.create_empty()
    dsn = postgres_server.dsn("ledger", name)
    before = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, before)
    for revision in (before / "versions").glob("*.py"):
        if revision.name >= "0004":
            revision.unlink()
    migrate(dsn, directory=before, schema="ledger")
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute("INSERT INTO ledger.tenants (id, display_name, create_time) VALUES ('acme', 'a', now())")
        database.execute("INSERT INTO ledger.budgets VALUES ('acme', 5000, 1200, 300)")
        migrate(dsn, directory=MIGRATIONS, schema="ledger")
        database.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        budgets = "SELECT tenant, id, subject, period, hard_micros, soft_micros, operator, rank FROM ledger.budgets"
        assert database.execute(budgets).fetchall() == [
            ("acme", "operator", "tenants/acme", "TOTAL", 5000, None, True, 3)
        ]
        totals = "SELECT tenant, budget, settled_micros, held_micros, hard_reached FROM ledger.budget_periods"
        assert database.execute(totals).fetchall() == [("acme", "operator", 1200, 300, 0)]
    postgres_server.drop(name)
