"""Forward-only migrations with Alembic, one history for each service in that service's own schema."""

import time
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

_LOCK = "SELECT pg_try_advisory_lock(hashtext('pagemesh-migrate-' || :schema))"
_LOOK_AGAIN_S = 0.2


def migrate(dsn: str, *, directory: Path, schema: str) -> None:
    """Brings `schema` to the newest revision in `directory`/versions.

    Several replicas may call it at once: an advisory lock lets them through one by one. Each revision is one
    transaction, and waits at most 5 s for a table's lock, so that it gives way to traffic instead of queueing it.
    """
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    url = sa.make_url(dsn).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": 5})
    with engine.connect() as guard, engine.connect() as connection:
        # Asked for again and again, each time by itself: who waited for it in a statement would have a
        # snapshot, and an index that is made concurrently waits for all of them.
        guard.execution_options(isolation_level="AUTOCOMMIT")
        while not guard.execute(sa.text(_LOCK), {"schema": schema}).scalar_one():
            time.sleep(_LOOK_AGAIN_S)
        connection.execute(sa.text("SET lock_timeout = '5s'"))
        connection.execute(sa.text(f'SET search_path = "{schema}"'))
        connection.commit()
        with EnvironmentContext(
            config,
            script,
            fn=lambda revision, _: script._upgrade_revs("head", revision),
            destination_rev="head",
        ) as environment:
            environment.configure(
                connection=connection,
                version_table="schema_version",
                version_table_schema=schema,
                transaction_per_migration=True,
            )
            with environment.begin_transaction():
                environment.run_migrations()
        connection.commit()
    engine.dispose()
