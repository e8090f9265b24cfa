"""Projects and users of a tenant; a key may belong to both."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables. New columns are null: no row is written anew."""
    op.execute("""
        CREATE TABLE ledger.projects (
            tenant       text        NOT NULL REFERENCES ledger.tenants,
            id           text        NOT NULL CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
            display_name text        NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
            active       boolean     NOT NULL DEFAULT true,
            create_time  timestamptz NOT NULL,
            update_time  timestamptz NOT NULL,
            PRIMARY KEY (tenant, id)
        )
    """)
    op.execute("""
        CREATE TABLE ledger.users (
            tenant       text        NOT NULL REFERENCES ledger.tenants,
            id           text        NOT NULL CHECK (id ~ '^[0-9a-z]{16}$'),
            email        text        NOT NULL CHECK (char_length(email) BETWEEN 3 AND 254 AND email = lower(email)),
            display_name text        NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
            role         text        NOT NULL CHECK (role IN ('admin', 'operator', 'member', 'auditor')),
            active       boolean     NOT NULL DEFAULT true,
            create_time  timestamptz NOT NULL,
            update_time  timestamptz NOT NULL,
            PRIMARY KEY (tenant, id),
            UNIQUE (tenant, email)
        )
    """)
    op.execute("""
        ALTER TABLE ledger.tenants
        ADD COLUMN domain      text UNIQUE CHECK (char_length(domain) BETWEEN 1 AND 255 AND domain = lower(domain)),
        ADD COLUMN update_time timestamptz
    """)
    op.execute("ALTER TABLE ledger.api_keys ADD COLUMN project text, ADD COLUMN user_id text")
    for column, table in (("project", "projects"), ("user_id", "users")):
        # Not checked on the rows that are there, which have none: no lock is held while they are read.
        op.execute(f"""
            ALTER TABLE ledger.api_keys ADD CONSTRAINT api_keys_{column}_fkey
            FOREIGN KEY (tenant, {column}) REFERENCES ledger.{table} (tenant, id) NOT VALID
        """)
