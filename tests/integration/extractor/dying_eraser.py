"""A process that deletes a document and is killed at one step: `python -m … DSN OBJECTS_URL SPOOL TENANT NAME STEP`."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from services.database.pool import open_pool
from services.extractor.adapters.clock import SystemClock
from services.extractor.adapters.object_store import ObstoreObjectStore
from services.extractor.adapters.postgres import PostgresDocuments, PostgresRecord
from services.extractor.domain.erasure import Eraser
from services.extractor.domain.receipts import DeletionReceipt, Erased

RESULTS = 3
"""What the summarizer had made of the document."""
STEPS = ("purge", "results", "store", "remove", "receipt", "commit")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Results:
    """Erases once, as the summarizer does, and is asked before anything else is removed."""

    def __init__(self, marker: Path, step: str) -> None:
        self._marker, self._step = marker, step

    async def purge(self, tenant: str, document: str) -> int:
        if self._step == "purge":
            die()
        if self._marker.exists():
            return 0
        self._marker.touch()
        return RESULTS


class Store(ObstoreObjectStore):
    """Dies before its object is deleted, or when it just was."""

    step = ""

    async def delete(self, key: str) -> bool:
        if self.step == "results":
            die()
        removed = await super().delete(key)
        if self.step == "store":
            die()
        return removed


def dying_record(step: str) -> None:
    """Kills the process between the statements of the last transaction."""
    remove, add_receipt = PostgresRecord.remove, PostgresRecord.add_receipt

    async def removed(self: PostgresRecord) -> Erased:
        erased = await remove(self)
        if step == "remove":
            die()
        return erased

    async def added(self: PostgresRecord, receipt: DeletionReceipt) -> None:
        await add_receipt(self, receipt)
        if step == "receipt":
            die()

    PostgresRecord.remove, PostgresRecord.add_receipt = removed, added  # type: ignore[method-assign]


async def main(dsn: str, objects: str, spool: Path, *document_and_step: str) -> None:
    tenant, name, step = document_and_step
    dying_record(step)
    pool = await open_pool(dsn, name="dying")
    store = Store(objects, spool_dir=spool)
    store.step = step
    eraser = Eraser(
        repository=PostgresDocuments(pool),
        store=store,
        results=Results(spool / "purged", step),
        clock=SystemClock(),
        new_id=lambda: "0" * 32,
        erased=lambda _: die(),
    )
    await eraser.delete(tenant, name, actor="apiKeys/me")


if __name__ == "__main__":
    dsn, objects, spool, *rest = sys.argv[1:]
    asyncio.run(main(dsn, objects, Path(spool), *rest))
