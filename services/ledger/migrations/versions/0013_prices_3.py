"""Version 3 of the price book."""

import tomllib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_PRICES = Path(__file__).parent.parent / "prices" / "0003.toml"


def upgrade() -> None:
    """Loads it, unless an operator has loaded a version of that number: then the list is theirs to keep up to date."""
    book = tomllib.loads(_PRICES.read_text())
    connection = op.get_bind()
    taken = sa.text("SELECT EXISTS (SELECT FROM ledger.price_books WHERE version = :version)")
    if connection.execute(taken, {"version": book["version"]}).scalar_one():
        return
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
