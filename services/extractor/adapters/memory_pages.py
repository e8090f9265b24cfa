"""Stored pages in memory."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from services.extractor.adapters.memory import MemoryDocuments
from services.extractor.domain.pages import FailedPage, Page, Part
from services.extractor.domain.stored_pages import (
    Coverage,
    Facts,
    Finding,
    Looked,
    Segment,
    Source,
    Span,
    StoredDocument,
)

_Key = tuple[str, str]


class MemoryPages:
    """Implements `PageStore` beside the documents that it asks who is alive."""

    def __init__(self, documents: MemoryDocuments) -> None:
        self._documents = documents
        self._facts: dict[_Key, Facts] = {}
        self._segments: dict[_Key, dict[tuple[object, ...], Segment]] = {}

    async def look(self, tenant: str, document_id: str, *, parts: Part, page: int) -> Looked | None:
        """See the port."""
        document = await self._documents.get(tenant, document_id)
        if document is None:
            return None
        stored = await self.find(tenant, document_id)
        span = Coverage(stored.spans, source=Source.PARSED, parts=parts).at(page)
        return Looked(document, stored, deque(await self.read(tenant, document_id, [span] if span else [])))

    async def find(self, tenant: str, document_id: str) -> StoredDocument:
        """See the port."""
        if await self._documents.get(tenant, document_id) is None:
            return StoredDocument()
        segments = self._segments.get((tenant, document_id), {})
        spans = tuple(segment.span for segment in segments.values())
        return StoredDocument(self._facts.get((tenant, document_id)), spans)

    async def read(self, tenant: str, document_id: str, spans: Sequence[Span]) -> Sequence[Page | FailedPage]:
        """See the port."""
        segments = self._segments.get((tenant, document_id), {}).values()
        found = [segment for segment in segments if segment.span in spans]
        found.sort(key=lambda segment: segment.span.first_page)
        return [page for segment in found for page in segment.pages]

    async def write(self, findings: Sequence[Finding]) -> None:
        """See the port."""
        for finding in findings:
            key = finding.tenant, finding.document_id
            if await self._documents.get(*key) is None:
                continue
            if finding.facts is not None:
                before = self._facts.get(key)
                facts = finding.facts
                if not facts.info_parts and before is not None:
                    facts = replace(facts, info=before.info, info_parts=before.info_parts)
                self._facts[key] = facts
                await self._documents.set_page_count(*key, facts.page_count)
            for segment in finding.segments:
                self._add(key, segment)

    def _add(self, key: _Key, segment: Segment) -> None:
        span = segment.span
        segments = self._segments.setdefault(key, {})
        begin = span.source, span.parts, span.first_page
        if begin not in segments or segments[begin].span.last_page <= span.last_page:
            pages = [replace(page, parts=span.parts) if isinstance(page, Page) else page for page in segment.pages]
            segments[begin] = Segment(span, tuple(pages))
