"""How many jobs of each tenant may run, as its plan says."""

from alembic import op

revision = "0033"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns without defaults, which rewrites nothing."""
    op.execute("ALTER TABLE summarizer.job_turns ADD COLUMN most_running integer CHECK (most_running >= 0)")
    op.execute("ALTER TABLE summarizer.job_turns ADD COLUMN limit_time timestamptz")
    op.execute("""
        COMMENT ON COLUMN summarizer.job_turns.most_running IS
        'How many jobs of the tenant may run, as its plan said at limit_time; null where the deployment decides.'
    """)
