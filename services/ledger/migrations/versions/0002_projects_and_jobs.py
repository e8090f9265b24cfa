"""The project and the job of a call stand in its hold and in its usage record."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns. A constant default is kept with the table's description: no row is written anew."""
    for table in ("holds", "usage_records"):
        op.execute(f"""
            ALTER TABLE ledger.{table}
            ADD COLUMN project text NOT NULL DEFAULT '',
            ADD COLUMN job     text NOT NULL DEFAULT ''
        """)
