"""Which trace a job belongs to, so that its attempts go on with that of its submission."""

from alembic import op

revision = "0042"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column whose constant default is kept with the table's description."""
    op.execute("ALTER TABLE summarizer.jobs ADD COLUMN trace text NOT NULL DEFAULT ''")
    op.execute("""
        COMMENT ON COLUMN summarizer.jobs.trace IS
        'The span that the job was handed in under, as a W3C traceparent; empty where there was none.'
    """)
