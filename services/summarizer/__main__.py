"""The summarizer: `serve` (the default), `worker` and `migrate`."""

import argparse
import asyncio
import contextlib
import random
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pagemesh.summarizer.v1 import (
    job_service_pb2,
    model_policy_service_pb2,
    schema_service_pb2,
    summarizer_service_pb2,
)
from pagemesh.summarizer.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from pagemesh.summarizer.v1.model_policy_service_pb2_grpc import add_ModelPolicyServiceServicer_to_server
from pagemesh.summarizer.v1.schema_service_pb2_grpc import add_SchemaServiceServicer_to_server
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import add_SummarizerServiceServicer_to_server
from services.runtime.background import beside
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, load_settings
from services.runtime.health import Health
from services.runtime.server import MeshServer
from services.summarizer import asking, embedding, estimating, fields, reusing
from services.summarizer.adapters import signals
from services.summarizer.adapters.acting import act_as
from services.summarizer.adapters.ledger_standing import LedgerStanding
from services.summarizer.adapters.postgres_job_spending import PostgresJobSpending
from services.summarizer.adapters.postgres_results import PostgresOutbox, PostgresResults
from services.summarizer.adapters.postgres_turns import PostgresTurns
from services.summarizer.adapters.work_spans import SpannedCalls
from services.summarizer.answer_parts import cleaner_of
from services.summarizer.api.embeddings import Embeddings
from services.summarizer.api.estimates import Estimates
from services.summarizer.api.policy_servicer import ModelPolicyServicer
from services.summarizer.api.questions import Questions
from services.summarizer.api.schema_servicer import SchemaServicer
from services.summarizer.api.servicer import SummarizerServicer
from services.summarizer.config import SummarizerSettings, WorkerSettings
from services.summarizer.domain.ask import StreamAsk
from services.summarizer.domain.document_use import Keeper
from services.summarizer.domain.estimates import Estimator
from services.summarizer.domain.map_reduce import MapReduce
from services.summarizer.domain.models import Models
from services.summarizer.domain.outbox_feeder import OutboxFeeder
from services.summarizer.domain.paid_calls import Calls, PaidCalls
from services.summarizer.domain.policy_book import PolicyBook
from services.summarizer.domain.purge import PurgeDocument
from services.summarizer.domain.savings import Savings
from services.summarizer.domain.scans import Scans
from services.summarizer.domain.schema_book import SchemaBook
from services.summarizer.domain.sightings import Sightings
from services.summarizer.domain.single_flight import SingleFlight
from services.summarizer.domain.summarize import StreamSummarize, Summarize, SummaryMaker
from services.summarizer.domain.tails import Tails
from services.summarizer.domain.turns import Turns
from services.summarizer.job_parts import bell_of, desk_of, limits_of, notices_of, orders_of, servicer_of, worker_of
from services.summarizer.model_parts import models_of
from services.summarizer.outside import MIGRATIONS, Outside, open_outside

_SERVICE = summarizer_service_pb2.DESCRIPTOR.services_by_name["SummarizerService"].full_name
_SCHEMAS = schema_service_pb2.DESCRIPTOR.services_by_name["SchemaService"].full_name
_POLICIES = model_policy_service_pb2.DESCRIPTOR.services_by_name["ModelPolicyService"].full_name
_JOBS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name
_READS = frozenset(
    f"{_SERVICE}/{method}"
    for method in (
        "Summarize",
        "StreamSummarize",
        "Estimate",
        "Ask",
        "StreamAsk",
        "ExtractFields",
        "EmbedDocument",
        "EmbedQuery",
    )
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
        migrate(database.database_url.get_secret_value(), directory=MIGRATIONS, schema="summarizer")
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
        found, ask, bell = (
            _fields(settings, world, making, stack),
            _asking(settings, world, making, stack),
            bell_of(settings),
        )
        desk = desk_of(
            settings, pool=world.pool, pages=world.pages, models=making.models, schemas=found.schemas, bell=bell
        )
        estimator = _estimator(settings, world, making, found.schemas)
        orders = orders_of(settings, models=making.models, schemas=found.schemas)
        jobs = servicer_of(desk, settings, world.pool, estimator=estimator, orders=orders)
        servicer = SummarizerServicer(
            summarize=Summarize(making.summaries),
            stream_summarize=making.summaries,
            extract_fields=found.extract,
            estimates=Estimates(estimator),
            purge=PurgeDocument(results=making.results, cache=world.cache, also=[desk.erase]),
            questions=Questions(ask),
            embedding=_embedding(world, making),
        )
        server.add(add_SummarizerServiceServicer_to_server, servicer, _SERVICE)
        server.add(add_SchemaServiceServicer_to_server, SchemaServicer(found.schemas), _SCHEMAS)
        server.add(add_JobServiceServicer_to_server, jobs, _JOBS)
        server.add(add_ModelPolicyServiceServicer_to_server, ModelPolicyServicer(making.policies), _POLICIES)
        notices = notices_of(world.pool, world.ledger)
        async with beside(_feeder(world).run(), making.savings.run(), world.audit.run(), bell.run(), notices.run()):
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
            fields=_fields(settings, world, making, stack).extract,
            ask=_asking(settings, world, making, stack),
            bell=bell,
        )
        works = beside(
            _feeder(world).run(),
            making.savings.run(),
            bell.run(),
            limits_of(world.pool, world.ledger).run(),
            notices_of(world.pool, world.ledger).run(),
            cleaner_of(settings, world.pool).run(),
        )
        async with works, asyncio.TaskGroup() as roles:
            roles.create_task(worker.run(stop))
            roles.create_task(server.run(started=started, stop=stop))


