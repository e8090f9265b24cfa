"""The port of vectors in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.runtime.call import current_identity
from services.runtime.errors import NotFound
from services.summarizer.adapters.memory import MemoryPages
from services.summarizer.domain.ports_embeddings import PassageVector


@dataclass
class MemoryVectors:
    """Implements `VectorShelf`, for the documents of `pages`."""

    pages: MemoryPages
    kept: dict[tuple[str, str], tuple[str, dict[tuple[int, int], bytes]]] = field(default_factory=dict)
    """By tenant and document: the model, and the vectors by page and part."""

    async def store(self, document: str, model: str, passages: Sequence[PassageVector]) -> None:
        """See the port."""
        tenant = current_identity().tenant
        if document not in self.pages.documents_of(tenant):
            raise NotFound("DOCUMENT_NOT_FOUND", f"There is no {document}.")
        before, vectors = self.kept.get((tenant, document), (model, {}))
        touched = {each.page for each in passages}
        left = {key: vector for key, vector in vectors.items() if key[0] not in touched and before == model}
        self.kept[tenant, document] = (model, left | {(each.page, each.part): each.vector for each in passages})
