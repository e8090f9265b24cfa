"""Erasing a document and everything that was made of it, with a receipt when nothing is left."""

import datetime as dt
from collections.abc import Callable

from services.extractor.domain.documents import document_id, not_found
from services.extractor.domain.keeping import Erasing, Results
from services.extractor.domain.keys import object_key
from services.extractor.domain.ports import Clock, DocumentRepository, ObjectStore
from services.extractor.domain.receipts import Cause, DeletionReceipt
from services.runtime.errors import NotFound, PagemeshError, Unavailable

CLAIM = dt.timedelta(seconds=30)
"""How long an erasure is left to whoever is at it before somebody else completes it; a call takes no longer."""


class Eraser:
    """Hides first, erases then: results, bytes, and with the row its pages and index entries, each idempotent.

    Whatever breaks in between, nobody sees a document without bytes, and the next call or the lifecycle worker goes on.
    The receipt is written in the transaction that removes the row.
    """

    def __init__(
        self,
        *,
        repository: DocumentRepository,
        store: ObjectStore,
        results: Results,
        clock: Clock,
        new_id: Callable[[], str],
        erased: Callable[[DeletionReceipt], None],
        claim: dt.timedelta = CLAIM,
    ) -> None:
        """`new_id` makes 32 hexadecimal digits; `erased` hears of each receipt; for `claim` a deletion is its caller's
        alone."""
        self._repository = repository
        self._store = store
        self._results = results
        self._clock = clock
        self._new_id = new_id
        self._erased = erased
        self._claim = claim

    async def delete(self, tenant: str, name: str, *, actor: str) -> DeletionReceipt:
        """Erases a document now, whoever uses it. Raises NotFound, also for whoever comes second, and Unavailable
        DELETION_UNFINISHED where it is hidden and the rest is still to be done."""
        bare_id, now = document_id(name), self._clock.now()
        async with self._repository.locked(tenant, bare_id) as record:
            if await record.read() is not None:
                await record.mark_erased(now, cause=Cause.REQUESTED, actor=actor, until=now + self._claim)
            elif (erasing := await record.read_erased(by=now)) is None or erasing.cause is None:
                raise not_found(name)
        receipt = await self.complete(tenant, bare_id)
        if receipt is None:
            raise not_found(name)
        return receipt

    async def complete(self, tenant: str, bare_id: str) -> DeletionReceipt | None:
        """Goes on with an erasure to its end; None where there is none, or nothing that anybody had ever seen.

        Raises Unavailable DELETION_UNFINISHED.
        """
        try:
            return await self._complete(tenant, bare_id)
        except NotFound:
            raise
        except PagemeshError as exc:
            raise Unavailable(
                "DELETION_UNFINISHED",
                "The document is hidden, but not all of it is erased yet. That goes on by itself: its receipt will be "
                "in ListDeletionReceipts, or call again.",
                retry_after_s=self._claim.total_seconds(),
                metadata={"waits_for": exc.reason},
            ) from exc

    async def _complete(self, tenant: str, bare_id: str) -> DeletionReceipt | None:
        async with self._repository.locked(tenant, bare_id) as record:
            erasing = await record.read_erased(by=self._clock.now())
        if erasing is None:
            return None
        if erasing.cause is not None:
            # Not under the lock: it is a call to another service. Noted apart, so that a later step may fail.
            count = await self._results.purge(tenant, erasing.document.name)
            if count:
                async with self._repository.locked(tenant, bare_id) as record:
                    await record.note_results(count)
        async with self._repository.locked(tenant, bare_id) as record:
            erasing = await record.read_erased(by=self._clock.now())
            if erasing is None:
                return None
            # Under the lock, which every upload of the same bytes takes before it makes them a document.
            removed = await self._store.delete(object_key(tenant, erasing.document.sha256))
            erased = await record.remove()
            if erasing.cause is None:
                return None
            receipt = self._receipt(
                erasing, erasing.cause, objects=int(removed), pages=erased.pages, index_entries=erased.index_entries
            )
            await record.add_receipt(receipt)
        self._erased(receipt)
        return receipt

    def _receipt(
        self, erasing: Erasing, cause: Cause, *, objects: int, pages: int, index_entries: int
    ) -> DeletionReceipt:
        document = erasing.document
        return DeletionReceipt(
            id=self._new_id(),
            tenant=document.tenant,
            document_id=document.id,
            sha256=document.sha256,
            size_bytes=document.size_bytes,
            objects_deleted=objects,
            pages_deleted=pages,
            index_entries_deleted=index_entries,
            results_deleted=erasing.results_deleted,
            cause=cause,
            delete_time=self._clock.now(),
            actor=erasing.actor,
        )
