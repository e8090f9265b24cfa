"""The extractor as the keeper of vectors."""

from collections.abc import Sequence

from pagemesh.extractor.v1 import extractor_service_pb2_grpc, vectors_pb2
from services.runtime.clients import MeshClient
from services.summarizer.domain.ports_embeddings import PassageVector

STORE_CAP_S = 20.0


class ExtractorVectors:
    """Implements the port `VectorShelf`."""

    def __init__(self, client: MeshClient) -> None:
        self._client = client
        self._stub = extractor_service_pb2_grpc.ExtractorServiceStub(client.channel)

    async def store(self, document: str, model: str, passages: Sequence[PassageVector]) -> None:
        """See the port."""
        request = vectors_pb2.StorePageVectorsRequest(
            document=document,
            model=model,
            passages=[
                vectors_pb2.PassageVector(page=each.page, part=each.part, vector=each.vector) for each in passages
            ],
        )
        await self._client.unary(self._stub.StorePageVectors, request, cap_s=STORE_CAP_S)
