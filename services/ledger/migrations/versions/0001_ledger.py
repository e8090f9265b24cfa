"""Tenants, keys, prices, budgets, holds and usage records."""

import tomllib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_PRICES = Path(__file__).parent.parent / "prices" / "0001.toml"


def upgrade() -> None:
    """Creates the schema's tables and loads version 1 of the price book."""
    _tenants()
    _api_keys()
    _price_books()
    _budgets()
    _holds()
    _usage_records()
    _load_prices()


def _tenants() -> None:
    op.execute("""
        CREATE TABLE ledger.tenants (
            id           text        PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
            display_name text        NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
            active       boolean     NOT NULL DEFAULT true,
            create_time  timestamptz NOT NULL
        )
    """)
    op.execute("""
        COMMENT ON TABLE ledger.tenants IS
        'Tenants are switched off, never deleted: holds and usage records name them without a foreign key, because
         its check would lock the same row of tenants for every call of the tenant.'
    """)


def _api_keys() -> None:
    op.execute("""
        CREATE TABLE ledger.api_keys (
            id           text        PRIMARY KEY CHECK (id ~ '^[0-9a-z]{16}$'),
            tenant       text        NOT NULL REFERENCES ledger.tenants,
            display_name text        NOT NULL CHECK (char_length(display_name) BETWEEN 1 AND 100),
            key_hash     bytea       NOT NULL CHECK (octet_length(key_hash) = 32),
            scopes       text[]      NOT NULL CHECK (cardinality(scopes) BETWEEN 1 AND 50),
            create_time  timestamptz NOT NULL,
            expire_time  timestamptz CHECK (expire_time > create_time),
            revoke_time  timestamptz
        )
    """)
    # Told by the tables themselves, so that a change by hand is heard by the services as well.
    op.execute("""
        CREATE FUNCTION ledger.tell_of_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('ledger_access', TG_ARGV[0] || '/' || NEW.id);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER UPDATE ON ledger.api_keys FOR EACH ROW
        WHEN (OLD IS DISTINCT FROM NEW) EXECUTE FUNCTION ledger.tell_of_change('apiKeys')
    """)
    op.execute("""
        CREATE TRIGGER tell_of_change AFTER UPDATE ON ledger.tenants FOR EACH ROW
        WHEN (OLD.active IS DISTINCT FROM NEW.active) EXECUTE FUNCTION ledger.tell_of_change('tenants')
    """)


