"""Version 2 of the price book."""

import tomllib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_PRICES = Path(__file__).parent.parent / "prices" / "0002.toml"


def upgrade() -> None:
    """Loads it; calls that are under way keep the version of their hold."""
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
