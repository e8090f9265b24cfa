"""Prices by page, and version 3 of the price book, which has some."""

import tomllib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None

_PRICES = Path(__file__).parent.parent / "prices" / "0003.toml"
_NONE = {"input_micros_per_million": 0, "output_micros_per_million": 0, "page_micros": 0}


def upgrade() -> None:
    """A column with a constant default is added without rewriting the table; checks come unproven, then are proven."""
    for table in ("prices", "price_overrides"):
        op.execute(f"ALTER TABLE ledger.{table} ADD COLUMN page_micros bigint NOT NULL DEFAULT 0")
        op.execute(f"""
            ALTER TABLE ledger.{table} ADD CONSTRAINT {table}_page_micros CHECK (
                page_micros BETWEEN 0 AND 1000000 AND
                (page_micros = 0 OR (input_micros_per_million = 0 AND output_micros_per_million = 0))
            ) NOT VALID
        """)
        op.execute(f"ALTER TABLE ledger.{table} VALIDATE CONSTRAINT {table}_page_micros")
        op.execute(f"""
            COMMENT ON COLUMN ledger.{table}.page_micros IS
                'Micro-units for a page, of a model that is priced by page: what is counted as sent are pages then'
        """)
    _load()


def _load() -> None:
    """Calls that are under way keep the version of their hold."""
    book = tomllib.loads(_PRICES.read_text())
    connection = op.get_bind()
    newest = connection.execute(sa.text("SELECT max(version) FROM ledger.price_books")).scalar_one()
    prices = [{**_NONE, **price} for price in book["price"]]
    if newest >= book["version"]:
        # An operator has loaded lists of their own: theirs goes on, with the prices by page that it has not.
        own = connection.execute(sa.text("SELECT * FROM ledger.prices WHERE version = :newest"), {"newest": newest})
        known = [dict(row) for row in own.mappings()]
        named = {price["model"] for price in known}
        prices = known + [price for price in prices if price["page_micros"] and price["model"] not in named]
    version = newest + 1
    connection.execute(
        sa.text("INSERT INTO ledger.price_books (version, currency) VALUES (:version, :currency)"),
        {"version": version, "currency": book["currency"]},
    )
    connection.execute(
        sa.text("""
            INSERT INTO ledger.prices (version, model, input_micros_per_million, output_micros_per_million, page_micros)
            VALUES (:version, :model, :input_micros_per_million, :output_micros_per_million, :page_micros)
        """),
        [{**price, "version": version} for price in prices],
    )
