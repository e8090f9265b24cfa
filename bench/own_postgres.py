"""A PostgreSQL of a benchmark's own, with the schema of one service."""

import contextlib
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pagemesh_cli.stack.ports import pick_free_port
from pagemesh_cli.stack.postgres import PostgresServer
from pagemesh_cli.stack.process import Process
from services.database.migrate import migrate

_ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def own_postgres(service: str) -> Iterator[str]:
    """The DSN of the service's role; down again whatever happens."""
    with tempfile.TemporaryDirectory(prefix="pm-bench-") as directory, contextlib.ExitStack() as stack:
        root = Path(directory)
        server = PostgresServer(
            directory=root / "pg", port=pick_free_port(), password=secrets.token_hex(8), log=root / "pg.log"
        )
        server.initialise()
        stack.callback(server.close)
        database = Process(server.spec())
        stack.callback(database.stop)
        database.wait_ready(server.check, timeout_s=60)
        passwords = {name: secrets.token_hex(8) for name in ("extractor", "summarizer", "ledger")}
        server.ensure_database("pagemesh")
        server.apply_roles(_ROOT / "deploy" / "postgres" / "roles.sql", passwords, database="pagemesh")
        dsn = server.dsn(service, passwords[service], database="pagemesh")
        migrate(dsn, directory=_ROOT / "services" / service / "migrations", schema=service)
        yield dsn
