"""Ends of jobs that the ledger has yet to hear of, for the tenants' webhooks."""

from alembic import op

revision = "0015"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `job_notices`, and an index of the jobs of a batch that have not ended.

    The index is not made concurrently: jobs that move on meanwhile wait for it.
    """
    # Rows live for a moment: the space of those that are gone is to be used again soon.
    op.execute("""
        CREATE TABLE summarizer.job_notices (
            position      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant        text        NOT NULL,
            job           text        NOT NULL,
            sequence      bigint      NOT NULL,
            batch         text        NOT NULL,
            document      text        NOT NULL,
            state         text        NOT NULL CHECK (state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')),
            reason        text        NOT NULL,
            attempts      integer     NOT NULL,
            pages_read    integer     NOT NULL,
            page_count    integer     NOT NULL,
            accept_time   timestamptz NOT NULL,
            end_time      timestamptz NOT NULL,
            parked_reason text
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.job_notices IS
        'How jobs ended, written by the statement that ended them and kept until the ledger has acknowledged it. A row
         with a parked_reason was refused for good and waits for an operator. No text of documents.'
    """)
    op.execute("ALTER TABLE summarizer.job_notices ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.job_notices FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.job_notices FOR INSERT
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    # The feeder reads and strikes out what jobs of all tenants told.
    op.execute("""
        CREATE POLICY feeder ON summarizer.job_notices
        USING (current_setting('pagemesh.across', true) = 'job_notices')
        WITH CHECK (current_setting('pagemesh.across', true) = 'job_notices')
    """)
    op.execute("""
        CREATE INDEX jobs_open_of_batch ON summarizer.jobs (tenant, batch, id)
        WHERE batch <> '' AND state IN ('QUEUED', 'RUNNING')
    """)