def _price_books() -> None:
    op.execute("""
        CREATE TABLE ledger.price_books (
            version     integer     PRIMARY KEY CHECK (version >= 1),
            currency    text        NOT NULL CHECK (currency = 'USD'),
            create_time timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("""
        CREATE TABLE ledger.prices (
            version                   integer NOT NULL REFERENCES ledger.price_books,
            model                     text    NOT NULL CHECK (char_length(model) BETWEEN 3 AND 200),
            input_micros_per_million  bigint  NOT NULL CHECK (input_micros_per_million BETWEEN 0 AND 1000000000),
            output_micros_per_million bigint  NOT NULL CHECK (output_micros_per_million BETWEEN 0 AND 1000000000),
            PRIMARY KEY (version, model)
        )
    """)
    op.execute("""
        COMMENT ON COLUMN ledger.prices.model IS
        '{provider}/{model}, or the beginning of such a name followed by *'
    """)
    op.execute("""
        CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'rows of %.% are never changed', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
        END $$
    """)
    _append_only("price_books")
    _append_only("prices")


def _budgets() -> None:
    op.execute("""
        CREATE TABLE ledger.budgets (
            tenant         text   PRIMARY KEY REFERENCES ledger.tenants,
            hard_micros    bigint NOT NULL CHECK (hard_micros >= 0),
            settled_micros bigint NOT NULL CHECK (settled_micros >= 0),
            held_micros    bigint NOT NULL CHECK (held_micros >= 0)
        ) WITH (fillfactor = 20)
    """)
    op.execute("""
        COMMENT ON TABLE ledger.budgets IS
        'The hard budget of a tenant with the running totals that it is held against: settled_micros is the sum of its
         usage records, held_micros that of its open holds. A tenant without a budget has no row, and its calls lock
         none. The row is changed by every call of its tenant; the free space keeps those changes in its page.'
    """)


def _holds() -> None:
    op.execute("""
        CREATE TABLE ledger.holds (
            tenant             text        NOT NULL,
            hold_id            uuid        NOT NULL,
            state              text        NOT NULL CHECK (state IN ('HELD', 'SETTLED', 'RELEASED', 'UNKNOWN')),
            model              text        NOT NULL CHECK (char_length(model) BETWEEN 3 AND 200),
            max_input_tokens   bigint      NOT NULL CHECK (max_input_tokens >= 0),
            max_output_tokens  bigint      NOT NULL CHECK (max_output_tokens >= 0),
            amount_micros      bigint      NOT NULL CHECK (amount_micros >= 0),
            price_book_version integer     NOT NULL CHECK (price_book_version >= 1),
            actor              text        NOT NULL,
            create_time        timestamptz NOT NULL,
            expire_time        timestamptz NOT NULL CHECK (expire_time > create_time),
            PRIMARY KEY (tenant, hold_id)
        )
    """)
    # For the sum of what is held.
    op.execute("""
        CREATE INDEX holds_open ON ledger.holds (tenant) INCLUDE (amount_micros) WHERE state IN ('HELD', 'UNKNOWN')
    """)
    # For finding the holds whose time is over.
    op.execute("CREATE INDEX holds_due ON ledger.holds (expire_time) WHERE state = 'HELD'")


def _usage_records() -> None:
    op.execute("""
        CREATE TABLE ledger.usage_records (
            tenant             text        NOT NULL,
            event_id           uuid        NOT NULL,
            hold_id            uuid,
            model              text        NOT NULL CHECK (char_length(model) BETWEEN 3 AND 200),
            input_tokens       bigint      NOT NULL CHECK (input_tokens >= 0),
            output_tokens      bigint      NOT NULL CHECK (output_tokens >= 0),
            operation          text        NOT NULL CHECK (char_length(operation) BETWEEN 1 AND 63),
            document           text        NOT NULL,
            request_id         text        NOT NULL CHECK (char_length(request_id) <= 128),
            occur_time         timestamptz NOT NULL,
            tags               jsonb       NOT NULL CHECK (jsonb_typeof(tags) = 'object'),
            cost_micros        bigint      NOT NULL CHECK (cost_micros >= 0),
            price_book_version integer     NOT NULL CHECK (price_book_version >= 1),
            actor              text        NOT NULL,
            record_time        timestamptz NOT NULL,
            PRIMARY KEY (tenant, event_id)
        )
    """)
    # A hold is settled by one record.
    op.execute("""
        CREATE UNIQUE INDEX usage_records_by_hold ON ledger.usage_records (tenant, hold_id) WHERE hold_id IS NOT NULL
    """)
    # For the list, newest first, and for sums out of the index alone; the same for one request and for one document.
    op.execute("""
        CREATE INDEX usage_records_by_time ON ledger.usage_records
        (tenant, occur_time DESC, event_id DESC) INCLUDE (cost_micros)
    """)
    op.execute("""
        CREATE INDEX usage_records_by_request ON ledger.usage_records
        (tenant, request_id, occur_time DESC, event_id DESC) INCLUDE (cost_micros) WHERE request_id <> ''
    """)
    op.execute("""
        CREATE INDEX usage_records_by_document ON ledger.usage_records
        (tenant, document, occur_time DESC, event_id DESC) INCLUDE (cost_micros) WHERE document <> ''
    """)
    _append_only("usage_records")


def _append_only(table: str) -> None:
    op.execute(f"""
        CREATE TRIGGER never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.{table}
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change()
    """)


def _load_prices() -> None:
    book = tomllib.loads(_PRICES.read_text())
    connection = op.get_bind()
    connection.execute(
        sa.text("INSERT INTO ledger.price_books (version, currency) VALUES (:version, :currency)"),
        {"version": book["version"], "currency": book["currency"]},
    )
    connection.execute(
        sa.text("""
            INSERT INTO ledger.prices (version, model, input_micros_per_million, output_micros_per_million)
            VALUES (:version, :model, :input_micros_per_million, :output_micros_per_million)
        """),
        [{"version": book["version"], **price} for price in book["price"]],
    )