@dataclass(frozen=True)
class _Making:
    """What answers are made with, whoever asks."""

    models: Models
    policies: PolicyBook
    results: PostgresResults
    paid: Calls
    map_reduce: MapReduce
    scans: Scans
    keeper: Keeper
    tails: Tails
    savings: Savings
    summaries: StreamSummarize


def _making(settings: SummarizerSettings, world: Outside, stack: contextlib.AsyncExitStack) -> _Making:
    """`stack` ends what it leaves running in the opposite order: runs, what they owe is written down, and then told."""
    chosen = models_of(settings, world, stack=stack)
    models, results, tails = chosen.models, PostgresResults(world.pool), Tails()
    savings = Savings(books=world.books, act_as=act_as, dropped=signals.savings_dropped)
    stack.push_async_callback(savings.flush, _SAVINGS_GRACE_S)
    stack.push_async_callback(tails.close, _TAILS_GRACE_S)
    paid = SpannedCalls(
        PaidCalls(
            books=world.books,
            results=results,
            outbox=PostgresOutbox(world.pool),
            turns=Turns(book=PostgresTurns(world.pool), results=results, new_id=_new_id),
            tails=tails,
            new_id=_new_id,
            now_s=time.time,
            observe=signals.called,
        )
    )
    similar, reuse = reusing.compose(world, savings)
    map_reduce = MapReduce(results=results, paid=paid, similar=similar)
    scans = Scans(world.pages, world.pictures, map_reduce)
    keeper = Keeper(pages=world.pages, results=results, cache=world.cache, tails=tails, act_as=act_as, new_id=_new_id)
    summaries = StreamSummarize(
        models=models,
        sightings=Sightings(world.pages, now_s=time.time),
        cache=world.cache,
        flights=_flights(stack),
        maker=SummaryMaker(
            scans=scans, map_reduce=map_reduce, act_as=act_as, anonymised=signals.anonymised, reuse=reuse
        ),
        savings=savings,
        keeper=keeper,
        new_id=_new_id,
        now_s=time.time,
        failed_over=signals.failed_over,
        policy=settings.personal_data(),
    )
    return _Making(models, chosen.policies, results, paid, map_reduce, scans, keeper, tails, savings, summaries)


def _fields(
    settings: SummarizerSettings, world: Outside, making: _Making, stack: contextlib.AsyncExitStack
) -> fields.Fields:
    return fields.compose(
        policy=settings.personal_data(),
        pool=world.pool,
        client=world.redis,
        models=making.models,
        scans=making.scans,
        map_reduce=making.map_reduce,
        keeper=making.keeper,
        savings=making.savings,
        flights=_flights(stack),
    )


def _asking(
    settings: SummarizerSettings, world: Outside, making: _Making, stack: contextlib.AsyncExitStack
) -> StreamAsk:
    return asking.compose(
        policy=settings.personal_data(),
        models=making.models,
        extractor=world.extractor,
        results=making.results,
        paid=making.paid,
        flights=_flights(stack),
        savings=making.savings,
        tails=making.tails,
        new_id=_new_id,
        by_meaning=world.embedder is not None,
    )


def _embedding(world: Outside, making: _Making) -> Embeddings:
    return embedding.compose(
        model=world.embedder,
        models=making.models,
        extractor=world.extractor,
        results=making.results,
        paid=making.paid,
        keeper=making.keeper,
    )


def _estimator(settings: SummarizerSettings, world: Outside, making: _Making, schemas: SchemaBook) -> Estimator:
    return estimating.compose(
        policy=settings.personal_data(),
        world=world,
        models=making.models,
        results=making.results,
        schemas=schemas,
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


def _new_id() -> str:
    return str(uuid.uuid4())


if __name__ == "__main__":
    sys.exit(main())
