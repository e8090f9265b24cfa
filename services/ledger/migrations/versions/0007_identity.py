"""Plans and quotas, rotation of keys, and row-level security on tenants, projects, users, keys and quotas."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds tables, columns, the index of a tenant's keys and the policies. No row is written anew."""
    _list_of_keys()
    _plans()
    _rotation()
    _notices()
    _policies()


def _list_of_keys() -> None:
    # Who makes a key while it is built waits: a fraction of a second for a hundred thousand keys.
    op.execute("CREATE INDEX api_keys_by_time ON ledger.api_keys (tenant, create_time DESC, id DESC)")


def _plans() -> None:
    op.execute("""
        CREATE TABLE ledger.plans (
            id                  text    PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
            uploads_per_hour    bigint  CHECK (uploads_per_hour >= 0),
            calls_per_hour      bigint  CHECK (calls_per_hour >= 0),
            max_upload_bytes    bigint  CHECK (max_upload_bytes >= 0),
            max_concurrent_jobs integer CHECK (max_concurrent_jobs >= 0)
        )
    """)
    op.execute("COMMENT ON TABLE ledger.plans IS 'What tenants may use; null is no limit. The same for all tenants.'")
    op.execute("""
        INSERT INTO ledger.plans VALUES
        ('free', 10, 1000, 52428800, 1),
        ('standard', 600, 60000, 52428800, 10),
        ('unlimited', NULL, NULL, NULL, NULL)
    """)
    # Tenants that are there were promised no limit.
    op.execute("""
        ALTER TABLE ledger.tenants ADD COLUMN plan text NOT NULL DEFAULT 'unlimited' REFERENCES ledger.plans
    """)
    op.execute("""
        CREATE TABLE ledger.quota_use (
            tenant text        NOT NULL REFERENCES ledger.tenants,
            kind   text        NOT NULL CHECK (kind IN ('calls', 'uploads')),
            hour   timestamptz NOT NULL,
            used   bigint      NOT NULL CHECK (used >= 0),
            PRIMARY KEY (tenant, kind)
        ) WITH (fillfactor = 20)
    """)
    op.execute("""
        COMMENT ON TABLE ledger.quota_use IS
        'What the replicas took of a quota in the hour that is named, of which each uses some by itself. An earlier hour
         counts for nothing any more. The free space keeps the changes of a row in its page.'
    """)


def _rotation() -> None:
    op.execute("""
        ALTER TABLE ledger.api_keys
        ADD COLUMN rotate_time          timestamptz,
        ADD COLUMN previous_hash        bytea CHECK (octet_length(previous_hash) = 32),
        ADD COLUMN previous_expire_time timestamptz
    """)


def _notices() -> None:
    """What is remembered of a tenant's keys is forgotten when its plan, a user or a project changes."""
    op.execute("""
        CREATE FUNCTION ledger.tell_tenant_of_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('ledger_access', 'tenants/' || NEW.tenant);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER UPDATE ON ledger.users FOR EACH ROW
        WHEN ((OLD.active, OLD.role) IS DISTINCT FROM (NEW.active, NEW.role))
        EXECUTE FUNCTION ledger.tell_tenant_of_change()
    """)
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER UPDATE ON ledger.projects FOR EACH ROW
        WHEN (OLD.active IS DISTINCT FROM NEW.active) EXECUTE FUNCTION ledger.tell_tenant_of_change()
    """)
    op.execute("DROP TRIGGER tell_of_change ON ledger.tenants")
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER UPDATE ON ledger.tenants FOR EACH ROW
        WHEN ((OLD.active, OLD.plan) IS DISTINCT FROM (NEW.active, NEW.plan))
        EXECUTE FUNCTION ledger.tell_of_change('tenants')
    """)
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER UPDATE ON ledger.plans FOR EACH ROW
        WHEN (OLD IS DISTINCT FROM NEW) EXECUTE FUNCTION ledger.tell_of_change('plans')
    """)


def _policies() -> None:
    for table in ("tenants", "projects", "users", "api_keys", "quota_use"):
        tenant = "id" if table == "tenants" else "tenant"
        op.execute(f"ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE ledger.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY own_tenant ON ledger.{table}
            USING ({tenant} = current_setting('pagemesh.tenant', true))
            WITH CHECK ({tenant} = current_setting('pagemesh.tenant', true))
        """)
    # Whose a key is, is found out by its id: of all tenants' keys that one is seen, and nothing can be done to it.
    op.execute("""
        CREATE POLICY presented_key ON ledger.api_keys FOR SELECT
        USING (id = current_setting('pagemesh.key', true))
    """)
    # The operator's list. Whatever the operator changes is changed as its tenant.
    op.execute("""
        CREATE POLICY operator_sees ON ledger.tenants FOR SELECT
        USING (current_setting('pagemesh.across', true) = 'operator')
    """)
