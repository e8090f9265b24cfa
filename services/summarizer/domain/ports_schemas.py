"""What stored schemas need from outside."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.summarizer.domain.schema_values import StoredSchema


class SchemaStore(Protocol):
    """Schemas that are kept. Errors: Unavailable, DeadlineExceeded."""

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
        """The version with that content, and whether it is new. Version numbers are never given twice, also after a
        deletion. Raises ResourceExhausted SCHEMAS_FULL where the tenant has `most_ids` others, or the schema
        `most_versions` versions."""
        ...

    async def find(self, tenant: str, schema_id: str, version: int) -> StoredSchema | None:
        """That version, the latest for 0; None where there is none."""
        ...

    async def latest(self, tenant: str, after: str, limit: int) -> Sequence[StoredSchema]:
        """The latest version of each schema whose id is greater than `after`, by id."""
        ...

    async def versions(self, tenant: str, schema_id: str, below: int, limit: int) -> Sequence[StoredSchema]:
        """The versions of a schema under the number `below`, 0 for no bound, the latest first."""
        ...

    async def delete(self, tenant: str, schema_id: str, *, most_deleted: int) -> int:
        """Deletes all its versions; answers how many there were. Of the ids that were deleted `most_deleted` are
        remembered; one that is not begins anew behind every number that any such id ever had."""
        ...


class SchemaCache(Protocol):
    """Versions of schemas, kept for a day. It may forget at any moment; only `forget` raises, Unavailable."""

    async def get(self, tenant: str, schema_id: str, version: int) -> StoredSchema | None:
        """That version, where it is known."""
        ...

    async def put(self, tenant: str, schema: StoredSchema) -> None:
        """Keeps a version for a day."""
        ...

    async def forget(self, tenant: str, schema_id: str) -> None:
        """Forgets all versions. Raises Unavailable where that is not certain."""
        ...
