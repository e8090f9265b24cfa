"""Credentials beside API keys: sessions, issuers of other tokens, signed requests, client certificates."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables and has them tell of changes."""
    _signing_keys()
    _revoked_sessions()
    _identity_providers()
    _request_keys()
    _client_certificates()


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


def _identity_providers() -> None:
    op.execute("""
        CREATE TABLE ledger.identity_providers (
            tenant       text        NOT NULL REFERENCES ledger.tenants,
            id           text        NOT NULL CHECK (id ~ '^[0-9a-z]{16}$'),
            display_name text        NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
            issuer       text        NOT NULL CHECK (char_length(issuer) BETWEEN 9 AND 500),
            audience     text        NOT NULL CHECK (char_length(audience) BETWEEN 1 AND 255),
            create_time  timestamptz NOT NULL,
            PRIMARY KEY (tenant, id),
            UNIQUE (issuer, audience)
        )
    """)
    op.execute("""
        CREATE FUNCTION ledger.tell_of_removal() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('ledger_access', TG_ARGV[0] || '/' || OLD.id);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER UPDATE ON ledger.identity_providers
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_change('identityProviders')
    """)
    op.execute("""
        CREATE TRIGGER tell_of_removal AFTER DELETE ON ledger.identity_providers
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_removal('identityProviders')
    """)
    _own_tenant("identity_providers")
    # Whose a token is can only be found out by looking at all tenants' issuers.
    op.execute("""
        CREATE POLICY credentials ON ledger.identity_providers FOR SELECT
        USING (current_setting('pagemesh.across', true) = 'credentials')
    """)


def _request_keys() -> None:
    op.execute("""
        CREATE TABLE ledger.request_keys (
            tenant      text        NOT NULL,
            id          text        NOT NULL REFERENCES ledger.api_keys,
            public_key  bytea       NOT NULL CHECK (octet_length(public_key) = 32),
            create_time timestamptz NOT NULL,
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("COMMENT ON COLUMN ledger.request_keys.id IS 'that of the API key that demands signed requests'")
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER INSERT OR UPDATE ON ledger.request_keys
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_change('requestKeys')
    """)
    op.execute("""
        CREATE TRIGGER tell_of_removal AFTER DELETE ON ledger.request_keys
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_removal('requestKeys')
    """)
    op.execute("""
        CREATE TABLE ledger.request_nonces (
            tenant      text        NOT NULL,
            key_id      text        NOT NULL,
            nonce       bytea       NOT NULL CHECK (octet_length(nonce) = 32),
            forget_time timestamptz NOT NULL,
            PRIMARY KEY (tenant, key_id, nonce)
        )
    """)
    op.execute("COMMENT ON COLUMN ledger.request_nonces.nonce IS 'its SHA-256: a nonce may be of any length'")
    op.execute("CREATE INDEX request_nonces_over ON ledger.request_nonces (forget_time)")
    for table in ("request_keys", "request_nonces"):
        _own_tenant(table)
    op.execute("""
        CREATE POLICY over ON ledger.request_nonces
        USING (current_setting('pagemesh.across', true) = 'expiry' AND forget_time <= now()) WITH CHECK (false)
    """)


def _client_certificates() -> None:
    op.execute("""
        CREATE TABLE ledger.client_certificates (
            tenant      text        NOT NULL,
            id          text        NOT NULL UNIQUE CHECK (id ~ '^[0-9a-f]{64}$'),
            key_id      text        NOT NULL REFERENCES ledger.api_keys,
            create_time timestamptz NOT NULL,
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("COMMENT ON COLUMN ledger.client_certificates.id IS 'SHA-256 of the certificate, in hex'")
    op.execute("CREATE INDEX client_certificates_by_key ON ledger.client_certificates (tenant, key_id)")
    op.execute("""
        CREATE TRIGGER tell_of_removal AFTER DELETE ON ledger.client_certificates
        FOR EACH ROW EXECUTE FUNCTION ledger.tell_of_removal('clientCertificates')
    """)
    _own_tenant("client_certificates")
    # Whose a certificate is can only be found out by looking at all tenants'.
    op.execute("""
        CREATE POLICY credentials ON ledger.client_certificates FOR SELECT
        USING (current_setting('pagemesh.across', true) = 'credentials')
    """)


def _own_tenant(table: str) -> None:
    op.execute(f"ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE ledger.{table} FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE POLICY own_tenant ON ledger.{table}
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
