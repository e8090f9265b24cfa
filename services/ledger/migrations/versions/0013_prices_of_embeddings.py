"""The next version of the price book: the newest one, and the prices of embeddings."""

import tomllib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0014"
branch_labels = None
depends_on = None

_PRICES = Path(__file__).parent.parent / "prices" / "0004.toml"


def upgrade() -> None:
    """Adds what the newest list has not, be it an operator's own; calls under way keep the version of their hold."""
    book = tomllib.loads(_PRICES.read_text())
    connection = op.get_bind()
    newest = connection.execute(sa.text("SELECT max(version) FROM ledger.price_books")).scalar_one()
    versions = {"newest": newest, "version": newest + 1}
    connection.execute(
        sa.text("INSERT INTO ledger.price_books (version, currency) VALUES (:version, :currency)"),
        {"version": newest + 1, "currency": book["currency"]},
    )
    connection.execute(
        sa.text("""
            INSERT INTO ledger.prices (version, model, input_micros_per_million, output_micros_per_million, page_micros)
            SELECT :version, model, input_micros_per_million, output_micros_per_million, page_micros
            FROM ledger.prices WHERE version = :newest
        """),
        versions,
    )
    connection.execute(
        sa.text("""
            INSERT INTO ledger.prices (version, model, input_micros_per_million, output_micros_per_million)
            VALUES (:version, :model, :input_micros_per_million, 0) ON CONFLICT DO NOTHING
        """),
        [{"version": newest + 1, **price} for price in book["price"]],
    )
