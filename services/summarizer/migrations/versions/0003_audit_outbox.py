"""Audit events that the ledger has yet to acknowledge."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates `audit_outbox`. Nothing that is there is touched."""
    # Rows live for a moment: the space of those that are gone is to be used again soon.
    op.execute("""
        CREATE TABLE summarizer.audit_outbox (
            position      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tenant        text        NOT NULL,
            event_id      uuid        NOT NULL,
            event         bytea       NOT NULL,
            create_time   timestamptz NOT NULL DEFAULT now(),
            parked_reason text
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.audit_outbox IS
        'Audit events that the ledger has yet to acknowledge, in their order: pagemesh.ledger.v1.AuditEvent as bytes.
         A row with a parked_reason was refused for good and waits for an operator.'
    """)
    op.execute("ALTER TABLE summarizer.audit_outbox ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.audit_outbox FORCE ROW LEVEL SECURITY")
    # Written with what it tells of, in the transaction of one tenant.
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.audit_outbox FOR INSERT
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    # The trail writes, and the feeder reads and strikes out, what requests of all tenants told.
    op.execute("""
        CREATE POLICY trail ON summarizer.audit_outbox
        USING (current_setting('pagemesh.across', true) = 'audit_outbox')
        WITH CHECK (current_setting('pagemesh.across', true) = 'audit_outbox')
    """)
