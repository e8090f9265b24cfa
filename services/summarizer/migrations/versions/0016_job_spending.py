"""What a job may spend, what it spent, and its calls whose cost is not known yet."""

from alembic import op

revision = "0016"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns, whose constant default is kept with the table's description, and `job_calls`."""
    op.execute("""
        ALTER TABLE summarizer.jobs
        ADD COLUMN max_cost_micros bigint,
        ADD COLUMN spent_micros    bigint NOT NULL DEFAULT 0
    """)
    op.execute("""
        CREATE TABLE summarizer.job_calls (
            tenant        text        NOT NULL,
            hold_id       uuid        NOT NULL,
            job           text        NOT NULL,
            amount_micros bigint      NOT NULL CHECK (amount_micros > 0),
            create_time   timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant, hold_id)
        )
    """)
    op.execute("CREATE INDEX job_calls_by_job ON summarizer.job_calls (tenant, job)")
    op.execute("""
        COMMENT ON TABLE summarizer.job_calls IS
        'Calls of jobs that are under way, or whose cost nobody knows: each is part of spent_micros of its job with the
         most that it can cost, from before it is made. Whoever learns what it cost deletes the row and corrects the
         sum.'
    """)
    op.execute("ALTER TABLE summarizer.job_calls ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.job_calls FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.job_calls
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    # The clean-up removes what belongs to expired jobs of all tenants.
    op.execute("""
        CREATE POLICY upkeep ON summarizer.job_calls
        USING (current_setting('pagemesh.across', true) = 'jobs') WITH CHECK (false)
    """)
