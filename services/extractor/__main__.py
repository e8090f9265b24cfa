"""The extractor: `serve` (the default) and `migrate`."""

import argparse
import asyncio
import contextlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from pagemesh.extractor.v1.extractor_service_pb2 import DESCRIPTOR
from pagemesh.extractor.v1.extractor_service_pb2_grpc import add_ExtractorServiceServicer_to_server
from services.audit.service_trail import ServiceTrail
from services.database.pool import Pool, open_pool
from services.database.schema import SchemaCheck
from services.extractor.adapters import lifecycle_signals, ocr_protocol
from services.extractor.adapters.clock import SystemClock
from services.extractor.adapters.index_signals import indexer_signals
from services.extractor.adapters.keeping_signals import keeping_signals, show_waiting
from services.extractor.adapters.languages import LanguageGuesser
from services.extractor.adapters.object_store import ObstoreObjectStore
from services.extractor.adapters.ocr_page import RecognisedPageWriter
from services.extractor.adapters.ocr_pool import OcrLimits, OcrPool
from services.extractor.adapters.page_text import page_text
from services.extractor.adapters.parser_pool import ParserLimits, ParserPool
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_backlog import PostgresBacklog
from services.extractor.adapters.postgres_drawn import PostgresDrawnPages
from services.extractor.adapters.postgres_lifecycle import PostgresLifecycle
from services.extractor.adapters.postgres_pages import PostgresPages
from services.extractor.adapters.postgres_search import PostgresSearch
from services.extractor.adapters.postgres_vectors import PostgresVectors
from services.extractor.adapters.spool import DiskSpool
from services.extractor.adapters.summarizer_client import SummarizerResults
from services.extractor.adapters.summarizer_embedder import SummarizerEmbedder
from services.extractor.api.servicer import ExtractorServicer
from services.extractor.config import ExtractorSettings
from services.extractor.domain.erasure import CLAIM, Eraser
from services.extractor.domain.extract import ExtractionLimits, ExtractPages
from services.extractor.domain.hybrid import Meanings
from services.extractor.domain.indexer import Indexer
from services.extractor.domain.library import Library
from services.extractor.domain.lifecycle import LifecycleWorker
from services.extractor.domain.page_keeper import KeepingLimits, PageKeeper
from services.extractor.domain.pictures import PictureLimits, Pictures
from services.extractor.domain.recognise import RecognisePage, RecognitionLimits
from services.extractor.domain.search import SearchPages
from services.extractor.domain.upload import UploadDocument
from services.extractor.domain.uses import ProcessPages, Uses
from services.runtime.background import beside
from services.runtime.breaker import Breaker
from services.runtime.clients import MeshClient
from services.runtime.command import run
from services.runtime.config import DatabaseSettings, WrongSettingError, load_settings
from services.runtime.errors import ResourceExhausted
from services.runtime.health import Health
from services.runtime.server import MeshServer
from services.waiting.fair_slots import FairSlots

