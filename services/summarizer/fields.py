"""Composition of what extracts fields and keeps schemas; part of `__main__`."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import redis.asyncio as redis

from services.database.pool import Pool
from services.runtime.breaker import Breaker
from services.summarizer.adapters import field_signals, signals
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.postgres_schemas import PostgresSchemas
from services.summarizer.adapters.redis_schemas import RedisSchemaCache
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.extract_fields import ExtractFields, FieldsFlights
from services.summarizer.domain.field_maker import FieldMaker
from services.summarizer.domain.map_reduce import MapReduce
from services.summarizer.domain.models import Models
from services.summarizer.domain.personal_kinds import Policy
from services.summarizer.domain.savings import Savings
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.outside import CACHE_REST_S


@dataclass(frozen=True)
class Fields:
    """The use cases of this part."""

    extract: ExtractFields
    schemas: SchemaBook


def compose(
    *,
    policy: Policy,
    pool: Pool,
    client: "redis.Redis",
    models: Models,
    scans: Scans,
    map_reduce: MapReduce,
    keeper: Keeper,
    savings: Savings,
    flights: FieldsFlights,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> Fields:
    """What extracts fields and keeps schemas, over what summaries have already."""
    cache = RedisSchemaCache(client, breaker=Breaker("redis_schemas", reset_timeout_s=CACHE_REST_S))
    schemas = SchemaBook(store=PostgresSchemas(pool), cache=cache, counted=field_signals.schema_kept)
    extract = ExtractFields(
        models=models,
        pages=scans.pages,
        schemas=schemas,
        flights=flights,
        maker=FieldMaker(anonymised=signals.anonymised, scans=scans, map_reduce=map_reduce, act_as=act_as),
        keeper=keeper,
        savings=savings,
        new_id=new_id,
        now_s=time.time,
        policy=policy,
        failed_over=signals.failed_over,
    )
    return Fields(extract, schemas)
