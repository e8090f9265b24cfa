"""Describing, listing and erasing documents."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from services.extractor.domain.documents import Cursor, DeletionReceipt, Document, document_id, not_found
from services.extractor.domain.keys import object_key
from services.extractor.domain.ports import Clock, DocumentRepository, ObjectStore

DEFAULT_LIST_SIZE = 50
MAX_LIST_SIZE = 1000
ERASURE_GRACE = dt.timedelta(seconds=60)
"""How long a deletion is left to the call that began it before the sweep completes it."""
_SWEEP_LIMIT = 100


@dataclass(frozen=True, slots=True)
class DocumentList:
    """One part of a list; `next_page_token` is empty at its end."""

    documents: Sequence[Document]
    next_page_token: str


class Library:
    """The documents of a tenant. Another tenant's are not there."""

    def __init__(self, *, repository: DocumentRepository, store: ObjectStore, clock: Clock) -> None:
        self._repository = repository
        self._store = store
        self._clock = clock

    async def get(self, tenant: str, name: str) -> Document:
        """One document. Raises NotFound."""
        document = await self._repository.get(tenant, document_id(name))
        if document is None:
            raise not_found(name)
        return document

    async def list(self, tenant: str, *, page_size: int, page_token: str) -> DocumentList:
        """At most `page_size` documents (0: 50), newest first. Raises InvalidArgument INVALID_PAGE_TOKEN."""
        size = min(page_size or DEFAULT_LIST_SIZE, MAX_LIST_SIZE)
        after = Cursor.parse(page_token) if page_token else None
        # One more than asked for tells whether there is a next part.
        found = await self._repository.list(tenant, limit=size + 1, after=after)
        documents = found[:size]
        if len(found) <= size:
            return DocumentList(documents, "")
        return DocumentList(documents, Cursor(documents[-1].create_time, documents[-1].id).token())

    async def delete(self, tenant: str, name: str) -> DeletionReceipt:
        """Erases bytes and row. Raises NotFound, also for whoever comes second.

        The row is hidden in a transaction of its own before the bytes go, so that whatever breaks in between, nobody
        sees a document without bytes, and the deletion is completed by the next call or by the sweep.
        """
        bare_id = document_id(name)
        async with self._repository.locked(tenant, bare_id) as record:
            if await record.read() is not None:
                await record.mark_erased(self._clock.now())
            elif await record.read_erased(by=self._clock.now()) is None:
                raise not_found(name)
        receipt = await self._complete(tenant, bare_id)
        if receipt is None:
            raise not_found(name)
        return receipt

    async def sweep(self) -> int:
        """Completes deletions that broke off and clears up after uploads that did; answers how many."""
        erasures = await self._repository.erasures(before=self._clock.now() - ERASURE_GRACE, limit=_SWEEP_LIMIT)
        for erasure in erasures:
            await self._complete(erasure.tenant, erasure.document_id)
        return len(erasures)

    async def _complete(self, tenant: str, bare_id: str) -> DeletionReceipt | None:
        async with self._repository.locked(tenant, bare_id) as record:
            document = await record.read_erased(by=self._clock.now())
            if document is None:
                return None
            removed = await self._store.delete(object_key(tenant, document.sha256))
            await record.remove()
        return DeletionReceipt(document, objects_deleted=int(removed), delete_time=self._clock.now())
