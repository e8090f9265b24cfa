"""The summarizer: `serve` (the default), `worker` and `migrate`."""

import argparse
import asyncio
import contextlib
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagemesh.summarizer.v1 import job_service_pb2, schema_service_pb2, summarizer_service_pb2
from pagemesh.summarizer.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from pagemesh.summarizer.v1.schema_service_pb2_grpc import add_SchemaServiceServicer_to_server
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import add_SummarizerServiceServicer_to_server
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, WrongSettingError, load_settings
from services.runtime.errors import InvalidArgument
from services.runtime.health import Health
from services.runtime.server import MeshServer
from services.summarizer import asking, fields
from services.summarizer.adapters import signals
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.ledger_standing import LedgerStanding
from services.summarizer.adapters.model_registry import KNOWN, load_endpoints
from services.summarizer.adapters.postgres_job_spending import PostgresJobSpending
from services.summarizer.adapters.postgres_results import PostgresOutbox, PostgresResults
from services.summarizer.adapters.postgres_turns import PostgresTurns
from services.summarizer.api.job_servicer import JobServicer
from services.summarizer.api.questions import Questions
from services.summarizer.api.schema_servicer import SchemaServicer
from services.summarizer.api.servicer import SummarizerServicer
from services.summarizer.config import SummarizerSettings, WorkerSettings
from services.summarizer.domain.ask import StreamAsk
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.estimate import EstimateSummary
from services.summarizer.domain.map_reduce import MapReduce
from services.summarizer.domain.models import Models
from services.summarizer.domain.outbox_feeder import OutboxFeeder
from services.summarizer.domain.paid_calls import PaidCalls
from services.summarizer.domain.ports import Provider
from services.summarizer.domain.purge import PurgeDocument
from services.summarizer.domain.savings import Savings
from services.summarizer.domain.single_flight import SingleFlight
from services.summarizer.domain.summarize import StreamSummarize, Summarize, SummaryMaker
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.turns import Turns
from services.summarizer.job_parts import bell_of, desk_of, worker_of
from services.summarizer.outside import Outside, open_outside

_MIGRATIONS = Path(__file__).parent / "migrations"
_SERVICE = summarizer_service_pb2.DESCRIPTOR.services_by_name["SummarizerService"].full_name
_SCHEMAS = schema_service_pb2.DESCRIPTOR.services_by_name["SchemaService"].full_name
_JOBS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name
_READS = frozenset(
    f"{_SERVICE}/{method}"
    for method in ("Summarize", "StreamSummarize", "Estimate", "Ask", "StreamAsk", "ExtractFields")
)
"""What they keep are copies of what they answer, and what they spend is in the ledger's books before."""
_TAILS_GRACE_S = 5.0
_SAVINGS_GRACE_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "migrate":
        # A service that serves has no use for what it loads.
        from services.database.migrate import migrate  # noqa: PLC0415

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
        world = await stack.enter_async_context(open_outside(settings, health, audit_reads=_READS))
        server = MeshServer(name="summarizer", settings=settings, health=health, audit=[world.audit.concern])
        making = _making(settings, world, stack)
        found, ask, bell = _fields(world, making, stack), _asking(world, making, stack), bell_of(settings)
        desk = desk_of(
            settings, pool=world.pool, pages=world.pages, models=making.models, schemas=found.schemas, bell=bell
        )
        servicer = SummarizerServicer(
            summarize=Summarize(making.summaries),
            stream_summarize=making.summaries,
            extract_fields=found.extract,
            estimate=_estimate(world, making),
            purge=PurgeDocument(results=making.results, cache=world.cache, also=[desk.erase]),
            questions=Questions(ask),
        )
        server.add(add_SummarizerServiceServicer_to_server, servicer, _SERVICE)
        server.add(add_SchemaServiceServicer_to_server, SchemaServicer(found.schemas), _SCHEMAS)
        server.add(add_JobServiceServicer_to_server, JobServicer(desk), _JOBS)
        async with _beside(_feeder(world).run(), making.savings.run(), world.audit.run(), bell.run()):
            await server.run(started=started, stop=stop)


