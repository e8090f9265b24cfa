"""Describing and listing documents, changing how long they are kept, and what tells of those that are gone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.extractor.domain.documents import Cursor, Document, document_id, not_found
from services.extractor.domain.keeping import Receipts
from services.extractor.domain.ports import Clock, DocumentRepository
from services.extractor.domain.receipts import DeletionReceipt
from services.extractor.domain.retention import Change

DEFAULT_LIST_SIZE = 50
MAX_LIST_SIZE = 1000


@dataclass(frozen=True, slots=True)
class DocumentList:
    """One part of a list; `next_page_token` is empty at its end."""

    documents: Sequence[Document]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ReceiptList:
    """The same of receipts."""

    receipts: Sequence[DeletionReceipt]
    next_page_token: str


class Library:
    """The documents of a tenant. Another tenant's are not there."""

    def __init__(self, *, repository: DocumentRepository, receipts: Receipts, clock: Clock) -> None:
        self._repository = repository
        self._receipts = receipts
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

    async def update(self, tenant: str, name: str, change: Change) -> Document:
        """Changes how long a document is kept. Raises NotFound, and what `Change.applied` raises."""
        async with self._repository.locked(tenant, document_id(name)) as record:
            document = await record.read()
            if document is None:
                raise not_found(name)
            term = change.applied(document.term, now=self._clock.now())
            if not await record.set_term(term):
                raise not_found(name)
        return replace(document, term=term)

    async def receipts(self, tenant: str, *, page_size: int, page_token: str) -> ReceiptList:
        """At most `page_size` receipts (0: 50), newest first. Raises InvalidArgument INVALID_PAGE_TOKEN."""
        size = min(page_size or DEFAULT_LIST_SIZE, MAX_LIST_SIZE)
        after = Cursor.parse(page_token) if page_token else None
        found = await self._receipts.receipts(tenant, limit=size + 1, after=after)
        receipts = found[:size]
        if len(found) <= size:
            return ReceiptList(receipts, "")
        return ReceiptList(receipts, Cursor(receipts[-1].delete_time, receipts[-1].id).token())
