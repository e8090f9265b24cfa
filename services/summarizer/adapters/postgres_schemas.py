"""Stored schemas in Postgres. Row-level security shows each transaction its own tenant's only."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from services.database.pool import Pool, translate
from services.summarizer.domain.json_schema import canonical
from services.summarizer.domain.schema_values import StoredSchema, check_room

_COLUMNS = "s.schema_id, s.version, s.content, s.digest, s.create_time"
# Creations of a tenant come one after the other: numbers and bounds are counted. Released with the transaction.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('schemas/' || %(tenant)s, 0))"
_SAME = f"""
    SELECT {_COLUMNS} FROM summarizer.schemas s
    WHERE s.tenant = %(tenant)s AND s.schema_id = %(schema_id)s AND s.digest = %(digest)s
"""  # noqa: S608 - put together of constants
_COUNTS = """
    SELECT (SELECT count(*) FROM summarizer.schema_ids
            WHERE tenant = %(tenant)s AND latest_version IS NOT NULL AND schema_id <> %(schema_id)s),
           (SELECT count(*) FROM summarizer.schemas WHERE tenant = %(tenant)s AND schema_id = %(schema_id)s)
"""
_NEXT = """
    INSERT INTO summarizer.schema_ids AS i (tenant, schema_id, last_version, latest_version)
    SELECT %(tenant)s, %(schema_id)s, given.number, given.number
    FROM (SELECT 1 + coalesce(max(last_version), 0) AS number FROM summarizer.schema_ids
          WHERE tenant = %(tenant)s AND schema_id = '') given
    ON CONFLICT (tenant, schema_id) DO UPDATE
    SET last_version = i.last_version + 1, latest_version = i.last_version + 1
    RETURNING last_version
"""
_ADD = f"""
    INSERT INTO summarizer.schemas AS s (tenant, schema_id, version, digest, content)
    VALUES (%(tenant)s, %(schema_id)s, %(version)s, %(digest)s, %(content)s)
    RETURNING {_COLUMNS}
"""  # noqa: S608 - put together of constants
_FIND = f"""
    SELECT {_COLUMNS} FROM summarizer.schemas s
    WHERE s.tenant = %(tenant)s AND s.schema_id = %(schema_id)s AND s.version = %(version)s
"""  # noqa: S608 - put together of constants
_LATEST = f"""
    SELECT {_COLUMNS}
    FROM summarizer.schema_ids i
    JOIN summarizer.schemas s ON s.tenant = i.tenant AND s.schema_id = i.schema_id AND s.version = i.latest_version
    WHERE i.tenant = %(tenant)s AND i.schema_id = %(schema_id)s
"""  # noqa: S608 - put together of constants
LATEST_OF_EACH = f"""
    SELECT {_COLUMNS}
    FROM summarizer.schema_ids i
    JOIN summarizer.schemas s ON s.tenant = i.tenant AND s.schema_id = i.schema_id AND s.version = i.latest_version
    WHERE i.tenant = %(tenant)s AND i.latest_version IS NOT NULL AND i.schema_id > %(after)s
    ORDER BY i.schema_id
    LIMIT %(limit)s
"""  # noqa: S608 - put together of constants
VERSIONS = f"""
    SELECT {_COLUMNS} FROM summarizer.schemas s
    WHERE s.tenant = %(tenant)s AND s.schema_id = %(schema_id)s AND (%(below)s = 0 OR s.version < %(below)s)
    ORDER BY s.version DESC
    LIMIT %(limit)s
"""  # noqa: S608 - put together of constants
_DELETE = "DELETE FROM summarizer.schemas WHERE tenant = %(tenant)s AND schema_id = %(schema_id)s"
_END = """
    UPDATE summarizer.schema_ids SET latest_version = NULL WHERE tenant = %(tenant)s AND schema_id = %(schema_id)s
