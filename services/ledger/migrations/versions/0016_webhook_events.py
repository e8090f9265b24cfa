"""Webhooks say of what they are told; messages are listed, and sent in turns of their tenants."""

from alembic import op

revision = "0016"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns with constant defaults, which rewrites nothing, and indexes.

    The indexes are not made concurrently: the table holds the messages of a week. A call whose budget reaches a
    threshold meanwhile waits for them. A webhook that is there is told of what it was told of before.
    """
    op.execute("""
        ALTER TABLE ledger.webhooks ADD COLUMN event_types text[] NOT NULL
        DEFAULT '{budget.threshold_reached,cost.anomaly_detected}' CHECK (cardinality(event_types) BETWEEN 1 AND 16)
    """)
    op.execute("ALTER TABLE ledger.webhook_deliveries ADD COLUMN event_type text NOT NULL DEFAULT ''")
    op.execute("CREATE INDEX webhook_deliveries_by_time ON ledger.webhook_deliveries (tenant, create_time, id)")
    op.execute("""
        CREATE INDEX webhook_deliveries_by_state ON ledger.webhook_deliveries (tenant, state, create_time, id)
    """)
    # In the place of the one by due_time alone: a tenant whose receivers hang must not stand before all others.
    op.execute("""
        CREATE INDEX webhook_deliveries_in_turn ON ledger.webhook_deliveries (tenant, due_time) WHERE state = 'PENDING'
    """)
    op.execute("DROP INDEX ledger.webhook_deliveries_due")
