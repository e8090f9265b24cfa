"""Databases as a release before left them."""

from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

_ROOT = Path(__file__).parents[1]


def upgrade_to(dsn: str, service: str, revision: str) -> None:
    """As `migrate` does, up to one revision of the service's schema."""
    config = Config()
    config.set_main_option("script_location", str(_ROOT / "services" / service / "migrations"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    engine = sa.create_engine(sa.make_url(dsn).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        with EnvironmentContext(
            config, script, fn=lambda current, _: script._upgrade_revs(revision, current), destination_rev=revision
        ) as environment:
            environment.configure(
                connection=connection,
                version_table="schema_version",
                version_table_schema=service,
                transaction_per_migration=True,
            )
            with environment.begin_transaction():
                environment.run_migrations()
        connection.commit()
    engine.dispose()
