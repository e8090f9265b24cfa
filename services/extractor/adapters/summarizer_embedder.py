"""The summarizer, which has vectors of queries made."""

from pagemesh.summarizer.v1 import embedding_pb2
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import SummarizerServiceStub
from services.extractor.domain.hybrid import Vector
from services.runtime.clients import MeshClient


class SummarizerEmbedder:
    """Implements the port `Embedder`. Its client has a breaker of its own: where a provider is down, nothing else that
    the summarizer does for the extractor may wait for it."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = SummarizerServiceStub(client.channel)

    async def model(self, *, timeout_s: float) -> str:
        """See the port."""
        request = embedding_pb2.EmbedQueryRequest()
        return str((await self._client.unary(self._stub.EmbedQuery, request, cap_s=timeout_s)).model)

    async def embed(self, query: str, *, timeout_s: float) -> Vector:
        """See the port."""
        request = embedding_pb2.EmbedQueryRequest(query=query)
        answer = await self._client.unary(self._stub.EmbedQuery, request, cap_s=timeout_s)
        return Vector(answer.model, answer.vector)
