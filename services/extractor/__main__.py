"""The extractor: `serve` (the default) and `migrate`."""

import argparse
import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from pagemesh.extractor.v1.extractor_service_pb2 import DESCRIPTOR
from pagemesh.extractor.v1.extractor_service_pb2_grpc import add_ExtractorServiceServicer_to_server
from services.database.migrate import migrate
from services.database.pool import open_pool, ping
from services.extractor.adapters import lifecycle_signals
from services.extractor.adapters.clock import SystemClock
from services.extractor.adapters.index_signals import indexer_signals
from services.extractor.adapters.object_store import ObstoreObjectStore
from services.extractor.adapters.page_text import page_text
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_backlog import PostgresBacklog
from services.extractor.adapters.postgres_drawn import PostgresDrawnPages
from services.extractor.adapters.postgres_lifecycle import PostgresLifecycle
from services.extractor.adapters.postgres_search import PostgresSearch
from services.extractor.adapters.spool import DiskSpool
from services.extractor.adapters.summarizer_client import SummarizerResults
from services.extractor.api.servicer import ExtractorServicer
from services.extractor.config import ExtractorSettings
from services.extractor.domain.erasure import Eraser
from services.extractor.domain.extract import ExtractionLimits, ExtractPages
from services.extractor.domain.indexer import Indexer
from services.extractor.domain.library import Library
from services.extractor.domain.lifecycle import LifecycleWorker
from services.extractor.domain.pictures import PictureLimits, Pictures
from services.extractor.domain.search import SearchPages
from services.extractor.domain.upload import UploadDocument
from services.extractor.domain.uses import ProcessPages, Uses
from services.runtime.clients import MeshClient
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, WrongSettingError, load_settings
from services.runtime.health import Health
from services.runtime.server import MeshServer

