"""The summarizer: `serve` (the default), `worker` and `migrate`."""

import argparse
import asyncio
import contextlib
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from pagemesh.summarizer.v1 import job_service_pb2, summarizer_service_pb2
from pagemesh.summarizer.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import add_SummarizerServiceServicer_to_server
from services.audit.service_trail import ServiceTrail
from services.database.migrate import migrate
from services.database.pool import Pool, open_pool, ping
from services.runtime.breaker import Breaker
from services.runtime.clients import MeshClient
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, WrongSettingError, load_settings
from services.runtime.errors import InvalidArgument, Unavailable
from services.runtime.health import Health
from services.runtime.server import MeshServer
from services.summarizer.adapters import signals
from services.summarizer.adapters.acting import act_as, remaining_s
from services.summarizer.adapters.extractor_client import ExtractorPages
from services.summarizer.adapters.guarded import GuardedProvider
from services.summarizer.adapters.ledger_client import LedgerBooks
from services.summarizer.adapters.mistral import MistralProvider, tekken_counter
from services.summarizer.adapters.model_registry import KNOWN, Endpoint, WrongModels, load_endpoints
from services.summarizer.adapters.offline import OfflineProvider
from services.summarizer.adapters.openai_compatible import OpenAiCompatibleProvider, counter_with_margin
from services.summarizer.adapters.postgres_results import PostgresOutbox, PostgresResults
from services.summarizer.adapters.redis_cache import RedisSummaryCache, connect
from services.summarizer.api.job_servicer import JobServicer
from services.summarizer.api.servicer import SummarizerServicer
from services.summarizer.config import SummarizerSettings, WorkerSettings
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.map_reduce import MapReduce
from services.summarizer.domain.models import Models
from services.summarizer.domain.outbox_feeder import OutboxFeeder
from services.summarizer.domain.paid_calls import PaidCalls
from services.summarizer.domain.ports import Provider
from services.summarizer.domain.purge import PurgeDocument
from services.summarizer.domain.savings import Savings
from services.summarizer.domain.single_flight import SingleFlight
from services.summarizer.domain.summarize import Flights, StreamSummarize, Summarize, SummaryMaker
from services.summarizer.domain.tails import Tails
from services.summarizer.job_parts import bell_of, desk_of, worker_of