_MIGRATIONS = Path(__file__).parent / "migrations"
_READS = frozenset({"pagemesh.extractor.v1.ExtractorService/ExtractPages"})
"""What it stores are copies of what is in the document."""
_LIFECYCLE_EVERY_S = 15.0
_ERASURE_CLAIM = CLAIM
_INDEX_EVERY_S = 5.0
_SLICE_PAGES = 400
"""A document that stays open grows by about 57 KB a page; opened afresh so often, by 23 MB at most."""
_RECYCLE_PAGES = 10_000
_WAITING_FOR_EACH_PARSER = 32
_QUEUE_WAIT_S = 60.0
_STALL_S = 5.0
_UPLOAD_STALL_S = 15.0
_SLICE_S = 2.0
_WALL_TIMES_CPU = 1.5
_LOST_TIME_IN_TIMEOUTS = 2.5
"""A page that hangs costs two time-outs, the next one a third; then the document is given up. On the clock a time-out
is up to 7.5 s, and then there is no second try: it is always less than 20 s."""
_LOST_PAGES = 100
_OCR_DPI = 200
_OCR_MIN_CONFIDENCE = 0.5
_OCR_TIMES_PAGE = 2.5
"""A page may take so many times the time-out for parsing one before the rest of its lines is left out: with the time
for drawing it less than 20 s of computing. Dense ones take 5 to 8 s; four times that much passes on the clock where
every core is wanted by others."""
_OCR_MEMORY_BYTES = 1024 * 1024 * 1024
"""The models read a page in 0.6 GB, and the worst that was made for them in 0.66."""
_OCR_IDLE_S = 300.0
_WAITING_FOR_EACH_READER = 64
_SEARCHES = 4
_WAITING_FOR_EACH_SEARCH = 64
_PICTURES_IN_HAND_BYTES = 128 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code."""
    parser = argparse.ArgumentParser(prog="services.extractor", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="answer calls until stopped (the default)")
    commands.add_parser("migrate", help="bring the database schema to the newest revision")
    if parser.parse_args(arguments).command == "migrate":
        # A service that serves has no use for what it loads.
        from services.database.migrate import migrate  # noqa: PLC0415

        database = load_settings(DatabaseSettings)
        migrate(database.database_url.get_secret_value(), directory=_MIGRATIONS, schema="extractor")
        return 0
    # Documents are nobody else's to read.
    os.umask(0o077)
    return run(serve(load_settings(ExtractorSettings)), name="services.extractor")


def _object_store(settings: ExtractorSettings) -> ObstoreObjectStore:
    try:
        return ObstoreObjectStore(
            settings.object_store_url,
            spool_dir=settings.spool_dir,
            encryption=settings.object_store_encryption,
            storage_class=settings.object_store_class,
        )
    except ValueError as exc:
        raise WrongSettingError(f"PAGEMESH_OBJECT_STORE_URL: {exc}") from exc


async def serve(
    settings: ExtractorSettings, *, started: asyncio.Event | None = None, stop: asyncio.Event | None = None
) -> None:
    """Wires the service and serves; see MeshServer.run."""
    health = Health()
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(settings.database_url.get_secret_value(), name="extractor")
        stack.push_async_callback(pool.close)
        audit = _audit(settings, pool, stack)
        server = MeshServer(name="extractor", settings=settings, health=health, audit=[audit.concern])
        spool = DiskSpool(settings.spool_dir, max_files=settings.max_uploads)
        store = _object_store(settings)
        documents, lifecycle = PostgresDocuments(pool), PostgresLifecycle(pool)
        summarizer = MeshClient(peer="summarizer", target=settings.summarizer_target, settings=settings)
        stack.push_async_callback(summarizer.close)
        parser = ParserPool(parser_limits(settings))
        stack.push_async_callback(parser.stop)
        await parser.start()
        clock = SystemClock()
        pictures = _pictures(documents, store, parser, pool, clock)
        eraser, worker, uses = _lifecycle(
            documents, lifecycle, store, SummarizerResults(summarizer), clock, pictures=pictures
        )
        recogniser = _recogniser(settings, parser, stack)
        pages = PostgresPages(pool)
        keeper = PageKeeper(pages, limits=KeepingLimits(), signals=keeping_signals(), is_busy=lambda: parser.is_at_work)
        show_waiting(keeper)
        stack.push_async_callback(keeper.flush)
        extract = ExtractPages(store, pages, keeper, parser, limits=extraction_limits(settings), recogniser=recogniser)
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
            search=_search(pool, extract, _meanings(settings, pool, stack)),
            vectors=PostgresVectors(pool),
        )
        health.add("database", SchemaCheck(pool, service="extractor", directory=_MIGRATIONS))
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
        works = (worker.run(), uses.run(), indexer.run(), keeper.run(), audit.run())
        async with beside(*works):
            await server.run(started=started, stop=stop)


def _audit(settings: ExtractorSettings, pool: Pool, stack: contextlib.AsyncExitStack) -> ServiceTrail:
    ledger = MeshClient(peer="ledger", target=settings.ledger_target, settings=settings)
    stack.push_async_callback(ledger.close)
    trail = ServiceTrail(pool, schema="extractor", ledger=ledger, reads=_READS)
    stack.push_async_callback(trail.close)
    return trail


def _pictures(
    documents: PostgresDocuments, store: ObstoreObjectStore, parser: ParserPool, pool: Pool, clock: SystemClock
) -> Pictures:
    return Pictures(
        repository=documents,
        store=store,
        parser=parser,
        drawn=PostgresDrawnPages(pool),
        clock=clock,
        limits=PictureLimits(queue_wait_s=_QUEUE_WAIT_S, in_hand_bytes=_PICTURES_IN_HAND_BYTES),
    )


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
        claim=_ERASURE_CLAIM,
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
        claim=_ERASURE_CLAIM,
    )
    uses = Uses(repository=documents, leases=lifecycle, clock=clock, new_id=lambda: str(uuid.uuid4()), due=worker.wake)
    return eraser, worker, uses


def _recogniser(
    settings: ExtractorSettings, parser: ParserPool, stack: contextlib.AsyncExitStack
) -> RecognisePage | None:
    """Text recognition, of which nothing is started before a page needs it; None where it is left out."""
    if not settings.ocr_processes:
        return None
    if importlib.util.find_spec("rapidocr") is None:
        raise WrongSettingError("PAGEMESH_OCR_PROCESSES: text recognition is not installed; 0 does without")
    reader = OcrPool(ocr_limits(settings))
    stack.push_async_callback(reader.stop)
    return RecognisePage(
        parser=parser,
        reader=reader,
        writer=RecognisedPageWriter(guess_language=LanguageGuesser().guess),
        limits=RecognitionLimits(
            dpi=_OCR_DPI, max_side_px=ocr_protocol.MAX_SIDE_PX, min_confidence=_OCR_MIN_CONFIDENCE
        ),
    )


def ocr_limits(settings: ExtractorSettings) -> OcrLimits:
    """The limits of text recognition that follow from the settings."""
    return OcrLimits(
        processes=settings.ocr_processes,
        budget_s=settings.page_timeout_s * _OCR_TIMES_PAGE,
        cpu_s=settings.page_timeout_s * (_OCR_TIMES_PAGE + 1),
        wall_s=settings.page_timeout_s * _OCR_TIMES_PAGE * 4,
        memory_bytes=_OCR_MEMORY_BYTES,
        max_waiting=settings.ocr_processes * _WAITING_FOR_EACH_READER,
        idle_s=_OCR_IDLE_S,
        needs_sandbox=_needs_sandbox(settings),
    )


def _needs_sandbox(settings: ExtractorSettings) -> bool:
    return settings.parser_sandbox == "on" and sys.platform == "linux"


def _meanings(settings: ExtractorSettings, pool: Pool, stack: contextlib.AsyncExitStack) -> Meanings:
    client = MeshClient(
        peer="summarizer", target=settings.summarizer_target, settings=settings, breaker=Breaker("embedder")
    )
    stack.push_async_callback(client.close)
    return Meanings(embedder=SummarizerEmbedder(client), index=PostgresVectors(pool))


def _search(pool: Pool, extract: ExtractPages, meanings: Meanings) -> SearchPages:
    # So few at a time that they and the pages that they read leave others connections of the database.
    turns = FairSlots(size=_SEARCHES, max_waiting=_SEARCHES * _WAITING_FOR_EACH_SEARCH, busy=search_busy)
    return SearchPages(index=PostgresSearch(pool), extract=extract, decode=page_text, turns=turns, meanings=meanings)


def search_busy() -> ResourceExhausted:
    """What is told where too many searches wait."""
    return ResourceExhausted("SEARCH_BUSY", "Too many searches wait. Try again shortly.", retry_after_s=2.0)


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
        max_pixels=settings.max_pixels,
        needs_sandbox=_needs_sandbox(settings),
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


if __name__ == "__main__":
    sys.exit(main())
