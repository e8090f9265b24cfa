"""Everything that the summarizer talks to, opened and watched; part of `__main__`."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis.asyncio as redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.audit.service_trail import ServiceTrail
from services.database.pool import Pool, open_pool
from services.database.schema import SchemaCheck
from services.runtime.breaker import Breaker
from services.runtime.clients import MeshClient
from services.runtime.config import WrongSettingError
from services.runtime.errors import Unavailable
from services.runtime.health import Health
from services.summarizer.adapters.acting import rank, remaining_s, tenant
from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.adapters.extractor_pictures import ExtractorPictures
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.ledger_client import LedgerBooks
from services.summarizer.adapters.ledger_prices import LedgerPrices
from services.summarizer.adapters.model_registry import KNOWN, Endpoint, WrongModels, load_endpoints
from services.summarizer.adapters.offline import OfflineProvider
from services.summarizer.adapters.redis_cache import RedisSummaryCache, connect
from services.summarizer.adapters.tolls import Tolls
from services.summarizer.config import SummarizerSettings
from services.summarizer.domain.models import Model
from services.summarizer.domain.ports import Provider
from services.summarizer.embedding import open_model
from services.summarizer.model_rates import tolls_of

MIGRATIONS = Path(__file__).parent / "migrations"
_PEER_HEALTH_CAP_S = 1.0
CACHE_REST_S = 5.0
"""A cache that kept failing is asked again so soon: asking costs 50 ms at most."""


@dataclass(frozen=True)
class Outside:
    """Everything that the use case talks to."""

    pool: Pool
    redis: "redis.Redis"
    cache: RedisSummaryCache
    extractor: MeshClient
    ledger: MeshClient
    pages: ExtractorPages
    books: LedgerBooks
    prices: LedgerPrices
    audit: ServiceTrail
    providers: dict[str, Provider]
    embedder: Model | None
    """What makes vectors; not among the models that write."""
    ocr_providers: dict[str, Provider]
    pictures: ExtractorPictures


@contextlib.asynccontextmanager
async def open_outside(
    settings: SummarizerSettings, health: Health, *, audit_reads: frozenset[str]
) -> AsyncIterator[Outside]:
    """Opens it, watches its health, and closes it. `audit_reads` are the methods that the trail keeps as reading."""
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(settings.database_url.get_secret_value(), name="summarizer", min_size=2)
        stack.push_async_callback(pool.close)
        client = connect(settings.redis_url.get_secret_value())
        cache = RedisSummaryCache(
            client,
            ttl_s=settings.summary_ttl_s,
            breaker=Breaker("redis", reset_timeout_s=CACHE_REST_S),
        )
        stack.push_async_callback(cache.close)
        extractor = MeshClient(peer="extractor", target=settings.extractor_target, settings=settings)
        stack.push_async_callback(extractor.close)
        ledger = MeshClient(peer="ledger", target=settings.ledger_target, settings=settings)
        stack.push_async_callback(ledger.close)
        audit = ServiceTrail(pool, schema="summarizer", ledger=ledger, reads=audit_reads)
        stack.push_async_callback(audit.close)
        health.add("database", SchemaCheck(pool, service="summarizer", directory=MIGRATIONS))
        # Without it answers are slower, and nothing else is worse.
        health.add("redis", cache.ping, required=False)
        # Every replica would leave the edge at once if a peer were away: better a clear error from each call.
        health.add("extractor", _peer_check(extractor), required=False)
        health.add("ledger", _peer_check(ledger), required=False)
        endpoints = _endpoints(settings)
        tolls = tolls_of(settings, endpoints, client)
        providers, ocr_providers = await _providers(settings, endpoints, tolls, stack)
        embedder = await stack.enter_async_context(open_model(settings, endpoints, tolls))
        yield Outside(
            pool=pool,
            redis=client,
            cache=cache,
            extractor=extractor,
            ledger=ledger,
            pages=ExtractorPages(extractor),
            books=LedgerBooks(ledger),
            prices=LedgerPrices(ledger),
            audit=audit,
            providers=providers,
            embedder=embedder,
            ocr_providers=ocr_providers,
            pictures=ExtractorPictures(extractor),
        )


async def _providers(
    settings: SummarizerSettings, endpoints: list[Endpoint], tolls: Tolls, stack: contextlib.AsyncExitStack
) -> tuple[dict[str, Provider], dict[str, Provider]]:
    """Those that are configured, for text and for pictures; the one that needs no configuration is always there."""
    offline = await stack.enter_async_context(OfflineProvider())
    guard = partial(GuardedProvider, remaining_s=remaining_s, tenant=tenant, rank=rank)
    guarded = {offline.name: guard(offline)}
    readers: dict[str, Provider] = {}
    if settings.mistral_api_key is not None or endpoints:
        # Their libraries take longer to load than all of the rest.
        from services.summarizer.chat_providers import chat_providers, ocr_providers  # noqa: PLC0415

        for provider in await chat_providers(settings, endpoints, stack):
            guarded[provider.name] = guard(provider, tolls=tolls)
        for reader in await ocr_providers(settings, stack):
            readers[reader.name] = guard(reader, tolls=tolls)
    return dict(guarded), readers


def _endpoints(settings: SummarizerSettings) -> list[Endpoint]:
    """Those that there is a key for, in the order of the keys. Raises WrongSettingError."""
    try:
        known = load_endpoints(*filter(None, (KNOWN, settings.models_file)))
    except WrongModels as exc:
        raise WrongSettingError(f"PAGEMESH_MODELS_FILE: {exc}") from exc
    for setting, named in (("KEYS", settings.provider_keys), ("URLS", settings.provider_urls)):
        if unknown := sorted(set(named) - set(known)):
            raise WrongSettingError(
                f"PAGEMESH_PROVIDER_{setting}: there is no provider {unknown[0]}; there are {', '.join(known)}"
            )
    return [known[name].at(str(settings.provider_urls.get(name, known[name].url))) for name in settings.provider_keys]


def _peer_check(client: MeshClient) -> Callable[[], Awaitable[None]]:
    stub = health_pb2_grpc.HealthStub(client.channel)

    async def check() -> None:
        request = health_pb2.HealthCheckRequest()
        answer = await client.unary(stub.Check, request, cap_s=_PEER_HEALTH_CAP_S, guarded=False)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable("PEER_NOT_SERVING", "The peer says that it is not serving.")

    return check
