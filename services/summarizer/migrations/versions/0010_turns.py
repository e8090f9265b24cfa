"""Who is buying which answer now, so that replicas do not buy the same twice."""

from alembic import op

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds `turns`."""
    op.execute("""
        CREATE TABLE summarizer.turns (
            tenant      text        NOT NULL,
            content_key bytea       NOT NULL,
            holder      uuid        NOT NULL,
            end_time    timestamptz NOT NULL,
            PRIMARY KEY (tenant, content_key)
        )
    """)
    op.execute("CREATE INDEX turns_by_end ON summarizer.turns (tenant, end_time)")
    op.execute("""
        COMMENT ON TABLE summarizer.turns IS
        'Answers that are being bought. Whoever wants the same waits until the row is gone or end_time has passed.'
    """)
    op.execute("ALTER TABLE summarizer.turns ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.turns FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.turns
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
