"""Uploads, deletions, uses and expiry of the same bytes at once, and kill -9 between the steps of a deletion."""

import asyncio
import datetime as dt
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from services.database.pool import Pool, open_pool
from services.extractor.adapters.memory import MemoryResults
from services.extractor.adapters.object_store import ObstoreObjectStore
from services.extractor.adapters.postgres import PostgresDocuments
from services.extractor.adapters.postgres_lifecycle import PostgresLifecycle
from services.extractor.adapters.spool import DiskSpool
from services.extractor.domain.erasure import CLAIM, Eraser
from services.extractor.domain.lifecycle import LifecycleSignals, LifecycleWorker
from services.extractor.domain.receipts import DeletionReceipt
from services.extractor.domain.retention import Retention
from services.extractor.domain.upload import UploadDocument
from services.extractor.domain.uses import Uses
from services.runtime.errors import Aborted, NotFound
from tests.integration.extractor import dying_eraser
from tests.unit.extractor.keeping import PDF, in_pieces

SECOND = dt.timedelta(seconds=1)


class Clock:
    def __init__(self) -> None:
        self.time = dt.datetime.now(dt.UTC)

    def now(self) -> dt.datetime:
        return self.time


class World:
    """All that looks after documents, on a real Postgres and a real directory; `replica()` is one process of it."""

    def __init__(self, pool: Pool, dsn: str, directory: Path) -> None:
        self.dsn, self.directory = dsn, directory
        self.objects = directory / "objects"
        self.store = ObstoreObjectStore(self.objects.as_uri(), spool_dir=directory)
        self.documents, self.keeper = PostgresDocuments(pool), PostgresLifecycle(pool)
        self.clock, self.results = Clock(), MemoryResults()
        self.told: list[DeletionReceipt] = []
        self.failures: list[tuple[str, Exception]] = []
        self.eraser = Eraser(
            repository=self.documents,
            store=self.store,
            results=self.results,
            clock=self.clock,
            new_id=lambda: uuid4().hex,
            erased=self.told.append,
        )
        self.take_in = UploadDocument(
            repository=self.documents,
            store=self.store,
            spool=DiskSpool(directory / "spool", max_files=100),
            eraser=self.eraser,
            clock=self.clock,
            max_upload_bytes=100_000,
            stall_s=10,
        )
        self.uses = Uses(
            repository=self.documents,
            leases=self.keeper,
            clock=self.clock,
            new_id=lambda: str(uuid4()),
            due=lambda: None,
        )

    def worker(self) -> LifecycleWorker:
        return LifecycleWorker(
            lifecycle=self.keeper,
            eraser=self.eraser,
            sweep_store=self.store.sweep,
            clock=self.clock,
            signals=LifecycleSignals(lambda _: None, lambda step, exc: self.failures.append((step, exc))),
        )

    def stored(self) -> list[Path]:
        return [path for path in self.objects.rglob("*") if path.is_file()]


@pytest.fixture
async def world(database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[World]:
    dsn = database("extractor")
    pool = await open_pool(dsn, name="test")
    yield World(pool, dsn, tmp_path)
    await pool.close()


async def test_whatever_happens_to_the_same_bytes_at_once_ends_in_one_truth(world: World) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    name, created = "", 0
    workers = [world.worker(), world.worker()]

    async def upload() -> None:
        nonlocal name, created
        with suppress(Aborted):
            uploaded = await world.take_in(
                "acme", "a.pdf", in_pieces(PDF), retention=chance.choice([None, Retention.EPHEMERAL, Retention.KEPT])
            )
            name = uploaded.document.name
            created += uploaded.created

    async def delete() -> None:
        with suppress(NotFound):
            await world.eraser.delete("acme", name, actor="me")

    async def use() -> None:
        with suppress(NotFound):
            async with world.uses.of("acme", name) as used:
                used.processed = True

    async def expire() -> None:
        # Long enough for what is ephemeral and temporary, and for every claim.
        world.clock.time += dt.timedelta(days=2)
        await asyncio.gather(*(worker.round() for worker in workers))

    await upload()
    for _ in range(15):
        moves = [upload, upload, upload, delete, delete, use, use, expire, workers[0].round]
        chance.shuffle(moves)
        async with asyncio.timeout(60):
            await asyncio.gather(*(move() for move in moves))
        alive = await world.documents.get("acme", name.removeprefix("documents/"))
        if alive is not None:
            async with world.store.open(f"acme/{alive.sha256}") as file:
                assert Path(f"/proc/self/fd/{file.fileno()}").read_bytes() == PDF, seed
    await delete()
    world.clock.time += dt.timedelta(hours=2)
    await workers[0].round()
    assert world.stored() == [], seed
    assert world.failures == [], seed
    receipts = await world.keeper.receipts("acme", limit=1000, after=None)
    assert len(receipts) == len(world.told) == created, f"one receipt for each document that there was: {seed}"
    assert all(receipt.objects_deleted == 1 for receipt in receipts), seed


async def killed_at(world: World, name: str, step: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        dying_eraser.__name__,
        world.dsn,
        world.objects.as_uri(),
        str(world.directory),
        "acme",
        name,
        step,
        cwd=Path(__file__).parents[3],
    )
    async with asyncio.timeout(60):
        assert await process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("step", dying_eraser.STEPS)
async def test_a_deletion_that_is_killed_is_hidden_and_completed(world: World, step: str) -> None:
    document = (await world.take_in("acme", "a.pdf", in_pieces(PDF))).document
    await killed_at(world, document.name, step)
    assert await world.documents.get("acme", document.id) is None
    done = step == "commit"
    assert len(await world.keeper.receipts("acme", limit=9, after=None)) == done
    if step == "purge":
        world.results.made["acme", document.name] = dying_eraser.RESULTS
    world.clock.time = dt.datetime.now(dt.UTC) + CLAIM
    await world.worker().round()
    (receipt,) = await world.keeper.receipts("acme", limit=9, after=None)
    assert (receipt.document, receipt.actor) == (document.name, "apiKeys/me")
    assert receipt.results_deleted == dying_eraser.RESULTS
    assert world.stored() == []
    assert await rows_left(world) == 0
    assert (await world.take_in("acme", "a.pdf", in_pieces(PDF))).created


async def rows_left(world: World) -> int:
    async with await psycopg.AsyncConnection.connect(world.dsn) as connection:
        await connection.execute("SELECT set_config('pagemesh.tenant', 'acme', false)")
        row = await (await connection.execute("SELECT count(*) FROM extractor.documents")).fetchone()
    assert row is not None
    return int(row[0])


async def test_an_upload_at_the_moment_of_expiry_keeps_or_renews_its_document(world: World) -> None:
    for _ in range(20):
        document = (await world.take_in("acme", "a.pdf", in_pieces(PDF), retention=Retention.EPHEMERAL)).document
        world.clock.time = max(world.clock.time, document.term.expire_time + SECOND)
        again, *_ = await asyncio.gather(
            world.take_in("acme", "a.pdf", in_pieces(PDF)), world.worker().round(), world.worker().round()
        )
        assert await world.documents.get("acme", document.id) == again.document
        assert len(world.stored()) == 1
        await world.eraser.delete("acme", document.name, actor="me")
    assert world.failures == []
