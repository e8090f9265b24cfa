"""Budgets as resources, their totals by period, alerts, prices of single tenants, webhooks; walls between tenants."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables and moves the operator's hard budgets over.

    The old table of budgets is renamed first, which waits for the calls that move money: whoever still runs the release
    before this one is refused afterwards, and overspends nothing.
    """
    op.execute("ALTER TABLE ledger.budgets RENAME TO budgets_before")
    op.execute("ALTER INDEX ledger.budgets_pkey RENAME TO budgets_before_pkey")
    _budgets()
    _budget_periods()
    _budget_alerts()
    _take_over()
    _price_overrides()
    _webhooks()
    _walls()


def _budgets() -> None:
    op.execute("""
        CREATE TABLE ledger.budgets (
            tenant           text        NOT NULL REFERENCES ledger.tenants,
            id               text        COLLATE "C" NOT NULL CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
            subject          text        NOT NULL CHECK (subject ~ '^(tenants|projects|apiKeys|jobs)/[0-9a-z-]{1,63}$'),
            period           text        NOT NULL CHECK (period IN ('DAY', 'MONTH', 'TOTAL')),
            hard_micros      bigint      CHECK (hard_micros >= 0),
            soft_micros      bigint      CHECK (soft_micros >= 0),
            made_hard_micros bigint,
            made_soft_micros bigint,
            operator         boolean     NOT NULL,
            create_time      timestamptz NOT NULL,
            update_time      timestamptz NOT NULL,
            delete_time      timestamptz,
            rank             smallint    NOT NULL GENERATED ALWAYS AS (CASE split_part(subject, '/', 1)
                WHEN 'jobs' THEN 0 WHEN 'apiKeys' THEN 1 WHEN 'projects' THEN 2 ELSE 3 END) STORED,
            PRIMARY KEY (tenant, id),
            CHECK (hard_micros IS NOT NULL OR soft_micros IS NOT NULL)
        )
    """)
    op.execute("""
        COMMENT ON COLUMN ledger.budgets.rank IS
        'In which order the totals of budgets are locked and asked for room: job, key, project, tenant.'
    """)
    op.execute("""
        CREATE INDEX budgets_by_subject ON ledger.budgets (tenant, subject, id) WHERE delete_time IS NULL
    """)


def _budget_periods() -> None:
    # Changed by every call that counts against its budget: the free space keeps those changes in their page.
    op.execute("""
        CREATE TABLE ledger.budget_periods (
            tenant         text        NOT NULL,
            budget         text        COLLATE "C" NOT NULL,
            period_start   timestamptz NOT NULL,
            settled_micros bigint      NOT NULL CHECK (settled_micros >= 0),
            held_micros    bigint      NOT NULL CHECK (held_micros >= 0),
            hard_reached   smallint    NOT NULL DEFAULT 0,
            soft_reached   smallint    NOT NULL DEFAULT 0,
            PRIMARY KEY (tenant, budget, period_start)
        ) WITH (fillfactor = 50)
    """)
    op.execute("""
        COMMENT ON TABLE ledger.budget_periods IS
        'What counts against a budget in one period; 1970-01-01 begins the period of a budget that has no end. A new
         period is a new row, which its first call makes. reached is the highest threshold of each limit, in percent.'
    """)


def _budget_alerts() -> None:
    op.execute("""
        CREATE TABLE ledger.budget_alerts (
            tenant         text        NOT NULL,
            budget         text        COLLATE "C" NOT NULL,
            period_start   timestamptz NOT NULL,
            kind           text        NOT NULL CHECK (kind IN ('HARD', 'SOFT')),
            percent        smallint    NOT NULL CHECK (percent IN (50, 80, 100)),
            limit_micros   bigint      NOT NULL,
            settled_micros bigint      NOT NULL,
            held_micros    bigint      NOT NULL,
            reach_time     timestamptz NOT NULL,
            PRIMARY KEY (tenant, budget, period_start, kind, limit_micros, percent)
        )
    """)
    _append_only("budget_alerts")


def _take_over() -> None:
    op.execute("""
        INSERT INTO ledger.budgets (tenant, id, subject, period, hard_micros, made_hard_micros, operator, create_time,
                                    update_time)
        SELECT tenant, 'operator', 'tenants/' || tenant, 'TOTAL', hard_micros, hard_micros, true, now(), now()
        FROM ledger.budgets_before
    """)
    op.execute("""
        INSERT INTO ledger.budget_periods (tenant, budget, period_start, settled_micros, held_micros)
        SELECT tenant, 'operator', '1970-01-01T00:00:00Z', settled_micros, held_micros FROM ledger.budgets_before
    """)
    op.execute("DROP TABLE ledger.budgets_before")


