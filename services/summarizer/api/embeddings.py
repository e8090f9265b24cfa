"""EmbedDocument and EmbedQuery of SummarizerService: requests in, use case, vectors out."""

from prometheus_client import Counter

from pagemesh.summarizer.v1 import embedding_pb2
from services.summarizer.api.caller import current_caller
from services.summarizer.api.estimate_mapping import to_purse
from services.summarizer.api.mapping import from_consumption
from services.summarizer.domain.embedding import EmbedDocument, EmbedQuery

_PASSAGES = Counter("pagemesh_summarizer_passages_embedded", "Passages of documents that got vectors.")


class Embeddings:
    """Translates between the contract and the use cases."""

    def __init__(self, document: EmbedDocument, query: EmbedQuery) -> None:
        self._document = document
        self._query = query

    async def document(self, request: embedding_pb2.EmbedDocumentRequest) -> embedding_pb2.EmbedDocumentResponse:
        """Vectors of a document's pages."""
        done = await self._document(current_caller(), request.document, to_purse(request))
        _PASSAGES.inc(done.passage_count)
        return embedding_pb2.EmbedDocumentResponse(
            model=done.model,
            page_count=done.page_count,
            passage_count=done.passage_count,
            failed_pages=done.failed_pages,
            consumption=from_consumption(done.consumption),
        )

    async def query(self, request: embedding_pb2.EmbedQueryRequest) -> embedding_pb2.EmbedQueryResponse:
        """The vector of a query."""
        found = await self._query(current_caller(), request.query)
        return embedding_pb2.EmbedQueryResponse(model=found.model, vector=found.vector)