async def work(
    settings: WorkerSettings, *, started: asyncio.Event | None = None, stop: asyncio.Event | None = None
) -> None:
    """A worker, until it is told to stop. Of the mesh it answers health alone."""
    health, stop = Health(), stop or asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        world = await stack.enter_async_context(open_outside(settings, health, audit_reads=_READS))
        server = MeshServer(name="summarizer-worker", settings=settings, health=health)
        making, bell = _making(settings, world, stack), bell_of(settings)
        worker = worker_of(
            settings,
            pool=world.pool,
            pages=world.pages,
            standing=LedgerStanding(world.ledger),
            stream=making.summaries,
            fields=_fields(world, making, stack).extract,
            ask=_asking(world, making, stack),
            bell=bell,
        )
        async with _beside(_feeder(world).run(), making.savings.run(), bell.run()), asyncio.TaskGroup() as roles:
            roles.create_task(worker.run(stop))
            roles.create_task(server.run(started=started, stop=stop))


@dataclass(frozen=True)
class _Making:
    """What answers are made with, whoever asks."""

    models: Models
    results: PostgresResults
    paid: PaidCalls
    map_reduce: MapReduce
    keeper: Keeper
    tails: Tails
    savings: Savings
    summaries: StreamSummarize


def _making(settings: SummarizerSettings, world: Outside, stack: contextlib.AsyncExitStack) -> _Making:
    """`stack` ends what it leaves running in the opposite order: runs, what they owe is written down, and then told."""
    models, results, tails = _models(settings, world.providers), PostgresResults(world.pool), Tails()
    savings = Savings(books=world.books, act_as=act_as, dropped=signals.savings_dropped)
    stack.push_async_callback(savings.flush, _SAVINGS_GRACE_S)
    stack.push_async_callback(tails.close, _TAILS_GRACE_S)
    paid = PaidCalls(
        books=world.books,
        results=results,
        outbox=PostgresOutbox(world.pool),
        turns=Turns(book=PostgresTurns(world.pool), results=results, new_id=_new_id),
        tails=tails,
        new_id=_new_id,
        now_s=time.time,
        observe=signals.called,
    )
    map_reduce = MapReduce(results=results, paid=paid)
    keeper = Keeper(pages=world.pages, results=results, cache=world.cache, tails=tails, act_as=act_as, new_id=_new_id)
    summaries = StreamSummarize(
        models=models,
        pages=world.pages,
        cache=world.cache,
        flights=_flights(stack),
        maker=SummaryMaker(pages=world.pages, map_reduce=map_reduce, act_as=act_as),
        savings=savings,
        keeper=keeper,
        new_id=_new_id,
        now_s=time.time,
        failed_over=signals.failed_over,
    )
    return _Making(models, results, paid, map_reduce, keeper, tails, savings, summaries)


def _fields(world: Outside, making: _Making, stack: contextlib.AsyncExitStack) -> fields.Fields:
    return fields.compose(
        pool=world.pool,
        client=world.redis,
        models=making.models,
        pages=world.pages,
        map_reduce=making.map_reduce,
        keeper=making.keeper,
        savings=making.savings,
        flights=_flights(stack),
    )


def _asking(world: Outside, making: _Making, stack: contextlib.AsyncExitStack) -> StreamAsk:
    return asking.compose(
        models=making.models,
        extractor=world.extractor,
        results=making.results,
        paid=making.paid,
        flights=_flights(stack),
        savings=making.savings,
        tails=making.tails,
        new_id=_new_id,
    )


def _estimate(world: Outside, making: _Making) -> EstimateSummary:
    return EstimateSummary(
        models=making.models,
        pages=world.pages,
        cache=world.cache,
        results=making.results,
        prices=world.prices,
        tails=making.tails,
        new_id=_new_id,
    )


def _flights(stack: contextlib.AsyncExitStack) -> SingleFlight[Any, Any]:
    """Runs that `stack` ends."""
    flights: SingleFlight[Any, Any] = SingleFlight(joined=signals.joined)
    stack.push_async_callback(flights.close)
    return flights


def _feeder(world: Outside) -> OutboxFeeder:
    return OutboxFeeder(
        outbox=PostgresOutbox(world.pool),
        books=world.books,
        spending=PostgresJobSpending(world.pool),
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
