"""Keys that sign sessions, and sessions that were ended before their time."""

from alembic import op

revision = "0009"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables and has them tell of changes."""
    _signing_keys()
    _revoked_sessions()


def _signing_keys() -> None:
    op.execute("""
        CREATE TABLE ledger.signing_keys (
            id                 text        PRIMARY KEY CHECK (id ~ '^[0-9a-z]{16}$'),
            public_key         bytea       NOT NULL CHECK (octet_length(public_key) = 32),
            sealed_private_key bytea       NOT NULL CHECK (octet_length(sealed_private_key) = 60),
            create_time        timestamptz NOT NULL,
            sign_from          timestamptz NOT NULL,
            sign_until         timestamptz NOT NULL CHECK (sign_until > sign_from),
            verify_until       timestamptz NOT NULL CHECK (verify_until > sign_until)
        )
    """)
    op.execute("""
        COMMENT ON TABLE ledger.signing_keys IS
        'Ed25519 keys of the whole ledger. The private key is sealed with AES-256-GCM under a secret that the database
         does not know, bound to every other column: 12 bytes nonce, 32 bytes key, 16 bytes tag.'
    """)
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER INSERT ON ledger.signing_keys
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_change('signingKeys')
    """)


def _revoked_sessions() -> None:
    op.execute("""
        CREATE TABLE ledger.revoked_sessions (
            tenant      text        NOT NULL,
            id          text        NOT NULL CHECK (id ~ '^[0-9a-z]{16}-[0-9a-z]{26}$'),
            revoke_time timestamptz NOT NULL,
            forget_time timestamptz NOT NULL CHECK (forget_time > revoke_time),
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("CREATE INDEX revoked_sessions_over ON ledger.revoked_sessions (forget_time)")
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER INSERT ON ledger.revoked_sessions
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_change('sessions')
    """)
    _own_tenant("revoked_sessions")
    # The timer forgets, for all tenants, what no token can bring back.
    op.execute("""
        CREATE POLICY over ON ledger.revoked_sessions
        USING (current_setting('pagemesh.across', true) = 'expiry' AND forget_time <= now()) WITH CHECK (false)
    """)


def _own_tenant(table: str) -> None:
    op.execute(f"ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE ledger.{table} FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE POLICY own_tenant ON ledger.{table}
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
