"""Which document an answer was bought for, so that it can be erased with it."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the document to `results`, and `purges`."""
    # Nobody can say any more what these were made of, so no deletion could ever be complete: they are forgotten.
    op.execute("TRUNCATE summarizer.results")
    op.execute("ALTER TABLE summarizer.results ADD COLUMN document text NOT NULL")
    op.execute("CREATE INDEX results_by_document ON summarizer.results (tenant, document)")
    op.execute("""
        COMMENT ON COLUMN summarizer.results.document IS
        'What it was bought for. Another document with the same words may use it until this one is erased.'
    """)
    op.execute("""
        CREATE TABLE summarizer.purges (
            tenant     text        NOT NULL,
            document   text        NOT NULL,
            generation integer     NOT NULL,
            purge_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant, document)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.purges IS
        'How often the results of a document were erased. A run that began before an erasure knows another number,
         and keeps nothing. Rows are forgotten after a day, when no such run is left.'
    """)
    op.execute("ALTER TABLE summarizer.purges ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.purges FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.purges
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
