"""The fixtures that other tests stand on."""

from collections.abc import Callable

import psycopg
import pytest

from tests.conftest import RunningStack
from tests.databases import Databases


def test_each_database_is_migrated_and_fresh(database: Callable[[str], str]) -> None:
    first, second = database("summarizer"), database("summarizer")
    assert first != second
    with psycopg.connect(first) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'summarizer'").fetchall()
    assert tables


def test_a_database_that_is_used_again_is_as_it_was_made(postgres_server: Databases) -> None:
    def content(name: str) -> list[object]:
        with psycopg.connect(postgres_server.dsn("ledger", name), autocommit=True) as connection:
            books = connection.execute("SELECT * FROM ledger.price_books ORDER BY 1").fetchall()
            prices = connection.execute("SELECT * FROM ledger.prices ORDER BY 1, 2, 3").fetchall()
            tenants = connection.execute("SELECT count(*) FROM ledger.tenants").fetchone()
            sizes = connection.execute(
                "SELECT relname, relpages, reltuples FROM pg_class "
                "WHERE relnamespace = 'ledger'::regnamespace ORDER BY 1"
            ).fetchall()
            return [books, prices, tenants, sizes]

    first = postgres_server.create("ledger")
    made = content(first)
    assert made[0]
    with psycopg.connect(postgres_server.dsn("ledger", first), autocommit=True) as leftover:
        leftover.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        leftover.execute("INSERT INTO ledger.tenants VALUES ('acme', 'x', true, now())")
        postgres_server.drop(first)
        with pytest.raises(psycopg.OperationalError):
            leftover.execute("SELECT 1")  # nobody stays
    again = postgres_server.create("ledger")
    assert (again, content(again)) == (first, made)
    postgres_server.drop(again)


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX ledger.{index}",
        "ALTER TABLE ledger.tenants ADD more int",
        "ALTER TABLE ledger.tenants NO FORCE ROW LEVEL SECURITY",
        "ANALYZE ledger.prices",
        "CREATE TABLE ledger.more (n int)",
        "ALTER DATABASE {database} SET enable_seqscan = off",
        "GRANT SELECT ON ledger.tenants TO extractor",
    ],
)
def test_a_database_whose_schema_a_test_changed_is_not_used_again(postgres_server: Databases, change: str) -> None:
    name = postgres_server.create("ledger")
    dsn = postgres_server.server.dsn("postgres", postgres_server.superuser_password, database=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute(
            "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
            "WHERE relnamespace = 'ledger'::regnamespace AND NOT indisunique ORDER BY 1 LIMIT 1"
        ).fetchone()
        assert found is not None
        connection.execute(change.format(index=found[0].removeprefix("ledger."), database=name))
    postgres_server.drop(name)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(dsn)


def test_the_stacks_own_database_writes_to_the_disk(stack: RunningStack) -> None:
    """The one of `postgres_server` does not."""
    with psycopg.connect(stack.superuser_dsn) as connection:
        for setting in ("fsync", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)
