"""Browsers that somebody signed in with."""

from alembic import op

revision = "0017"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table and has it tell of every session that ends."""
    op.execute("""
        CREATE TABLE ledger.browser_sessions (
            tenant      text        NOT NULL REFERENCES ledger.tenants,
            id          text        NOT NULL UNIQUE CHECK (id ~ '^[0-9a-z]{26}$'),
            actor       text        NOT NULL CHECK (actor ~ '^(apiKeys|users)/[0-9a-z]{1,40}$'),
            provider    text,
            scopes      text[]      NOT NULL CHECK (cardinality(scopes) BETWEEN 1 AND 50),
            secret_hash bytea       NOT NULL CHECK (octet_length(secret_hash) = 32),
            create_time timestamptz NOT NULL,
            expire_time timestamptz NOT NULL CHECK (expire_time > create_time),
            PRIMARY KEY (tenant, id),
            FOREIGN KEY (tenant, provider) REFERENCES ledger.identity_providers ON DELETE CASCADE
        )
    """)
    op.execute("""
        COMMENT ON COLUMN ledger.browser_sessions.provider IS
        'the identity provider whose token somebody signed in with; NULL where it was an API key'
    """)
    op.execute("CREATE INDEX browser_sessions_by_actor ON ledger.browser_sessions (tenant, actor, id)")
    op.execute("CREATE INDEX browser_sessions_by_provider ON ledger.browser_sessions (tenant, provider)")
    op.execute("CREATE INDEX browser_sessions_over ON ledger.browser_sessions (expire_time)")
    op.execute("""
        CREATE TRIGGER tell_of_removal AFTER DELETE ON ledger.browser_sessions
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_removal('browserSessions')
    """)
    op.execute("ALTER TABLE ledger.browser_sessions ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE ledger.browser_sessions FORCE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY own_tenant ON ledger.browser_sessions
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    # Whose a cookie is can only be found out by looking at all tenants'.
    op.execute("""
        CREATE POLICY credentials ON ledger.browser_sessions FOR SELECT
        USING (current_setting('pagemesh.across', true) = 'credentials')
    """)
    op.execute("""
        CREATE POLICY over ON ledger.browser_sessions
        USING (current_setting('pagemesh.across', true) = 'expiry' AND expire_time <= now()) WITH CHECK (false)
    """)
