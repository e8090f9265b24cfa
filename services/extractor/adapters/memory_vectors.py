"""The ports of searches by meaning in memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.extractor.adapters.memory_search import passes
from services.extractor.domain.documents import Document, not_found
from services.extractor.domain.hybrid import Passage, Vector
from services.extractor.domain.search import Filters, FoundPage


@dataclass(slots=True)
class MemoryVectors:
    """Implements `VectorIndex`, over documents that are put in."""

    documents: dict[tuple[str, str], Document] = field(default_factory=dict)
    _vectors: dict[tuple[str, str, int, int], Vector] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        """A document that was stored."""
        self.documents[document.tenant, document.id] = document

    async def store(self, tenant: str, document_id: str, passages: Sequence[Passage]) -> None:
        """See the port."""
        for passage in passages:
            _ = passage.vector.numbers
        if (tenant, document_id) not in self.documents:
            raise not_found(f"documents/{document_id}")
        pages, model = {passage.page for passage in passages}, passages[0].vector.model
        for key, vector in list(self._vectors.items()):
            if key[:2] == (tenant, document_id) and (vector.model != model or key[2] in pages):
                del self._vectors[key]
        for passage in passages:
            self._vectors[tenant, document_id, passage.page, passage.part] = passage.vector

    async def has_any(self, tenant: str, model: str) -> bool:
        """See the port."""
        return any(key[0] == tenant and vector.model == model for key, vector in self._vectors.items())

    async def nearest(
        self, tenant: str, vector: Vector, filters: Filters, *, limit: int, timeout_s: float
    ) -> Sequence[FoundPage]:
        """See the port."""
        best: dict[tuple[str, int], float] = {}
        for (owner, document_id, page, _), other in self._vectors.items():
            comparable = other.model == vector.model and len(other.data) == len(vector.data)
            if owner == tenant and comparable and passes(filters, self.documents[owner, document_id]):
                key = (document_id, page)
                best[key] = max(best.get(key, 0.0), _cosine(vector.numbers, other.numbers))
        order = sorted(best, key=lambda key: (-best[key], key))[:limit]
        return [
            FoundPage(name, self.documents[tenant, name].display_name, page, "", best[name, page])
            for name, page in order
        ]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
