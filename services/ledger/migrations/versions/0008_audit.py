"""The audit chain: events, the head of each tenant's chain, and where what is kept of it begins."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("audit_events", "audit_heads", "audit_checkpoints")


def upgrade() -> None:
    """Creates the tables and the partitions of three months. Nothing that is there is touched."""
    _events()
    _heads()
    _partitions()
    for table in _TABLES:
        _own_tenant(table)
    # Retention looks at the chains of all tenants, and changes none: it appends to each as that tenant.
    for table in ("audit_events", "audit_heads"):
        op.execute(f"""
            CREATE POLICY retention_sees ON ledger.{table} FOR SELECT
            USING (current_setting('pagemesh.across', true) = 'audit_retention')
        """)


def _events() -> None:
    op.execute("""
        CREATE TABLE ledger.audit_events (
            tenant          text        NOT NULL,
            sequence        bigint      NOT NULL CHECK (sequence >= 1),
            record_time     timestamptz NOT NULL,
            event_id        uuid        NOT NULL,
            occur_time      timestamptz NOT NULL,
            request_id      text        NOT NULL,
            actor           text        NOT NULL,
            client          text        NOT NULL CHECK (client ~ '^([0-9a-f]{32})?$'),
            action          text        NOT NULL,
            resource        text        NOT NULL,
            code            smallint    NOT NULL CHECK (code BETWEEN 0 AND 16),
            reason          text        NOT NULL,
            duration_micros bigint      NOT NULL CHECK (duration_micros >= 0),
            details         jsonb       NOT NULL CHECK (jsonb_typeof(details) = 'object'),
            previous_hash   bytea       NOT NULL CHECK (octet_length(previous_hash) = 32),
            hash            bytea       NOT NULL CHECK (octet_length(hash) = 32),
            PRIMARY KEY (tenant, sequence, record_time)
        ) PARTITION BY RANGE (record_time)
    """)
    op.execute("""
        COMMENT ON TABLE ledger.audit_events IS
        'One chain for each tenant. Partitions go by the time of chaining, which never runs back within a chain, so a
         partition that is dropped takes the beginning of each chain with it and nothing from its middle.'
    """)
    # Has this id been chained?
    op.execute("CREATE INDEX audit_events_by_id ON ledger.audit_events (tenant, event_id)")
    # For the list, newest first: all, of one actor, of one kind, of one thing, and what failed.
    order = "occur_time DESC, sequence DESC"
    op.execute(f"CREATE INDEX audit_events_by_time ON ledger.audit_events (tenant, {order})")
    op.execute(f"CREATE INDEX audit_events_by_actor ON ledger.audit_events (tenant, actor, {order})")
    op.execute(f"CREATE INDEX audit_events_by_action ON ledger.audit_events (tenant, action, {order})")
    op.execute(f"""
        CREATE INDEX audit_events_by_resource ON ledger.audit_events (tenant, resource, {order}) WHERE resource <> ''
    """)
    op.execute(f"CREATE INDEX audit_events_failed ON ledger.audit_events (tenant, {order}) WHERE code <> 0")
    # For each row: partitions get triggers of this kind with it, and statements that name a partition meet them too.
    op.execute("""
        CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE ON ledger.audit_events
        FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()
    """)
    _refuse_truncate("audit_events")


def _heads() -> None:
    op.execute("""
        CREATE TABLE ledger.audit_heads (
            tenant      text        PRIMARY KEY,
            sequence    bigint      NOT NULL CHECK (sequence >= 1),
            hash        bytea       NOT NULL CHECK (octet_length(hash) = 32),
            record_time timestamptz NOT NULL
        ) WITH (fillfactor = 50)
    """)
    op.execute("""
        COMMENT ON TABLE ledger.audit_heads IS
        'The newest record of each chain, changed in the transaction that appends to it.'
    """)
    op.execute("""
        CREATE TABLE ledger.audit_checkpoints (
            tenant      text        NOT NULL,
            sequence    bigint      NOT NULL CHECK (sequence >= 1),
            hash        bytea       NOT NULL CHECK (octet_length(hash) = 32),
            record_time timestamptz NOT NULL,
            PRIMARY KEY (tenant, sequence)
        )
    """)
    op.execute("""
        COMMENT ON TABLE ledger.audit_checkpoints IS
        'The last record of each chain in each partition that was dropped: what the first one that is kept is chained
         to. The chain says the same of itself, in an event.'
    """)
    op.execute("""
        CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE ON ledger.audit_checkpoints
        FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change()
    """)
    _refuse_truncate("audit_checkpoints")


def _partitions() -> None:
    # Attached, which lets readers and writers of the other partitions go on; made as one, it would lock them out.
    op.execute("""
        CREATE FUNCTION ledger.add_audit_partition(at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            first timestamp := date_trunc('month', at AT TIME ZONE 'UTC');
            start timestamptz := first AT TIME ZONE 'UTC';
            finish timestamptz := (first + interval '1 month') AT TIME ZONE 'UTC';
            name text := 'audit_events_' || to_char(first, 'YYYY_MM');
        BEGIN
            PERFORM pg_advisory_xact_lock(7109, 0);
            IF to_regclass('ledger.' || name) IS NOT NULL THEN
                RETURN;
            END IF;
            EXECUTE format('CREATE TABLE ledger.%I (LIKE ledger.audit_events INCLUDING CONSTRAINTS)', name);
            EXECUTE format('ALTER TABLE ledger.%I ADD CHECK (record_time >= %L AND record_time < %L)',
                           name, start, finish);
            -- Without a policy: rows are reached through the parent alone.
            EXECUTE format('ALTER TABLE ledger.%I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE ledger.%I FORCE ROW LEVEL SECURITY', name);
            EXECUTE format('CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ledger.%I
                            FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', name);
            EXECUTE format('ALTER TABLE ledger.audit_events ATTACH PARTITION ledger.%I FOR VALUES FROM (%L) TO (%L)',
                           name, start, finish);
        END $$
    """)
    for months in (0, 1, 2):
        op.execute(f"SELECT ledger.add_audit_partition(now() + interval '{months} months')")


def _refuse_truncate(table: str) -> None:
    op.execute(f"""
        CREATE TRIGGER never_emptied BEFORE TRUNCATE ON ledger.{table}
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()
    """)


def _own_tenant(table: str) -> None:
    """A query that forgets its tenant finds nothing; FORCE, because the service owns the table."""
    op.execute(f"ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE ledger.{table} FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE POLICY own_tenant ON ledger.{table}
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