_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICE = summarizer_service_pb2.DESCRIPTOR.services_by_name["SummarizerService"].full_name
_JOBS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name
_READS = frozenset({f"{_SERVICE}/Summarize", f"{_SERVICE}/StreamSummarize"})
"""What they keep are copies of what they answer, and what they spend is in the ledger's books before."""
_PEER_HEALTH_CAP_S = 1.0
_TAILS_GRACE_S = 5.0
_SAVINGS_GRACE_S = 2.0
_CACHE_REST_S = 5.0
"""A cache that kept failing is asked again so soon: asking costs 50 ms at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "migrate":
        database = load_settings(DatabaseSettings)
        migrate(database.database_url.get_secret_value(), directory=_MIGRATIONS, schema="summarizer")
        return 0
    if options.command == "worker":
        return run(work(load_settings(WorkerSettings)), name="services.summarizer worker")
    return run(serve(load_settings(SummarizerSettings)), name="services.summarizer")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="services.summarizer", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="answer calls until stopped (the default)")
    commands.add_parser("worker", help="do jobs until stopped")
    commands.add_parser("migrate", help="bring the database schema to the newest revision")
    return parser


async def serve(
    settings: SummarizerSettings, *, started: asyncio.Event | None = None, stop: asyncio.Event | None = None
) -> None:
    """The whole service, until it is told to stop; see MeshServer.run for `started` and `stop`."""
    health = Health()
    async with contextlib.AsyncExitStack() as stack:
        world = await stack.enter_async_context(_outside(settings, health))
        server = MeshServer(name="summarizer", settings=settings, health=health, audit=[world.audit.concern])
        stream, savings = _stream(settings, world, stack)
        bell, models = bell_of(settings), _models(settings, world.providers)
        desk = desk_of(settings, pool=world.pool, pages=world.pages, models=models, bell=bell)
        purge = PurgeDocument(results=PostgresResults(world.pool), cache=world.cache, also=[desk.erase])
        servicer = SummarizerServicer(summarize=Summarize(stream), stream_summarize=stream, purge=purge)
        server.add(add_SummarizerServiceServicer_to_server, servicer, _SERVICE)
        server.add(add_JobServiceServicer_to_server, JobServicer(desk), _JOBS)
        feeder = _feeder(world)
        async with _beside(feeder.run(), savings.run(), world.audit.run(), bell.run()):
            await server.run(started=started, stop=stop)


async def work(
    settings: WorkerSettings, *, started: asyncio.Event | None = None, stop: asyncio.Event | None = None
) -> None:
    """A worker, until it is told to stop. Of the mesh it answers health alone."""
    health, stop = Health(), stop or asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        world = await stack.enter_async_context(_outside(settings, health))
        server = MeshServer(name="summarizer-worker", settings=settings, health=health)
        stream, savings = _stream(settings, world, stack)
        bell, feeder = bell_of(settings), _feeder(world)
        worker = worker_of(settings, pool=world.pool, pages=world.pages, stream=stream, bell=bell)
        async with _beside(feeder.run(), savings.run(), bell.run()), asyncio.TaskGroup() as roles:
            roles.create_task(worker.run(stop))
            roles.create_task(server.run(started=started, stop=stop))


def _stream(
    settings: SummarizerSettings, world: "_Outside", stack: contextlib.AsyncExitStack
) -> tuple[StreamSummarize, Savings]:
    """The use case and what it saves; `stack` ends what they leave running."""
    flights: Flights = SingleFlight(joined=signals.joined)
    tails = Tails()
    savings = Savings(books=world.books, act_as=act_as, dropped=signals.savings_dropped)
    # Left in the opposite order: runs end first, then what they owe is written down, then told.
    stack.push_async_callback(savings.flush, _SAVINGS_GRACE_S)
    stack.push_async_callback(tails.close, _TAILS_GRACE_S)
    stack.push_async_callback(flights.close)
    return _use_case(settings, world, flights, tails, savings), savings


def _feeder(world: "_Outside") -> OutboxFeeder:
    return OutboxFeeder(
        outbox=PostgresOutbox(world.pool),
        books=world.books,
        act_as=act_as,
        jitter=random.random,
        signals=signals.feeder_signals(),
    )


@contextlib.asynccontextmanager
async def _beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs them while the block does; where one of them fails, so does the block."""
    async with asyncio.TaskGroup() as background:
        tasks = [background.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@dataclass(frozen=True)
class _Outside:
    """Everything that the use case talks to."""

    pool: Pool
    cache: RedisSummaryCache
    pages: ExtractorPages
    books: LedgerBooks
    audit: ServiceTrail
    providers: dict[str, Provider]


@contextlib.asynccontextmanager
async def _outside(settings: SummarizerSettings, health: Health) -> AsyncIterator[_Outside]:
    """Opens it, watches its health, and closes it."""
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(settings.database_url.get_secret_value(), name="summarizer", min_size=2)
        stack.push_async_callback(pool.close)
        cache = RedisSummaryCache(
            connect(settings.redis_url.get_secret_value()),
            ttl_s=settings.summary_ttl_s,
            breaker=Breaker("redis", reset_timeout_s=_CACHE_REST_S),
        )
        stack.push_async_callback(cache.close)
        extractor = MeshClient(peer="extractor", target=settings.extractor_target, settings=settings)
        stack.push_async_callback(extractor.close)
        ledger = MeshClient(peer="ledger", target=settings.ledger_target, settings=settings)
        stack.push_async_callback(ledger.close)
        audit = ServiceTrail(pool, schema="summarizer", ledger=ledger, reads=_READS)
        stack.push_async_callback(audit.close)
        health.add("database", lambda: ping(pool))
        # Without it answers are slower, and nothing else is worse.
        health.add("redis", cache.ping, required=False)
        # Every replica would leave the edge at once if a peer were away: better a clear error from each call.
        health.add("extractor", _peer_check(extractor), required=False)
        health.add("ledger", _peer_check(ledger), required=False)
        providers = await _providers(settings, stack)
        yield _Outside(pool, cache, ExtractorPages(extractor), LedgerBooks(ledger), audit, providers)


async def _providers(settings: SummarizerSettings, stack: contextlib.AsyncExitStack) -> dict[str, Provider]:
    """Those that are configured; the one that needs no configuration is always there."""
    offline = await stack.enter_async_context(OfflineProvider())
    providers: list[Provider] = [offline]
    endpoints = _endpoints(settings)
    if settings.mistral_api_key is not None or endpoints:
        # The tokenizer takes a second to load, and health checks are waiting.
        count_text = await asyncio.to_thread(tekken_counter)
    if settings.mistral_api_key is not None:
        mistral = MistralProvider(
            api_key=settings.mistral_api_key, url=str(settings.mistral_url), count_text=count_text
        )
        providers.append(await stack.enter_async_context(mistral))
    for endpoint in endpoints:
        compatible = OpenAiCompatibleProvider(
            endpoint, api_key=settings.provider_keys[endpoint.name], count_text=counter_with_margin(count_text)
        )
        providers.append(await stack.enter_async_context(compatible))
    return {provider.name: GuardedProvider(provider, remaining_s=remaining_s) for provider in providers}


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


def _use_case(
    settings: SummarizerSettings, world: _Outside, flights: Flights, tails: Tails, savings: Savings
) -> StreamSummarize:
    results = PostgresResults(world.pool)
    paid = PaidCalls(
        books=world.books,
        results=results,
        outbox=PostgresOutbox(world.pool),
        tails=tails,
        new_id=_new_id,
        now_s=time.time,
        observe=signals.called,
    )
    return StreamSummarize(
        models=_models(settings, world.providers),
        pages=world.pages,
        cache=world.cache,
        flights=flights,
        maker=SummaryMaker(pages=world.pages, map_reduce=MapReduce(results=results, paid=paid), act_as=act_as),
        savings=savings,
        keeper=Keeper(
            pages=world.pages, results=results, cache=world.cache, tails=tails, act_as=act_as, new_id=_new_id
        ),
        new_id=_new_id,
        now_s=time.time,
        failed_over=signals.failed_over,
    )


def _models(settings: SummarizerSettings, providers: dict[str, Provider]) -> Models:
    """The models; one that is named by a setting and not served is a wrong configuration, found at the start."""
    missing = dict.fromkeys(load_endpoints(KNOWN), "a key in PAGEMESH_PROVIDER_KEYS")
    models = Models(
        providers,
        default=settings.default_model,
        fallbacks=settings.fallback_models,
        missing={"mistral": "PAGEMESH_MISTRAL_API_KEY", **missing},
    )
    for setting, names in (("DEFAULT_MODEL", [""]), ("FALLBACK_MODELS", settings.fallback_models)):
        try:
            for name in names:
                models.resolve(name)
        except InvalidArgument as exc:
            raise WrongSettingError(f"PAGEMESH_{setting}: {exc.message}") from exc
    return models


def _new_id() -> str:
    return str(uuid.uuid4())


if __name__ == "__main__":
    sys.exit(main())
