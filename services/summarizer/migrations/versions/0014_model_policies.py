"""Which models a tenant lets answer."""

from alembic import op

revision = "0014"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds `model_policies`."""
    op.execute("""
        CREATE TABLE summarizer.model_policies (
            tenant          text        PRIMARY KEY,
            default_model   text        NOT NULL CHECK (length(default_model) <= 200),
            fallback_models text[]      NOT NULL CHECK (cardinality(fallback_models) <= 5),
            allowed_models  text[]      NOT NULL CHECK (cardinality(allowed_models) <= 100),
            revision        integer     NOT NULL CHECK (revision > 0),
            update_time     timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("""
        COMMENT ON TABLE summarizer.model_policies IS
        'One row for each tenant that ever chose. An empty value means the deployment''s, an empty allowed_models all.
         A row is never deleted: replicas tell by its revision which of two that they read is newer.'
    """)
    op.execute("ALTER TABLE summarizer.model_policies ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE summarizer.model_policies FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON summarizer.model_policies
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
