"""Usage records in one partition for each month.

The table that was there becomes the first partition, with all months up to the end of the one after its last record:
no row is moved. The ids of its rows are copied in batches, each a transaction of its own, while replicas go on
recording; the swap itself takes the time of a rename. A replica of an older release cannot record after it (it leaves
`user_name` out, which has no default any more): its callers repeat what they sent until a newer one answers.

Every step may be repeated: a run that was broken off is started again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BATCH = 5_000
_TENANT_TABLES = ("usage_records", "usage_ids", "usage_deltas", "usage_rollups")


def upgrade() -> None:
    """Copies ids, swaps the tables, makes the coming months, and puts row-level security on all of it."""
    with op.get_context().autocommit_block():
        last = _copy_ids()
        op.execute("ALTER TABLE ledger.usage_records DROP CONSTRAINT IF EXISTS months_of_before")
        if last is not None:
            # Two steps: the first holds its lock for a moment, the second reads the table and hinders nobody.
            end = f"(date_trunc('month', greatest(now(), '{last}'::timestamptz), 'UTC') + interval '2 months')"
            bound = op.get_bind().execute(sa.text(f"SELECT {end}::text")).scalar_one()
            op.execute(
                "ALTER TABLE ledger.usage_records ADD CONSTRAINT months_of_before"
                f" CHECK (occur_time < '{bound}'::timestamptz) NOT VALID"
            )
            op.execute("ALTER TABLE ledger.usage_records VALIDATE CONSTRAINT months_of_before")
    _swap(None if last is None else str(bound))
    _months()
    for table in _TENANT_TABLES:
        _secure(table)


def _copy_ids() -> str | None:
    """The latest time of a record, or None where there is none; all records' ids are then in usage_ids."""
    connection = op.get_bind()
    connection.execute(sa.text("SET timezone = 'UTC'"))
    tenant, event_id = "", "00000000-0000-0000-0000-000000000000"
    while True:
        rows = connection.execute(
            sa.text("""
                SELECT tenant, event_id::text FROM ledger.usage_records
                WHERE (tenant, event_id) > (:tenant, CAST(:event_id AS uuid)) ORDER BY tenant, event_id LIMIT :batch
            """),
            {"tenant": tenant, "event_id": event_id, "batch": _BATCH},
        ).all()
        by_tenant: dict[str, list[str]] = {}
        for row_tenant, row_id in rows:
            by_tenant.setdefault(row_tenant, []).append(row_id)
        for of_tenant, ids in by_tenant.items():
            connection.execute(
                sa.text("SELECT ledger.take_in_usage(CAST(:ids AS uuid[]), :tenant)"), {"ids": ids, "tenant": of_tenant}
            )
        if len(rows) < _BATCH:
            break
        tenant, event_id = rows[-1]
    last = connection.execute(sa.text("SELECT max(occur_time)::text FROM ledger.usage_records")).scalar_one()
    return None if last is None else str(last)


def _swap(bound: str | None) -> None:
    # Nobody may record between the last look and the rename.
    op.execute("LOCK TABLE ledger.usage_records IN ACCESS EXCLUSIVE MODE")
    op.execute("DROP TRIGGER counted ON ledger.usage_records")
    op.execute("DROP FUNCTION ledger.take_in_usage()")
    op.execute("DROP FUNCTION ledger.take_in_usage(uuid[], text)")
    op.execute("ALTER TABLE ledger.usage_records RENAME TO usage_records_before")
    for name in ("pkey", "by_hold", "by_time", "by_request", "by_document"):
        op.execute(f"ALTER INDEX ledger.usage_records_{name} RENAME TO usage_records_before_{name}")
    op.execute("""
        CREATE TABLE ledger.usage_records (
            LIKE ledger.usage_records_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS
        ) PARTITION BY RANGE (occur_time)
    """)
    op.execute("ALTER TABLE ledger.usage_records DROP CONSTRAINT IF EXISTS months_of_before")
    op.execute("ALTER TABLE ledger.usage_records ALTER COLUMN user_name DROP DEFAULT")
    # For the list, newest first, and for sums out of the index alone; the same for one request and for one document.
    for name, columns, condition in (
        ("by_time", "", ""),
        ("by_request", "request_id, ", "WHERE request_id <> ''"),
        ("by_document", "document, ", "WHERE document <> ''"),
    ):
        op.execute(f"""
            CREATE INDEX usage_records_{name} ON ledger.usage_records
            (tenant, {columns}occur_time DESC, event_id DESC) INCLUDE (cost_micros) {condition}
        """)
    op.execute("""
        CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.usage_records
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()
    """)
    op.execute("""
        CREATE TRIGGER counted AFTER INSERT ON ledger.usage_records REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.queue_usage()
    """)
    op.execute("""
        CREATE TABLE ledger.usage_partitions (
            name       text        PRIMARY KEY,
            begin_time timestamptz NOT NULL,
            end_time   timestamptz NOT NULL CHECK (end_time > begin_time)
        )
    """)
    op.execute("COMMENT ON TABLE ledger.usage_partitions IS 'The partitions of usage_records; changed with them.'")
    if bound is None:
        # Under the lock and with nothing in it, unless somebody recorded since the look: then the rest fails, and the
        # revision is run again.
        op.execute("""
            DO $$ BEGIN
                IF EXISTS (SELECT FROM ledger.usage_records_before) THEN
                    RAISE EXCEPTION 'usage was recorded meanwhile; run the migration again';
                END IF;
            END $$
        """)
        op.execute("DROP TABLE ledger.usage_records_before")
        return
    op.execute(f"""
        ALTER TABLE ledger.usage_records ATTACH PARTITION ledger.usage_records_before
        FOR VALUES FROM (MINVALUE) TO ('{bound}')
    """)
    op.get_bind().execute(
        sa.text("INSERT INTO ledger.usage_partitions VALUES ('usage_records_before', '-infinity', :bound)"),
        {"bound": bound},
    )
    _secure("usage_records_before")


