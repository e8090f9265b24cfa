"""When an answer that was paid for was last used, so that what nobody uses any more can go."""

from alembic import op

revision = "0043"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column whose default is written down once for all rows, and its index without stopping who writes. Each
    step may be repeated: the index ends the transaction before it."""
    # All that is there counts as used today.
    op.execute("ALTER TABLE summarizer.results ADD COLUMN IF NOT EXISTS use_time timestamptz NOT NULL DEFAULT now()")
    op.execute("""
        COMMENT ON COLUMN summarizer.results.use_time IS
        'When it was last found, but for a day: it is not written anew each time.'
    """)
    op.execute("DROP POLICY IF EXISTS upkeep ON summarizer.results")
    # The clean-up removes what has not been used of all tenants.
    op.execute("""
        CREATE POLICY upkeep ON summarizer.results
        USING (current_setting('pagemesh.across', true) = 'answers') WITH CHECK (false)
    """)
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX IF EXISTS summarizer.results_by_use_time")
        op.execute("CREATE INDEX CONCURRENTLY results_by_use_time ON summarizer.results (use_time)")
