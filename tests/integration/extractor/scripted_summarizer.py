"""The summarizer as the extractor sees it: it erases what it made of documents, or is down."""

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pagemesh.summarizer.v1 import embedding_pb2
from pagemesh.summarizer.v1 import summarizer_service_pb2 as summarizer_pb2
from pagemesh.summarizer.v1.summarizer_service_pb2_grpc import SummarizerServiceServicer
from services.runtime.call import current_identity
from services.runtime.errors import FailedPrecondition, Unavailable
from tests.fakes.embedding import vector_of

SUMMARIZER = "pagemesh.summarizer.v1.SummarizerService"


def packed(numbers: Sequence[float]) -> bytes:
    """As vectors are passed on."""
    return struct.pack(f"<{len(numbers)}e", *numbers)


@dataclass
class ScriptedSummarizer(SummarizerServiceServicer):
    """Speaks the contract; what it made of which document a test says."""

    made: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Results by tenant and document."""
    embedding_model: str = ""
    queries: list[str] = field(default_factory=list)
    """Of which a vector was made."""
    down: bool = False
    asked: int = 0

    async def EmbedQuery(
        self, request: embedding_pb2.EmbedQueryRequest, context: object
    ) -> embedding_pb2.EmbedQueryResponse:
        if not self.embedding_model:
            raise FailedPrecondition("EMBEDDING_NOT_CONFIGURED", "There is no such model.")
        if self.down:
            raise Unavailable("PROVIDER_UNAVAILABLE", "The provider does not answer.")
        if not request.query:
            return embedding_pb2.EmbedQueryResponse(model=self.embedding_model)
        self.queries.append(request.query)
        return embedding_pb2.EmbedQueryResponse(model=self.embedding_model, vector=packed(vector_of(request.query)))

    async def PurgeDocument(
        self, request: summarizer_pb2.PurgeDocumentRequest, context: object
    ) -> summarizer_pb2.PurgeDocumentResponse:
        self.asked += 1
        if self.down:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database does not answer.")
        count = self.made.pop((current_identity().tenant, request.document), 0)
        return summarizer_pb2.PurgeDocumentResponse(results_deleted=count)