def _months() -> None:
    # Attaching takes no lock that recording or reading waits for; a table that is created as a partition would.
    op.execute("""
        CREATE FUNCTION ledger.make_usage_partition(of_time timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
            first_time timestamptz := date_trunc('month', of_time, 'UTC');
            last_time timestamptz := date_add(date_trunc('month', of_time, 'UTC'), interval '1 month', 'UTC');
            partition text := 'usage_records_' || to_char(of_time AT TIME ZONE 'UTC', '"y"YYYY"m"MM');
        BEGIN
            IF EXISTS (SELECT FROM ledger.usage_partitions WHERE begin_time < last_time AND end_time > first_time) THEN
                RETURN false;
            END IF;
            PERFORM pg_advisory_xact_lock(7102, 0);
            INSERT INTO ledger.usage_partitions VALUES (partition, first_time, last_time) ON CONFLICT DO NOTHING;
            IF NOT FOUND THEN
                RETURN false;
            END IF;
            EXECUTE format('CREATE TABLE ledger.%I (LIKE ledger.usage_records INCLUDING ALL)', partition);
            EXECUTE format('ALTER TABLE ledger.%I ENABLE ROW LEVEL SECURITY', partition);
            EXECUTE format('ALTER TABLE ledger.%I FORCE ROW LEVEL SECURITY', partition);
            EXECUTE format($p$CREATE POLICY own_tenant ON ledger.%I
                USING (tenant = current_setting('pagemesh.tenant', true))
                WITH CHECK (tenant = current_setting('pagemesh.tenant', true))$p$, partition);
            EXECUTE format($p$CREATE POLICY retention_reads ON ledger.%I FOR SELECT
                USING (current_setting('pagemesh.across', true) = 'usage_retention')$p$, partition);
            EXECUTE format('CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.%I'
                ' FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()', partition);
            EXECUTE format('ALTER TABLE ledger.usage_records ATTACH PARTITION ledger.%I FOR VALUES FROM (%L) TO (%L)',
                partition, first_time, last_time);
            RETURN true;
        END $$
    """)
    op.execute("""
        SELECT ledger.make_usage_partition(date_add(date_trunc('month', now(), 'UTC'), n * interval '1 month', 'UTC'))
        FROM generate_series(0, 3) n
    """)


def _secure(table: str) -> None:
    op.execute(f"ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE ledger.{table} FORCE ROW LEVEL SECURITY")
    op.execute(f"""
        CREATE POLICY own_tenant ON ledger.{table}
        USING (tenant = current_setting('pagemesh.tenant', true))
        WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
    """)
    across = {
        "usage_deltas": [("folding", "ALL", "usage_rollups")],
        "usage_rollups": [("folding", "ALL", "usage_rollups")],
        "usage_ids": [
            ("retention_reads", "SELECT", "usage_retention"),
            ("retention_removes", "DELETE", "usage_retention"),
        ],
        "usage_records_before": [("retention_reads", "SELECT", "usage_retention")],
    }
    for name, verb, word in across.get(table, []):
        op.execute(f"""
            CREATE POLICY {name} ON ledger.{table} FOR {verb}
            USING (current_setting('pagemesh.across', true) = '{word}')
        """)
