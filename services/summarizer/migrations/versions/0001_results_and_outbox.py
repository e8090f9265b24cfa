"""Answers that were paid for, and what the ledger has yet to hear of them."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `results` and `outbox`."""
    op.execute("""
        CREATE TABLE summarizer.results (
            tenant      text        NOT NULL,
            content_key bytea       NOT NULL CHECK (octet_length(content_key) = 32),
            answer      bytea       NOT NULL,
            event_id    uuid        NOT NULL,
            create_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant, content_key)
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.results IS
        'One row for each answer of a provider that was paid for: it is never asked for again. answer is
         bytes, because text of documents may hold characters that jsonb refuses. event_id is the id of the usage
         record, which names model and document.'
    """)
    # A query that forgets its tenant finds nothing; FORCE, because the service owns the table.
    op.execute("ALTER TABLE summarizer.results ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.results FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.results
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    op.execute("""
        CREATE TABLE summarizer.outbox (
            hold_id     uuid        PRIMARY KEY,
            tenant      text        NOT NULL,
            actor       text        NOT NULL,
            project     text        NOT NULL,
            request_id  text        NOT NULL,
            event       jsonb,
            create_time timestamptz NOT NULL DEFAULT now(),
            due_time    timestamptz NOT NULL,
            attempts    integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
            last_error  text        NOT NULL DEFAULT ''
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.outbox IS
        'What the ledger must hear, kept until it has acknowledged it: a usage event settles its hold, a row
         without one releases it. The feeder reads it for all tenants; it holds no text of documents. A row that is
         due at infinity is parked: the ledger refused it for good, as last_error says.'
    """)
    op.execute("CREATE INDEX outbox_by_due_time ON summarizer.outbox (due_time)")