_MIGRATIONS = Path(__file__).parent / "migrations"
_LIFECYCLE_EVERY_S = 15.0
_INDEX_EVERY_S = 5.0
_SLICE_PAGES = 200
"""A document that stays open grows by about 57 KB a page; opened afresh so often, it is flat at +12 MB."""
_RECYCLE_PAGES = 10_000
_WAITING_FOR_EACH_PARSER = 32
_QUEUE_WAIT_S = 60.0
_STALL_S = 5.0
_UPLOAD_STALL_S = 15.0
_SLICE_S = 2.0
_WALL_TIMES_CPU = 1.5
_LOST_TIME_IN_TIMEOUTS = 3.5
"""A page that hangs costs two time-outs, the next one a third; then the document is given up, within 20 s."""
_LOST_PAGES = 100
_PICTURES_IN_HAND_BYTES = 128 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code."""
    parser = argparse.ArgumentParser(prog="services.extractor", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="answer calls until stopped (the default)")
    commands.add_parser("migrate", help="bring the database schema to the newest revision")
    if parser.parse_args(arguments).command == "migrate":
        database = load_settings(DatabaseSettings)
        migrate(database.database_url.get_secret_value(), directory=_MIGRATIONS, schema="extractor")
        return 0
    # Documents are nobody else's to read.
    os.umask(0o077)
    return run(serve(load_settings(ExtractorSettings)), name="services.extractor")


def _object_store(settings: ExtractorSettings) -> ObstoreObjectStore:
    try:
        return ObstoreObjectStore(settings.object_store_url, spool_dir=settings.spool_dir)
    except ValueError as exc:
        raise WrongSettingError(f"PAGEMESH_OBJECT_STORE_URL: {exc}") from exc


async def serve(
    settings: ExtractorSettings, *, started: asyncio.Event | None = None, stop: asyncio.Event | None = None
) -> None:
    """Wires the service and serves; see MeshServer.run."""
    health = Health()
    server = MeshServer(name="extractor", settings=settings, health=health)
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(settings.database_url.get_secret_value(), name="extractor")
        stack.push_async_callback(pool.close)
        spool = DiskSpool(settings.spool_dir, max_files=settings.max_uploads)
        store = _object_store(settings)
        documents, lifecycle = PostgresDocuments(pool), PostgresLifecycle(pool)
        summarizer = MeshClient(peer="summarizer", target=settings.summarizer_target, settings=settings)
        stack.push_async_callback(summarizer.close)
        parser = ParserPool(parser_limits(settings))
        stack.push_async_callback(parser.stop)
        await parser.start()
        clock = SystemClock()
        pictures = Pictures(
            repository=documents,
            store=store,
            parser=parser,
            drawn=PostgresDrawnPages(pool),
            clock=clock,
            limits=PictureLimits(queue_wait_s=_QUEUE_WAIT_S, in_hand_bytes=_PICTURES_IN_HAND_BYTES),
        )
        eraser, worker, uses = _lifecycle(
            documents, lifecycle, store, SummarizerResults(summarizer), clock, pictures=pictures
        )
        extract = ExtractPages(repository=documents, store=store, parser=parser, limits=extraction_limits(settings))
        servicer = ExtractorServicer(
            upload=UploadDocument(
                repository=documents,
                store=store,
                spool=spool,
                eraser=eraser,
                clock=clock,
                max_upload_bytes=settings.max_upload_bytes,
                stall_s=_UPLOAD_STALL_S,
            ),
            library=Library(repository=documents, receipts=lifecycle, clock=clock),
            eraser=eraser,
            extract=ProcessPages(uses=uses, extract=extract),
            uses=uses,
            pictures=pictures,
            search=SearchPages(index=PostgresSearch(pool), extract=extract, decode=page_text),
        )
        health.add("database", lambda: ping(pool))
        health.add("store", store.check)
        health.add("parser", parser.check)
        service_name = DESCRIPTOR.services_by_name["ExtractorService"].full_name
        server.add(add_ExtractorServiceServicer_to_server, servicer, service_name)
        indexer = Indexer(
            backlog=PostgresBacklog(pool),
            extract=extract,
            load=parser,
            clock=clock,
            signals=indexer_signals(),
            every_s=_INDEX_EVERY_S,
        )
        for name, work in (("lifecycle", worker.run()), ("leases", uses.run()), ("indexer", indexer.run())):
            stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))
        await server.run(started=started, stop=stop)


def _lifecycle(
    documents: PostgresDocuments,
    lifecycle: PostgresLifecycle,
    store: ObstoreObjectStore,
    results: SummarizerResults,
    clock: SystemClock,
    *,
    pictures: Pictures,
) -> tuple[Eraser, LifecycleWorker, Uses]:
    eraser = Eraser(
        repository=documents,
        store=store,
        results=results,
        clock=clock,
        new_id=lambda: uuid.uuid4().hex,
        erased=lifecycle_signals.deleted,
    )

    async def sweep() -> None:
        await pictures.expire()
        await store.sweep()

    worker = LifecycleWorker(
        lifecycle=lifecycle,
        eraser=eraser,
        sweep_store=sweep,
        clock=clock,
        signals=lifecycle_signals.lifecycle_signals(),
        every_s=_LIFECYCLE_EVERY_S,
    )
    uses = Uses(repository=documents, leases=lifecycle, clock=clock, new_id=lambda: str(uuid.uuid4()), due=worker.wake)
    return eraser, worker, uses


def parser_limits(settings: ExtractorSettings) -> ParserLimits:
    """The limits of parser processes that follow from the settings."""
    return ParserLimits(
        processes=settings.parser_processes,
        page_cpu_s=settings.page_timeout_s,
        page_wall_s=settings.page_timeout_s * _WALL_TIMES_CPU,
        memory_bytes=settings.parser_memory_bytes,
        recycle_bytes=settings.parser_memory_bytes // 2,
        recycle_pages=_RECYCLE_PAGES,
        max_waiting=settings.parser_processes * _WAITING_FOR_EACH_PARSER,
        stall_s=_STALL_S,
        slice_s=_SLICE_S,
        needs_sandbox=settings.parser_sandbox == "on" and sys.platform == "linux",
    )


def extraction_limits(settings: ExtractorSettings) -> ExtractionLimits:
    """The limits of one extraction that follow from the settings."""
    return ExtractionLimits(
        max_pages=settings.max_pages,
        slice_pages=_SLICE_PAGES,
        lost_time_s=settings.page_timeout_s * _LOST_TIME_IN_TIMEOUTS,
        lost_pages=_LOST_PAGES,
        queue_wait_s=_QUEUE_WAIT_S,
    )


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    sys.exit(main())
