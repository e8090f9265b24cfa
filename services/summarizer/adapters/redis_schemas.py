"""Versions of stored schemas in Redis: one hash for each schema, forgotten a day after it was used last."""

import json
from collections.abc import Awaitable
from datetime import datetime
from typing import cast

import redis.asyncio as redis
from prometheus_client import Counter

from services.runtime.breaker import Breaker
from services.runtime.errors import PagemeshError
from services.summarizer.adapters.guarded_redis import GuardedRedis
from services.summarizer.adapters.redis_cache import TIMEOUT_S
from services.summarizer.domain.schema_values import StoredSchema

VERSION = 1
TTL_S = 86_400
_LOOKUPS = Counter("pagemesh_summarizer_schema_cache", "Lookups of stored schemas, by outcome.", ["outcome"])
_FORGET_TIMES = 20
"""Nobody waits for a deletion as for an answer: so many times the usual time-out."""


class RedisSchemaCache:
    """SchemaCache on Redis. `client` is shared and not closed here."""

    def __init__(self, client: "redis.Redis", *, breaker: Breaker, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._guarded = GuardedRedis(breaker, timeout_s)

    async def get(self, tenant: str, schema_id: str, version: int) -> StoredSchema | None:
        """That version, or None where it is not known, cannot be read, or Redis does not answer in time."""
        read = lambda: cast("Awaitable[bytes | None]", self._client.hget(_key(tenant, schema_id), str(version)))  # noqa: E731
        try:
            data = await self._guarded(read)
        except PagemeshError:
            _LOOKUPS.labels("unavailable").inc()
            return None
        schema = _decode(tenant, schema_id, version, data) if data is not None else None
        _LOOKUPS.labels("hit" if schema else "unreadable" if data is not None else "miss").inc()
        return schema

    async def put(self, tenant: str, schema: StoredSchema) -> None:
        """Keeps it, if Redis answers in time."""
        try:
            await self._guarded(lambda: self._put(tenant, schema))
        except PagemeshError:
            _LOOKUPS.labels("put_failed").inc()

    async def forget(self, tenant: str, schema_id: str) -> None:
        """Forgets all versions. Raises Unavailable where Redis does not answer."""
        key = _key(tenant, schema_id)
        await self._guarded(lambda: self._client.unlink(key), times=_FORGET_TIMES)

    async def _put(self, tenant: str, schema: StoredSchema) -> None:
        key = _key(tenant, schema.schema_id)
        async with self._client.pipeline(transaction=True) as together:
            together.hset(key, str(schema.version), _encode(tenant, schema))
            together.expire(key, TTL_S)
            await together.execute()


def _key(tenant: str, schema_id: str) -> str:
    return f"pagemesh:schemas:{VERSION}:{tenant}:{schema_id}"


def _encode(tenant: str, schema: StoredSchema) -> str:
    name = [tenant, schema.schema_id, schema.version]
    return json.dumps([name, schema.content, schema.digest, schema.create_time.isoformat()])


def _decode(tenant: str, schema_id: str, version: int, data: bytes) -> StoredSchema | None:
    """The schema; None for what cannot be read, or is somebody else's."""
    try:
        name, content, digest, create_time = json.loads(data)
        if name != [tenant, schema_id, version] or not isinstance(content, dict):
            return None
        return StoredSchema(schema_id, version, content, digest, datetime.fromisoformat(create_time))
    except (ValueError, TypeError):
        return None
