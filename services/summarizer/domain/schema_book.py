"""The use cases of stored schemas."""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from services.runtime.errors import FieldViolation, InvalidArgument, NotFound, PagemeshError
from services.summarizer.domain.json_schema import check
from services.summarizer.domain.ports_schemas import SchemaCache, SchemaStore
from services.summarizer.domain.schema_values import StoredSchema, parse_name

MAX_SCHEMAS = 1_000
"""Schemas of one tenant."""
MAX_VERSIONS = 200
"""Versions of one schema."""
MAX_DELETED = 1_000
"""Ids of deleted schemas of one tenant that are remembered each, so that no version number is given twice."""
DEFAULT_PAGE_SIZE = 50


class SchemaBook:
    """Makes, finds, lists and deletes the schemas of tenants. `counted(outcome)` hears of each version that is asked to
    be kept: `created` or `known`."""

    def __init__(self, *, store: SchemaStore, cache: SchemaCache, counted: Callable[[str], None]) -> None:
        self._store = store
        self._cache = cache
        self._counted = counted

    async def create(self, tenant: str, schema_id: str, content: Mapping[str, object]) -> tuple[StoredSchema, bool]:
        """The version with that content, and whether it was made now. Raises InvalidArgument SCHEMA_INVALID or
        SCHEMA_TOO_LARGE, ResourceExhausted SCHEMAS_FULL."""
        checked = await asyncio.to_thread(check, content)
        plain = json.loads(checked.text)
        schema, created = await self._store.add(
            tenant, schema_id, plain, checked.digest, most_ids=MAX_SCHEMAS, most_versions=MAX_VERSIONS
        )
        self._counted("created" if created else "known")
        return schema, created

    async def get(self, tenant: str, name: str) -> StoredSchema:
        """That version, or the latest of `schemas/{id}`. Raises NotFound SCHEMA_NOT_FOUND."""
        schema_id, version = parse_name(name)
        # Which one is the latest is asked every time; a version never changes.
        known = await self._cache.get(tenant, schema_id, version) if version else None
        if known is not None:
            return known
        schema = await self._store.find(tenant, schema_id, version)
        if schema is None:
            raise _not_found(name)
        if version:
            await self._keep(tenant, schema)
        return schema

    async def list(
        self, tenant: str, *, versions_of: str, page_size: int, page_token: str
    ) -> tuple[Sequence[StoredSchema], str]:
        """A part of the list and the token of the next one: the latest version of each schema, or all versions of one.
        Raises InvalidArgument INVALID_PAGE_TOKEN."""
        size = page_size or DEFAULT_PAGE_SIZE
        after = _decode(page_token, versions_of) if page_token else ""
        if versions_of:
            schema_id, _ = parse_name(versions_of)
            found = await self._store.versions(tenant, schema_id, int(after or 0), size + 1)
        else:
            found = await self._store.latest(tenant, after, size + 1)
        if len(found) <= size:
            return found, ""
        last = found[size - 1]
        return found[:size], _encode(str(last.version) if versions_of else last.schema_id, versions_of)

    async def delete(self, tenant: str, name: str) -> int:
        """Deletes a schema; answers how many versions it had. Raises NotFound SCHEMA_NOT_FOUND."""
        schema_id, _ = parse_name(name)
        count = await self._store.delete(tenant, schema_id, most_deleted=MAX_DELETED)
        # Also where nothing was left: it may be the second try of one who lost the cache at the first.
        await self._cache.forget(tenant, schema_id)
        if not count:
            raise _not_found(name)
        return count

    async def _keep(self, tenant: str, schema: StoredSchema) -> None:
        await self._cache.put(tenant, schema)
        # Asked afterwards: whoever deletes it does so before the cache forgets, so one of both finds it there.
        try:
            gone = await self._store.find(tenant, schema.schema_id, schema.version) is None
        except PagemeshError:
            gone = True  # nobody knows
        if gone:
            with contextlib.suppress(PagemeshError):
                await self._cache.forget(tenant, schema.schema_id)


def _not_found(name: str) -> NotFound:
    return NotFound("SCHEMA_NOT_FOUND", f"There is no {name}. ListSchemas has those that there are.")


def _encode(after: str, listed: str) -> str:
    return base64.urlsafe_b64encode(_digest(listed) + after.encode()).rstrip(b"=").decode()


def _decode(token: str, listed: str) -> str:
    """Where the list goes on. Raises InvalidArgument INVALID_PAGE_TOKEN where the token is not one of this list."""
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = packed[8:].decode("ascii")
        valid = packed[:8] == _digest(listed) and (not listed or 0 < int(after) < 10**7) and "\0" not in after
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        message = "must be the next_page_token of an answer to the same list"
        raise InvalidArgument("INVALID_PAGE_TOKEN", message, fields=[FieldViolation("page_token", message)])
    return after


def _digest(listed: str) -> bytes:
    return hashlib.sha256(f"schemas:{listed}".encode()).digest()[:8]
