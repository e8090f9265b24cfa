"""The fixtures that other tests stand on."""

from collections.abc import Callable

import psycopg


def test_each_database_is_migrated_and_fresh(database: Callable[[str], str]) -> None:
    first, second = database("summarizer"), database("summarizer")
    assert first != second
    with psycopg.connect(first) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'summarizer'").fetchall()
    assert tables
