"""The second wall between tenants, and the indexes that work behind it."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest

from services.ledger.adapters import postgres_budgets as budgets
from services.ledger.adapters import postgres_holds as holds
from services.ledger.adapters import postgres_usage_reports as usage
from tests.unit.ledger.samples import NOW

Connection = psycopg.Connection[tuple[object, ...]]
WALLED = (
    "holds",
    "budgets",
    "budget_periods",
    "budget_alerts",
    "price_overrides",
    "tenant_price_books",
    "webhooks",
    "webhook_deliveries",
    "cost_anomalies",
)
ROWS = {
    "holds": "'{t}', gen_random_uuid(), 'HELD', 'm/m', 1, 1, 1, 1, 'a', now(), now() + interval '1 h'",
    "budgets": "'{t}', 'operator', 'tenants/{t}', 'TOTAL', 1, NULL, 1, NULL, true, now(), now()",
    "budget_periods": "'{t}', 'operator', '1970-01-01Z', 0, 0",
    "budget_alerts": "'{t}', 'operator', '1970-01-01Z', 'HARD', 50, 1, 1, 0, now()",
    "price_overrides": "'{t}', 1, 'm/m', now(), 1, 1, now()",
    "webhooks": "'{t}', '0123456789abcdef', 'https://example.com', now()",
    "webhook_deliveries": "'{t}', gen_random_uuid(), '0123456789abcdef', '', 'PENDING', 0, now(), now(), NULL, ''",
    "cost_anomalies": "'{t}', '2026-03-01', 2, 0, 1, now()",
}


def bind(connection: Connection, tenant: str, *, across: str = "") -> None:
    connection.execute(
        "SELECT set_config('pagemesh.tenant', %s, false), set_config('pagemesh.across', %s, false)", (tenant, across)
    )


@pytest.fixture
def connection(database: Callable[[str], str]) -> Iterator[Connection]:
    """As the service's own role, with one row of acme and one of other in each table."""
    with psycopg.connect(database("ledger"), autocommit=True) as opened:
        for tenant in ("acme", "other"):
            bind(opened, tenant)
            opened.execute("INSERT INTO ledger.tenants VALUES (%s, 'x', true, now())", (tenant,))
            for table, values in ROWS.items():
                opened.execute(f"INSERT INTO ledger.{table} VALUES ({values.format(t=tenant)})".encode())
            opened.execute(
                "INSERT INTO ledger.tenant_price_books (tenant, list_version, overrides) VALUES (%s, 1, '{1}')",
                (tenant,),
            )
        yield opened


@pytest.mark.parametrize("table", WALLED)
def test_a_forgotten_predicate_shows_nothing_of_others(connection: Connection, table: str) -> None:
    everything = f"SELECT tenant FROM ledger.{table}".encode()
    bind(connection, "acme")
    assert connection.execute(everything).fetchall() == [("acme",)]
    bind(connection, "")
    assert connection.execute(everything).fetchall() == []
    bind(connection, "acme")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        if table == "tenant_price_books":
            connection.execute(
                "INSERT INTO ledger.tenant_price_books (tenant, list_version, overrides) VALUES ('other', 1, '{2}')"
            )
        else:
            connection.execute(f"INSERT INTO ledger.{table} VALUES ({ROWS[table].format(t='other')})".encode())


@pytest.mark.parametrize("table", ["holds", "budgets", "budget_periods", "webhooks", "webhook_deliveries"])
def test_what_forgets_its_tenant_changes_nothing_of_others(connection: Connection, table: str) -> None:
    bind(connection, "acme")
    assert connection.execute(f"UPDATE ledger.{table} SET tenant = tenant".encode()).rowcount == 1
    assert connection.execute(f"DELETE FROM ledger.{table}".encode()).rowcount == 1
    bind(connection, "other")
    assert connection.execute(f"SELECT tenant FROM ledger.{table}".encode()).fetchall() == [("other",)]


@pytest.mark.parametrize(
    ("work", "seen"),
    [
        ("expiry", {"holds"}),
        ("metrics", {"budgets", "budget_periods"}),
        ("webhooks", {"webhooks", "webhook_deliveries"}),
        ("cost_anomalies", set()),
        ("anything", set()),
    ],
)
def test_work_over_all_tenants_sees_its_own_tables_only(connection: Connection, work: str, seen: set[str]) -> None:
    bind(connection, "", across=work)
    found = {table for table in WALLED if connection.execute(f"SELECT tenant FROM ledger.{table}".encode()).fetchall()}
    assert found == seen


def test_the_expiry_may_turn_holds_and_do_nothing_else(connection: Connection) -> None:
    bind(connection, "", across="expiry")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE ledger.holds SET state = 'RELEASED'")
    assert connection.execute("DELETE FROM ledger.holds").rowcount == 0
    assert connection.execute("UPDATE ledger.holds SET state = 'UNKNOWN'").rowcount == 2


def test_lists_and_timers_have_their_indexes(database: Callable[[str], str]) -> None:
    """With enough rows of other tenants around, no statement reads a whole table, behind the wall neither."""
    with psycopg.connect(database("ledger"), autocommit=True) as connection:
        for table in ("tenants", "holds", "budgets"):
            connection.execute(f"ALTER TABLE ledger.{table} NO FORCE ROW LEVEL SECURITY".encode())
        connection.execute(
            "INSERT INTO ledger.tenants SELECT 't' || n, 'x', true, now() FROM generate_series(0, 199) n"
        )
        connection.execute(
            "INSERT INTO ledger.holds SELECT 't' || n % 200, gen_random_uuid(),"
            " CASE n % 10 WHEN 0 THEN 'HELD' ELSE 'SETTLED' END, 'm/m', 1, 1,"
            " 1, 1, 'a', now() - interval '1 h', now() + n * interval '1 s' FROM generate_series(1, 20000) n"
        )
        connection.execute(
            "INSERT INTO ledger.budgets SELECT 't' || n % 200, 'b' || n, 'jobs/' || n % 977, 'TOTAL', 1, NULL, 1, NULL,"
            " false, now(), now() FROM generate_series(1, 20000) n"
        )
        for table in ("tenants", "holds", "budgets"):
            connection.execute(f"ALTER TABLE ledger.{table} FORCE ROW LEVEL SECURITY".encode())
        connection.execute("VACUUM ANALYZE ledger.holds, ledger.budgets")
        bind(connection, "t7")
        values = {"tenant": "t7", "day": NOW, "month": NOW, "after": "", "limit": 51, "subject": "jobs/7"}
        assert "holds_open" in plan(connection, usage.HELD, ("t7",))
        assert "budgets_by_subject" in plan(connection, budgets.LIST + budgets.OF_SUBJECT + budgets.LIST_END, values)
        assert "budgets_" in plan(connection, budgets.LIST + budgets.LIST_END, values)
        bind(connection, "", across="expiry")
        assert "holds_due" in plan(connection, holds.EXPIRE, (NOW - timedelta(days=1), 500))


def plan(connection: Connection, statement: str, values: object) -> str:
    explained = b"EXPLAIN " + statement.encode()
    lines = "\n".join(str(row[0]) for row in connection.execute(explained, values))  # type: ignore[call-overload]
    assert "Seq Scan on holds" not in lines, lines
    assert "Seq Scan on budgets" not in lines, lines
    return lines
