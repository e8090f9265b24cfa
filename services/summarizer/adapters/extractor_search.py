"""The extractor's SearchPages as the summarizer's way to pages by their words or their meaning."""

from collections.abc import Sequence

from pagemesh.extractor.v1 import extractor_service_pb2 as extractor_pb2
from pagemesh.extractor.v1 import extractor_service_pb2_grpc, search_pb2, vectors_pb2
from services.runtime.clients import MeshClient
from services.summarizer.domain.ports_questions import Filters, PageAt

SEARCH_CAP_S = 15.0
"""A search waits for its turn for ten seconds at most, and then it has five."""


class ExtractorSearch:
    """PageSearch on the ExtractorService."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)

    async def find(self, query: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """The best pages."""
        return await self._search(query, filters, limit, vectors_pb2.SEARCH_MODE_WORDS)

    async def near(self, text: str, filters: Filters, limit: int) -> Sequence[PageAt]:
        """The nearest pages."""
        return await self._search(text, filters, limit, vectors_pb2.SEARCH_MODE_VECTORS)

    async def _search(
        self, query: str, filters: Filters, limit: int, mode: "vectors_pb2.SearchMode.ValueType"
    ) -> Sequence[PageAt]:
        """Pages without what they say: they are read anyway."""
        request = extractor_pb2.SearchPagesRequest(
            query=query,
            page_size=limit,
            documents=filters.documents,
            languages=filters.languages,
            view=search_pb2.SEARCH_VIEW_BASIC,
            mode=mode,
        )
        if filters.stored_after is not None:
            request.stored_after.FromDatetime(filters.stored_after)
        if filters.stored_before is not None:
            request.stored_before.FromDatetime(filters.stored_before)
        answer = await self._client.unary(self._stub.SearchPages, request, cap_s=SEARCH_CAP_S)
        return [PageAt(hit.document, hit.page) for hit in answer.hits]
