"""Days that cost far more than usual, and what looking for them reads of the sums of all tenants."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table, the index and the policies.

    The index is not made concurrently: only the task that adds up sums writes to this table, calls that are recorded do
    not. It goes on when the index is there, and reports are exact meanwhile.
    """
    op.execute("""
        CREATE TABLE ledger.cost_anomalies (
            tenant           text        NOT NULL,
            day              date        NOT NULL,
            cost_micros      bigint      NOT NULL,
            usual_micros     bigint      NOT NULL CHECK (usual_micros >= 0),
            threshold_micros bigint      NOT NULL,
            detect_time      timestamptz NOT NULL,
            PRIMARY KEY (tenant, day),
            CHECK (cost_micros > threshold_micros)
        )
    """)
    op.execute("""
        COMMENT ON TABLE ledger.cost_anomalies IS
        'Days (UTC) of tenants that had cost more than threshold_micros when they were looked at. One row tells of one,
         with the webhook messages that were written in its transaction.'
    """)
    op.execute("""
        CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.cost_anomalies
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()
    """)
    op.execute("ALTER TABLE ledger.cost_anomalies ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE ledger.cost_anomalies FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON ledger.cost_anomalies
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    # One day of all tenants; all other indexes begin with the tenant.
    op.execute("""
        CREATE INDEX usage_rollups_by_day ON ledger.usage_rollups (begin_time, tenant)
        WHERE facet = '' AND span_hours = 24
    """)
    for table, rows in (("usage_rollups", "facet = '' AND span_hours = 24"), ("usage_deltas", "facet = ''")):
        op.execute(f"""
            CREATE POLICY anomaly_reads ON ledger.{table} FOR SELECT
            USING (current_setting('pagemesh.across', true) = 'cost_anomalies' AND {rows})
        """)
