"""Whether the schema of a service is as its code needs it."""

import re
import time
from pathlib import Path

from psycopg import AsyncConnection, sql
from psycopg.errors import UndefinedTable

from services.database.pool import Pool, ping
from services.runtime.errors import Unavailable

LOOK_AGAIN_S = 60.0
"""How long a schema that was right is trusted: only somebody who restores a backup makes it older."""
_NAMED = re.compile(r'^(revision|down_revision)\b[^=\n]*= *"(\w+)"', re.MULTILINE)


def revisions(directory: Path) -> tuple[str, frozenset[str]]:
    """The newest revision in `directory`/versions, and all of them, without loading Alembic.

    Raises ValueError where not exactly one is followed by no other.
    """
    named = [dict(_NAMED.findall(path.read_text())) for path in (directory / "versions").glob("*.py")]
    known = frozenset(names["revision"] for names in named)
    newest = known - {names.get("down_revision") for names in named}
    if len(newest) != 1:
        raise ValueError(f"{directory} has {len(newest)} newest revisions")
    return next(iter(newest)), known


class SchemaCheck:
    """The check of a service's database: that it answers, and that its schema is not older than the code.

    A schema that is newer is right: replicas of the release before serve on while it is rolled out.
    """

    def __init__(self, pool: Pool, *, service: str, directory: Path) -> None:
        """`service` is the name of the schema too; its migrations are in `directory`."""
        self._pool = pool
        self._service = service
        self._newest, self._known = revisions(directory)
        self._right_at = float("-inf")
        self._ask = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(service, "schema_version"))

    async def __call__(self) -> None:
        """Raises Unavailable, with what to run, where the schema is older; psycopg's errors where nobody answers."""
        if time.monotonic() - self._right_at < LOOK_AGAIN_S:
            await ping(self._pool)
            return
        async with self._pool.connection() as connection:
            found = await self._revision(connection)
        if found != self._newest and (found is None or found in self._known):
            raise Unavailable(
                "SCHEMA_BEHIND",
                f"The database's schema is at revision {found or 'none'}, and this release needs {self._newest}. "
                f"Run `python -m services.{self._service} migrate`.",
            )
        self._right_at = time.monotonic()

    async def _revision(self, connection: "AsyncConnection[tuple[str, ...]]") -> str | None:
        """None where nothing was ever migrated."""
        try:
            row = await (await connection.execute(self._ask)).fetchone()
        except UndefinedTable:
            return None
        return row[0] if row else None