"""
# Of the ids that were deleted so many are remembered. Where there are more, those with the lowest numbers become one
# row without an id: an id that nobody remembers begins behind the highest number that any of them had.
_FORGET = """
    WITH gone AS (
        DELETE FROM summarizer.schema_ids WHERE tenant = %(tenant)s AND schema_id IN (
            SELECT schema_id FROM summarizer.schema_ids
            WHERE tenant = %(tenant)s AND latest_version IS NULL AND schema_id <> ''
            ORDER BY last_version DESC, schema_id OFFSET %(most_deleted)s
        )
        RETURNING last_version
    )
    INSERT INTO summarizer.schema_ids AS i (tenant, schema_id, last_version, latest_version)
    SELECT %(tenant)s, '', max(last_version), NULL FROM gone HAVING count(*) > 0
    ON CONFLICT (tenant, schema_id) DO UPDATE SET last_version = greatest(i.last_version, excluded.last_version)
"""

_Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class PostgresSchemas:
    """SchemaStore on Postgres."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(
        self,
        tenant: str,
        schema_id: str,
        content: Mapping[str, object],
        digest: str,
        *,
        most_ids: int,
        most_versions: int,
    ) -> tuple[StoredSchema, bool]:
        """The version with that content, and whether it is new."""
        row = {"tenant": tenant, "schema_id": schema_id, "digest": digest, "content": canonical(content)}
        with translate("schemas.add"):
            async with self._pool.connection() as connection, connection.transaction():
                await _as_tenant(connection, tenant)
                await connection.execute(_LOCK, row)
                same = await (await connection.execute(_SAME, row)).fetchone()
                if same is not None:
                    return _schema(same), False
                counts = await (await connection.execute(_COUNTS, row)).fetchone()
                assert counts is not None
                check_room(tenant, counts[0], counts[1], most_ids=most_ids, most_versions=most_versions)
                number = await (await connection.execute(_NEXT, row)).fetchone()
                assert number is not None
                added = await (await connection.execute(_ADD, {**row, "version": number[0]})).fetchone()
                assert added is not None
        return _schema(added), True

    async def find(self, tenant: str, schema_id: str, version: int) -> StoredSchema | None:
        """That version, the latest for 0."""
        row = {"tenant": tenant, "schema_id": schema_id, "version": version}
        found = await self._read("schemas.find", tenant, _FIND if version else _LATEST, row)
        return found[0] if found else None

    async def latest(self, tenant: str, after: str, limit: int) -> Sequence[StoredSchema]:
        """The latest version of each schema after that id."""
        return await self._read(
            "schemas.latest", tenant, LATEST_OF_EACH, {"tenant": tenant, "after": after, "limit": limit}
        )

    async def versions(self, tenant: str, schema_id: str, below: int, limit: int) -> Sequence[StoredSchema]:
        """The versions of a schema, the latest first."""
        row = {"tenant": tenant, "schema_id": schema_id, "below": below, "limit": limit}
        return await self._read("schemas.versions", tenant, VERSIONS, row)

    async def delete(self, tenant: str, schema_id: str, *, most_deleted: int) -> int:
        """Deletes all its versions."""
        row = {"tenant": tenant, "schema_id": schema_id, "most_deleted": most_deleted}
        with translate("schemas.delete"):
            async with self._pool.connection() as connection, connection.transaction():
                await _as_tenant(connection, tenant)
                await connection.execute(_LOCK, row)
                await connection.execute(_END, row)
                count = (await connection.execute(_DELETE, row)).rowcount
                await connection.execute(_FORGET, row)
                return count

    async def _read(self, operation: str, tenant: str, query: str, row: Mapping[str, object]) -> list[StoredSchema]:
        with translate(operation):
            async with self._pool.connection() as connection, connection.transaction():
                await _as_tenant(connection, tenant)
                rows = await (await connection.execute(query, row)).fetchall()
        return [_schema(found) for found in rows]


async def _as_tenant(connection: _Connection, tenant: str) -> None:
    await connection.execute("SELECT set_config('pagemesh.tenant', %s, true)", (tenant,))


def _schema(row: tuple[Any, ...]) -> StoredSchema:
    schema_id, version, content, digest, create_time = row
    return StoredSchema(schema_id, version, json.loads(content), digest, create_time)
