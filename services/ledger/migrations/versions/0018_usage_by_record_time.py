"""An index of usage records by when they were recorded: what a budget of a day or a month that is made later reads.

Records are written in the order of that time, whatever month they belong to, so a summary of blocks is enough: it is a
thousandth of the size of another index, and costs recording next to nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_USING = "USING brin (record_time) WITH (pages_per_range = 32, autosummarize = on)"


def upgrade() -> None:
    """Makes the index of each partition while it is written to, and joins them. It may be run again after a break."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        # Of the parent alone, which has no rows: months that are made from here on have theirs.
        op.execute(f"CREATE INDEX IF NOT EXISTS usage_records_by_record_time ON ONLY ledger.usage_records {_USING}")
        partitions = connection.execute(
            sa.text(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger.usage_records'::regclass"
            )
        )
        for (partition,) in partitions.all():
            _index(connection, str(partition))


def _index(connection: sa.Connection, partition: str) -> None:
    schema, _, table = partition.rpartition(".")
    name = f"{schema or 'ledger'}.{table}_by_record_time"
    state = connection.execute(
        sa.text("""
            SELECT i.indisvalid, EXISTS (SELECT FROM pg_inherits WHERE inhrelid = i.indexrelid)
            FROM pg_index i WHERE i.indexrelid = to_regclass(:name)
        """),
        {"name": name},
    ).one_or_none()
    if state is not None and not state[0]:  # a run before this one was broken off
        op.execute(f"DROP INDEX CONCURRENTLY {name}")
    if state is None or not state[0]:
        op.execute(f"CREATE INDEX CONCURRENTLY {table}_by_record_time ON ledger.{table} {_USING}")
    if state is None or not state[1]:
        op.execute(f"ALTER INDEX ledger.usage_records_by_record_time ATTACH PARTITION {name}")