def _price_overrides() -> None:
    op.execute("""
        CREATE TABLE ledger.price_overrides (
            tenant                    text        NOT NULL REFERENCES ledger.tenants,
            number                    integer     NOT NULL CHECK (number >= 1),
            model                     text        NOT NULL CHECK (char_length(model) BETWEEN 1 AND 200),
            start_time                timestamptz NOT NULL,
            input_micros_per_million  bigint      CHECK (input_micros_per_million BETWEEN 0 AND 1000000000),
            output_micros_per_million bigint      CHECK (output_micros_per_million BETWEEN 0 AND 1000000000),
            create_time               timestamptz NOT NULL,
            PRIMARY KEY (tenant, number),
            CHECK ((input_micros_per_million IS NULL) = (output_micros_per_million IS NULL))
        )
    """)
    op.execute("""
        COMMENT ON TABLE ledger.price_overrides IS
        'What a model costs one tenant from a time on; without prices it costs what the price book says again.'
    """)
    op.execute("""
        CREATE TABLE ledger.tenant_price_books (
            version      integer   GENERATED ALWAYS AS IDENTITY (START WITH 1000001) PRIMARY KEY,
            tenant       text      NOT NULL REFERENCES ledger.tenants,
            list_version integer   NOT NULL REFERENCES ledger.price_books,
            overrides    integer[] NOT NULL CHECK (cardinality(overrides) >= 1),
            UNIQUE (tenant, list_version, overrides)
        )
    """)
    op.execute("""
        COMMENT ON TABLE ledger.tenant_price_books IS
        'Which overrides over which version of the price book some holds and records of a tenant were priced with:
         their price_book_version is the version here, so that each charge can be computed again.'
    """)
    _append_only("price_overrides")
    _append_only("tenant_price_books")


def _webhooks() -> None:
    op.execute("""
        CREATE TABLE ledger.webhooks (
            tenant      text        NOT NULL REFERENCES ledger.tenants,
            id          text        COLLATE "C" NOT NULL CHECK (id ~ '^[0-9a-z]{16}$'),
            url         text        NOT NULL CHECK (char_length(url) BETWEEN 8 AND 2000),
            create_time timestamptz NOT NULL,
            delete_time timestamptz,
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("""
        CREATE TABLE ledger.webhook_deliveries (
            tenant       text        NOT NULL,
            id           uuid        NOT NULL,
            webhook      text        NOT NULL,
            body         text        NOT NULL CHECK (octet_length(body) <= 65536),
            state        text        NOT NULL CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
            attempts     integer     NOT NULL,
            due_time     timestamptz NOT NULL,
            create_time  timestamptz NOT NULL,
            end_time     timestamptz,
            last_failure text        NOT NULL CHECK (char_length(last_failure) <= 200),
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("CREATE INDEX webhook_deliveries_due ON ledger.webhook_deliveries (due_time) WHERE state = 'PENDING'")
    op.execute("CREATE INDEX webhook_deliveries_ended ON ledger.webhook_deliveries (end_time) WHERE state <> 'PENDING'")


def _walls() -> None:
    """Each tenant sees its own rows. What works over all tenants says which work it does, and sees what that needs."""
    for table in (
        "holds",
        "budgets",
        "budget_periods",
        "budget_alerts",
        "price_overrides",
        "tenant_price_books",
        "webhooks",
        "webhook_deliveries",
    ):
        op.execute(f"ALTER TABLE ledger.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE ledger.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY own_tenant ON ledger.{table}
            USING (tenant = current_setting('pagemesh.tenant', true))
            WITH CHECK (tenant = current_setting('pagemesh.tenant', true))
        """)
    _across("holds", "SELECT", "expiry", "state IN ('HELD', 'UNKNOWN')")
    _across("holds", "UPDATE", "expiry", "state = 'HELD'", check="state = 'UNKNOWN'")
    _across("budgets", "SELECT", "metrics", "operator")
    _across("budget_periods", "SELECT", "metrics", "budget = 'operator'")
    _across("webhooks", "SELECT", "webhooks", "delete_time IS NULL")
    _across("webhook_deliveries", "SELECT", "webhooks", "true")
    _across("webhook_deliveries", "UPDATE", "webhooks", "state = 'PENDING'", check="true")
    _across("webhook_deliveries", "DELETE", "webhooks", "state <> 'PENDING'")


def _across(table: str, verb: str, work: str, rows: str, *, check: str = "") -> None:
    doing = f"current_setting('pagemesh.across', true) = '{work}'"
    checked = f"WITH CHECK ({doing} AND {check})" if check else ""
    op.execute(f"""
        CREATE POLICY {work}_{verb.lower()}s ON ledger.{table} FOR {verb} USING ({doing} AND {rows}) {checked}
    """)


def _append_only(table: str) -> None:
    op.execute(f"""
        CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.{table}
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()
    """)
