"""The extractor: `serve` (the default) and `migrate`."""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from pagemesh.extractor.v1.extractor_service_pb2 import DESCRIPTOR
from pagemesh.extractor.v1.extractor_service_pb2_grpc import add_ExtractorServiceServicer_to_server
from services.database.migrate import migrate
from services.database.pool import open_pool, ping
from services.extractor.adapters.clock import SystemClock
from services.extractor.adapters.object_store import ObstoreObjectStore
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.spool import DiskSpool
from services.extractor.api.servicer import ExtractorServicer
from services.extractor.config import ExtractorSettings
from services.extractor.domain.extract import ExtractionLimits, ExtractPages
from services.extractor.domain.library import Library
from services.extractor.domain.upload import UploadDocument
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, WrongSettingError, load_settings
from services.runtime.errors import PagemeshError
from services.runtime.health import Health
from services.runtime.server import MeshServer

_MIGRATIONS = Path(__file__).parent / "migrations"
_SWEEP_EVERY_S = 60.0
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

log = structlog.get_logger()


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
        documents = PostgresDocuments(pool)
        parser = ParserPool(parser_limits(settings))
        stack.push_async_callback(parser.stop)
        await parser.start()
        clock = SystemClock()
        library = Library(repository=documents, store=store, clock=clock)
        servicer = ExtractorServicer(  # type: ignore[abstract]
            upload=UploadDocument(
                repository=documents,
                store=store,
                spool=spool,
                clock=clock,
                max_upload_bytes=settings.max_upload_bytes,
                stall_s=_UPLOAD_STALL_S,
            ),
            library=library,
            extract=ExtractPages(repository=documents, store=store, parser=parser, limits=extraction_limits(settings)),
        )
        health.add("database", lambda: ping(pool))
        health.add("store", store.check)
        health.add("parser", parser.check)
        service_name = DESCRIPTOR.services_by_name["ExtractorService"].full_name
        server.add(add_ExtractorServiceServicer_to_server, servicer, service_name)
        sweeping = asyncio.create_task(_sweep(library, store), name="sweep")
        stack.push_async_callback(_cancel, sweeping)
        await server.run(started=started, stop=stop)


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


async def _sweep(library: Library, store: ObstoreObjectStore) -> None:
    """Completes what broke off: deletions, and puts of an earlier process."""
    while True:
        try:
            erased = await library.sweep()
            if erased:
                log.info("erasures_completed", count=erased)
            await store.sweep()
        except PagemeshError as exc:
            log.warning("sweep_failed", reason=exc.reason)
        except Exception:  # what breaks one sweep must not end the next ones, which deletions rely on
            log.exception("sweep_failed")
        await asyncio.sleep(_SWEEP_EVERY_S)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    sys.exit(main())
