"""Stored schemas in memory, for tests and for trying things out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from services.summarizer.domain.schema_values import StoredSchema, check_room


class MemorySchemas:
    """SchemaStore in one process."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], dict[int, StoredSchema]] = {}
        self._last: dict[tuple[str, str], int] = {}

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
        versions = self._of(tenant, schema_id)
        same = next((schema for schema in versions.values() if schema.digest == digest), None)
        if same is not None:
            return same, False
        others = sum(bool(v) for (owner, other), v in self._versions.items() if owner == tenant and other != schema_id)
        check_room(tenant, others, len(versions), most_ids=most_ids, most_versions=most_versions)
        number = self._last[tenant, schema_id] = (
            self._last.get((tenant, schema_id)) or self._last.get((tenant, ""), 0)
        ) + 1
        schema = StoredSchema(schema_id, number, content, digest, datetime.now(UTC))
        self._versions[tenant, schema_id] = {**versions, number: schema}
        return schema, True

    async def find(self, tenant: str, schema_id: str, version: int) -> StoredSchema | None:
        """That version, the latest for 0."""
        versions = self._of(tenant, schema_id)
        return versions.get(version or max(versions, default=0))

    async def latest(self, tenant: str, after: str, limit: int) -> Sequence[StoredSchema]:
        """The latest version of each schema after that id."""
        own = sorted(
            (other, v) for (owner, other), v in self._versions.items() if owner == tenant and other > after and v
        )
        return [versions[max(versions)] for _, versions in own[:limit]]

    async def versions(self, tenant: str, schema_id: str, below: int, limit: int) -> Sequence[StoredSchema]:
        """The versions of a schema, the latest first."""
        versions = self._of(tenant, schema_id)
        return [versions[number] for number in sorted(versions, reverse=True) if not below or number < below][:limit]

    async def delete(self, tenant: str, schema_id: str, *, most_deleted: int) -> int:
        """Deletes all its versions."""
        count = len(self._versions.pop((tenant, schema_id), {}))
        deleted = sorted(
            (-last, other)
            for (owner, other), last in self._last.items()
            if owner == tenant and other and not self._of(tenant, other)
        )
        for last, other in deleted[most_deleted:]:
            del self._last[tenant, other]
            self._last[tenant, ""] = max(self._last.get((tenant, ""), 0), -last)
        return count

    def _of(self, tenant: str, schema_id: str) -> dict[int, StoredSchema]:
        return self._versions.get((tenant, schema_id), {})


class MemorySchemaCache:
    """SchemaCache that forgets when it is told to."""

    def __init__(self) -> None:
        self._schemas: dict[tuple[str, str], dict[int, StoredSchema]] = {}

    async def get(self, tenant: str, schema_id: str, version: int) -> StoredSchema | None:
        """That version, where it is known."""
        return self._schemas.get((tenant, schema_id), {}).get(version)

    async def put(self, tenant: str, schema: StoredSchema) -> None:
        """Keeps a version."""
        self._schemas.setdefault((tenant, schema.schema_id), {})[schema.version] = schema

    async def forget(self, tenant: str, schema_id: str) -> None:
        """Forgets all versions."""
        self._schemas.pop((tenant, schema_id), None)
